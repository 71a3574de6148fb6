"""What a foreign layout has to say of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from pixelfast.errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Hints:
    """What a file does not record and the caller may know. None: the layout's usual value."""

    shape: Sequence[int] | None = None
    dilations: Sequence[int] | None = None


@dataclass(frozen=True)
class Converted:
    """A model's name and configuration, and its state by our own names."""

    model: str
    config: dict[str, Any]
    tensors: dict[str, Tensor]


def image_shape(hints: Hints, channels: int, side: int) -> list[int]:
    """The shape hinted at, which must have the file's number of channels, or square images of that side."""
    if hints.shape is None:
        return [channels, side, side]
    shape = list(hints.shape)
    if shape and shape[0] != channels:
        raise CheckpointError(f"the shape says {shape[0]} channels, the file has {channels}")
    return shape


class Layout(Protocol):
    """One module per layout has these."""

    NAME: str

    def recognises(self, shapes: Shapes) -> bool:
        """Whether these names and shapes are this layout's."""

    def convert(self, tensors: Mapping[str, Tensor], hints: Hints) -> Converted:
        """The same weights for one of our models; CheckpointError when anything is missing or left over."""
