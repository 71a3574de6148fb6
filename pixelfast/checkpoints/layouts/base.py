"""What a foreign layout has to say of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from pixelfast.errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]


# Old and present names of torch's weight norm.
PRESENT_NAMES = {
    "parametrizations.weight.original0": "weight_g",
    "parametrizations.weight.original1": "weight_v",
}


@dataclass(frozen=True)
class Hints:
    """What is known of a model beside its tensors.

    shape, dilations: what a file does not record and the caller may know; None: the layout's usual value. arguments:
    what the file says of its training in an argparse.Namespace, by name, unchecked.
    """

    shape: Sequence[int] | None = None
    dilations: Sequence[int] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)


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


def weight_norm_name(name: str) -> str:
    """A tensor's name with weight norm's old names, weight_g and weight_v, whichever it has."""
    for present, old in PRESENT_NAMES.items():
        if name.endswith("." + present):
            return name.removesuffix(present) + old
    return name


class Layout(Protocol):
    """One module per layout has these."""

    NAME: str

    def recognises(self, shapes: Shapes) -> bool:
        """Whether these names and shapes are this layout's."""

    def convert(self, tensors: Mapping[str, Tensor], hints: Hints) -> Converted:
        """The same weights for one of our models; CheckpointError when anything is missing or left over."""
