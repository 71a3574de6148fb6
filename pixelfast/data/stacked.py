"""Arrays end to end, read where they lie."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pixelfast.errors import ShapeError


class StackedArrays:
    """uint8 arrays (N_i, C, H, W) one after the other as one data set, usually views of memory-mapped files.

    `stacked[index]` copies only the images asked for, uint8 (B, C, H, W).
    """

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self._parts = list(parts)
        self._ends = np.cumsum([len(part) for part in self._parts])
        self._image = self._parts[0].shape[1:]

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return (len(self), *self._image)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: Tensor | slice, /) -> Tensor:
        rows = as_rows(index, len(self))
        out = np.empty((len(rows), *self._image), dtype=np.uint8)
        which = np.searchsorted(self._ends, rows, side="right")
        for number in np.unique(which):
            part = self._parts[number]
            here = which == number
            out[here] = part[rows[here] - (self._ends[number] - len(part))]
        return torch.from_numpy(out)


def as_rows(index: Tensor | slice, length: int) -> np.ndarray:
    """The rows an index means, int64 (B,), all within 0 .. length - 1.

    Raises ShapeError when `index` is neither a one-dimensional integer tensor nor a slice, IndexError when a row
    does not exist.
    """
    if isinstance(index, slice):
        return np.arange(*index.indices(length))
    if not isinstance(index, Tensor) or index.dim() != 1 or index.is_floating_point() or index.dtype == torch.bool:
        given = f"{index.dtype} {tuple(index.shape)}" if isinstance(index, Tensor) else type(index).__name__
        raise ShapeError(f"images are indexed with an int64 tensor (B,) or a slice, not {given}")
    rows = index.to(device="cpu", dtype=torch.int64).numpy()
    outside = rows[(rows < 0) | (rows >= length)]
    if len(outside):
        raise IndexError(f"image {int(outside[0])} does not exist; there are {length:,}, counted from 0")
    return rows
