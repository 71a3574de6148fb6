"""One model at several image sizes: time should grow with the pixels, memory with the width."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pixelfast.bench.sampling import spread, time_batch
from pixelfast.bench.text import Column, dtype_name, percent, table
from pixelfast.errors import ShapeError
from pixelfast.problem import Problem, make_problem
from pixelfast.sampler import compile


@dataclass(frozen=True)
class SizeMeasurement:
    """Square images of `size` pixels a side. seconds: per image, the median over repeats of a batch's, / batch.

    bytes_per_image: activations kept for one image while it is sampled.
    """

    size: int
    batch: int
    backend: str
    dtype: str
    seconds: float
    spread: float | None
    us_per_pixel: float
    bytes_per_image: int
    compile_seconds: float

    @property
    def name(self) -> str:
        return f"{self.size}x{self.size}, {self.backend} {self.dtype}"


def problem_of_size(model: Any, size: int) -> Problem:
    """The model for square images, its forward tried on one. Raises ShapeError for a model that does not take them."""
    try:
        problem = make_problem(model, (model.shape[0], size, size), None, None, None, None)
        problem.forward(torch.zeros((1, *problem.shape)), problem.batch_condition(None, 1))
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ShapeError(f"this model does not take images of {size}x{size}: {reason}; leave that size out") from error
    return problem


def time_size(
    model: Any, size: int, batch: int, repeats: int, backend: str, dtype: torch.dtype, *, progress: bool = False
) -> SizeMeasurement:
    """Compile for square images and sample `batch` of them `repeats` times."""
    problem = problem_of_size(model, size)
    sampler = compile(model, problem.shape, backend=backend, dtype=dtype)
    seconds = time_batch(sampler, problem, batch, repeats, progress=progress).seconds
    assert sampler.stats is not None
    median = statistics.median(seconds)
    return SizeMeasurement(
        size=size,
        batch=batch,
        backend=backend,
        dtype=dtype_name(dtype),
        seconds=median / batch,
        spread=spread(seconds),
        us_per_pixel=1e6 * median / (batch * size * size),
        bytes_per_image=sampler.stats.bytes_per_image,
        compile_seconds=sampler.compile_seconds,
    )


def size_table(rows: Sequence[SizeMeasurement]) -> str:
    """The measurements as text."""
    columns: list[Column] = [
        ("size", lambda row: f"{row.size}x{row.size}"),
        ("batch", lambda row: str(row.batch)),
        ("backend", lambda row: row.backend),
        ("dtype", lambda row: row.dtype),
        ("s/image", lambda row: f"{row.seconds:.4g}"),
        ("spread", lambda row: percent(row.spread)),
        ("us/pixel", lambda row: f"{row.us_per_pixel:.1f}"),
        ("MB/image", lambda row: f"{row.bytes_per_image / 1e6:.3g}"),
        ("kB/column", lambda row: f"{row.bytes_per_image / row.size / 1e3:.3g}"),
        ("compile s", lambda row: f"{row.compile_seconds:.1f}"),
    ]
    return table(columns, rows)
