"""The arguments of a sampling call, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .errors import PixelfastError, ShapeError
from .likelihoods.base import check_sampling
from .problem import Problem


@dataclass(frozen=True, eq=False)
class Request:
    samples: int
    seed: int
    sample_ids: np.ndarray
    condition: Any
    temperature: float
    mode: str
    known: np.ndarray | None
    mask: np.ndarray | None
    batch_size: int | None


def check_request(
    problem: Problem,
    n: int,
    seed: int,
    sample_ids: Sequence[int] | None,
    condition: Any,
    temperature: float,
    mode: str,
    known: torch.Tensor | None,
    mask: torch.Tensor | None,
    batch_size: int | None,
) -> Request:
    """Refuses what no sampler takes; broadcasts the rest to n images."""
    n = _whole("n", n, 0, 2**32)
    seed = _whole("seed", seed, 0, 2**64 - 1)
    if batch_size is not None:
        batch_size = _whole("batch_size", batch_size, 1, 2**32)
    check_sampling(temperature, mode)
    if mode == "reference" and problem.input.kind not in ("unit", "signed"):
        raise PixelfastError(
            f"mode='reference' feeds unrounded values back, which needs input 'unit' or 'signed'; this model takes "
            f"{problem.input.kind!r}"
        )
    ids = np.arange(n, dtype=np.uint64) if sample_ids is None else _ids(sample_ids, n)
    if condition is None and problem.condition is not None:
        raise ShapeError("the model is conditional; pass condition= with one row per image")
    rows = None if condition is None else problem.batch_condition(condition, n)
    given, where = _known(problem, n, known, mask)
    return Request(n, seed, ids, rows, float(temperature), mode, given, where, batch_size)


def as_tensor(name: str, value: Any) -> torch.Tensor:
    """A tensor on the CPU, of a tensor, an array or lists of numbers."""
    try:
        return torch.as_tensor(value).cpu()
    except (TypeError, ValueError, RuntimeError):
        raise ShapeError(f"{name} is {type(value).__name__}; it takes a tensor") from None


def _whole(name: str, value: Any, lowest: int, highest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not lowest <= value <= highest:
        raise ShapeError(f"{name} is {value!r}; it must be a whole number from {lowest} to {highest}")
    return int(value)


def _ids(sample_ids: Any, n: int) -> np.ndarray:
    try:
        ids = np.asarray(sample_ids.cpu() if isinstance(sample_ids, torch.Tensor) else [*sample_ids])
    except TypeError:
        raise ShapeError(f"sample_ids is {type(sample_ids).__name__}; it takes {n} whole numbers") from None
    if not ids.size:
        ids = ids.astype(np.int64)
    if ids.shape != (n,) or (n and (ids.dtype.kind not in "iu" or int(ids.min()) < 0 or int(ids.max()) >= 2**32)):
        raise ShapeError(
            f"sample_ids must be {n} whole numbers from 0 to 2**32 - 1; got {ids.dtype} of shape {ids.shape}"
        )
    return ids.astype(np.uint64)


def _known(
    problem: Problem, n: int, known: torch.Tensor | None, mask: torch.Tensor | None
) -> tuple[np.ndarray | None, np.ndarray | None]:
    if known is None and mask is None:
        return None, None
    full, where = broadcast_known(problem.shape, n, known, mask)
    problem.likelihood.check(full)
    return problem.likelihood.settle(full.to(torch.float64)).numpy(), where.numpy().copy()


def broadcast_known(
    shape: tuple[int, int, int], n: int, known: torch.Tensor | None, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Given numbers, zeros where nothing is given, and where they are given, for n images of `shape`: (n, C, H, W).

    Raises ShapeError where one is missing, the mask is not bool, or either does not broadcast to the images.
    """
    if known is None or mask is None:
        raise ShapeError("known and mask go together: the numbers, and where they are given")
    known, mask = as_tensor("known", known), as_tensor("mask", mask)
    if mask.dtype != torch.bool:
        raise ShapeError(f"mask is {mask.dtype}; it must be bool, true where known is given")
    images = (n, *shape)
    try:
        full, where = torch.broadcast_to(known, images), torch.broadcast_to(mask, images)
    except RuntimeError:
        raise ShapeError(
            f"known {tuple(known.shape)} and mask {tuple(mask.shape)} must broadcast to images {images}"
        ) from None
    return torch.where(where, full, torch.zeros_like(full)), where
