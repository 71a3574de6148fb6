"""What the rules share: the kinds of tensor they see, and which operations are elementwise or merely create tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass
class Codes:
    """An input-dependent tensor: where each element comes from (see `provenance`)."""

    array: np.ndarray
    dtype: torch.dtype

    @property
    def ndim(self) -> int:
        return int(self.array.ndim)


@dataclass
class Opaque:
    """A tensor that mixes too much to be followed. Harmless unless an output reads it."""

    where: str
    reason: str
    leak: bool = False
    """It reads the whole image, so whoever reads it leaks."""


_CREATION = {
    f"aten.{name}"
    for name in (
        "zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty new_empty_strided zeros ones "
        "full empty empty_strided arange eye linspace scalar_tensor"
    ).split()
}


def is_creation(name: str) -> bool:
    """Makes a tensor from the shape of another, not from its numbers."""
    return name in _CREATION


_UNMARKED = {f"aten.{name}" for name in "hardswish floor_divide special_expit".split()}


def is_pointwise(name: str) -> bool:
    """ATen marks its elementwise operations, but for a few."""
    if name in _UNMARKED:
        return True
    namespace, _, base = name.partition(".")
    packet = getattr(getattr(torch.ops, namespace), base, None)
    if packet is None:
        return False
    return any(torch.Tag.pointwise in getattr(packet, o).tags for o in packet.overloads())


def operand(x: Any) -> Any:
    """What `Builder.pointwise` takes: arrays of codes, constant tensors, plain numbers."""
    return x.array if isinstance(x, Codes) else x


def as_codes(builder: Any, x: Any) -> np.ndarray:
    """Codes of anything: constants become constant values."""
    if isinstance(x, Codes):
        return x.array
    return np.asarray(builder.constant(torch.as_tensor(x).to(torch.float64).numpy()))
