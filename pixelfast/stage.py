"""What a model in stages consists of: networks that sample one after another, each given what those before it drew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from pixelfast import rng

Drawn = Mapping[str, torch.Tensor]
"""What stages have drawn, by their names: (N, C, h, w) each, integers, or floats where a likelihood is continuous."""

PIXELS = "pixels"
"""The name of a stage that draws the image itself, so that nothing has to be decoded after it."""


def _as_given(drawn: Drawn, condition: Any) -> Any:
    return condition


@dataclass(frozen=True)
class Stage:
    """A network that samples.

    name: one of `rng.STREAMS`, which says where its noise comes from.
    network: a causal network that `compile` knows the shape, likelihood and input of.
    condition: the network's condition, from what the stages before it drew and the condition the caller gave; by
        default the latter. It holds no weights.
    """

    name: str
    network: Any
    condition: Callable[[Drawn, Any], Any] = _as_given

    @property
    def stream(self) -> int:
        """The stream of noise, see `rng`."""
        return rng.STREAMS[self.name]
