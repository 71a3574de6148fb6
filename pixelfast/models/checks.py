"""Checks of constructor arguments, done before anything is allocated."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence

import torch

from pixelfast.errors import PixelfastError, ShapeError

MAX_SIDE = 1 << 14
MAX_CHANNELS = 1 << 8
MAX_WIDTH = 1 << 16


def integer(name: str, value: object, low: int, high: int) -> int:
    """`value` when it is an integer in [low, high], else a PixelfastError naming the argument."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise PixelfastError(f"{name} must be an integer from {low} to {high}, not {_short(value)}")
    if not low <= value <= high:
        raise PixelfastError(f"{name} must be from {low} to {high}, not {_short(value)}")
    return value


def odd(name: str, value: object, low: int, high: int) -> int:
    """As `integer`, odd numbers only."""
    number = integer(name, value, low, high)
    if number % 2 == 0:
        raise PixelfastError(f"{name} must be odd, not {number}")
    return number


def optional_integer(name: str, value: object, low: int, high: int) -> int | None:
    """As `integer`, with None passed through."""
    return None if value is None else integer(name, value, low, high)


def fraction(name: str, value: object) -> float:
    """`value` as a float in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise PixelfastError(f"{name} must be a number from 0 up to, not including, 1, not {_short(value)}")
    return float(value)


def positive(name: str, value: object) -> float:
    """`value` as a finite float above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise PixelfastError(f"{name} must be a number above 0, not {_short(value)}")
    return float(value)


def number(name: str, value: object, low: float, high: float) -> float:
    """`value` as a float in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise PixelfastError(f"{name} must be a number from {low:g} to {high:g}, not {_short(value)}")
    return float(value)


def choice(name: str, value: object, accepted: Sequence[str]) -> str:
    """`value` when it is one of the accepted words."""
    if not isinstance(value, str) or value not in accepted:
        raise PixelfastError(f"{name} must be one of {', '.join(accepted)}, not {_short(value)}")
    return value


def integers(name: str, value: object, low: int, high: int, most: int) -> tuple[int, ...]:
    """A non-empty sequence of at most `most` integers in [low, high]."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise PixelfastError(f"{name} must be a sequence of integers, not {_short(value)}")
    if not 1 <= len(value) <= most:
        raise PixelfastError(f"{name} must have from 1 to {most} entries, not {len(value)}")
    return tuple(integer(f"{name}[{i}]", entry, low, high) for i, entry in enumerate(value))


def image_shape(value: object) -> tuple[int, int, int]:
    """(C, H, W) as three positive integers."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence) or len(value) != 3:
        raise ShapeError(f"shape must be (channels, height, width), not {_short(value)}")
    channels, height, width = value
    try:
        return (
            integer("channels", channels, 1, MAX_CHANNELS),
            integer("height", height, 1, MAX_SIDE),
            integer("width", width, 1, MAX_SIDE),
        )
    except PixelfastError as error:
        raise ShapeError(f"shape (channels, height, width) = {_short(value)}: {error}") from None


def float_images(x: torch.Tensor, channels: int) -> None:
    """ShapeError unless x is a float tensor (N, channels, H, W)."""
    if x.dim() != 4 or x.shape[1] != channels:
        raise ShapeError(f"the input must be (N, {channels}, H, W), not {tuple(x.shape)}")
    if not x.is_floating_point():
        raise ShapeError(f"the input must be a float tensor, not {x.dtype}; scale the levels first")


def integer_images(x: torch.Tensor, channels: int) -> None:
    """ShapeError unless x is an integer tensor (N, channels, H, W)."""
    if x.dim() != 4 or x.shape[1] != channels:
        raise ShapeError(f"the input must be (N, {channels}, H, W), not {tuple(x.shape)}")
    if x.dtype not in (torch.int64, torch.int32):
        raise ShapeError(f"the input must be int64 levels, not {x.dtype}")


def arguments(kind: type) -> list[str]:
    """The names of a constructor's arguments."""
    return list(inspect.signature(kind).parameters)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
