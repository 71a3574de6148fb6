"""Times a sampler at several batch sizes and puts each figure beside its limits."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from pixelfast.bench.naive import Naive
from pixelfast.limit import limit_seconds
from pixelfast.machine import Machine
from pixelfast.problem import Problem
from pixelfast.sampler import Sampler


@dataclass(frozen=True)
class Measurement:
    """One batch size. `seconds`: median over repeats of one call that samples the batch.

    spread: (slowest - fastest) / median. us_per_pixel: microseconds per pixel of one image. gflops: 10^9
    floating-point operations per second, each activation counted once, padding left out. limit_seconds: see
    `limit.limit_seconds`. share: limit_seconds / seconds. ratio: naive_seconds / seconds.
    """

    batch: int
    seconds: float
    spread: float
    repeats: int
    images_per_second: float
    us_per_pixel: float
    gflops: float
    limit_seconds: float
    share: float
    naive_seconds: float
    naive_forwards: int
    naive_forwards_timed: int
    ratio: float


def time_batch(sampler: Sampler, problem: Problem, batch: int, repeats: int, *, progress: bool = False) -> list[float]:
    """Seconds of sampling `batch` images `repeats` times, each time other ones. The caller warms up."""
    condition = problem.batch_condition(None, batch)
    seconds = []
    for seed in range(repeats):
        sampler.sample(batch, seed=seed, condition=condition, batch_size=batch, progress=progress)
        assert sampler.stats is not None
        seconds.append(sampler.stats.seconds)
    return seconds


def measurement(
    sampler: Sampler, batch: int, seconds: list[float], naive: Naive, weight_bytes: float, machine: Machine
) -> Measurement:
    """Times of a batch put beside naive sampling and the machine's limit."""
    median = statistics.median(seconds)
    flops = sampler.program.flops
    limit = limit_seconds(flops, weight_bytes, batch, machine)
    return Measurement(
        batch=batch,
        seconds=median,
        spread=(max(seconds) - min(seconds)) / median,
        repeats=len(seconds),
        images_per_second=batch / median,
        us_per_pixel=1e6 * median / (batch * sampler.shape[1] * sampler.shape[2]),
        gflops=flops * batch / median / 1e9,
        limit_seconds=limit,
        share=limit / median,
        naive_seconds=naive.seconds,
        naive_forwards=naive.forwards,
        naive_forwards_timed=naive.timed,
        ratio=naive.seconds / median,
    )


def table(rows: list[Measurement]) -> str:
    """The measurements as text."""
    columns: list[tuple[str, Callable[[Measurement], str]]] = [
        ("batch", lambda row: str(row.batch)),
        ("seconds", lambda row: f"{row.seconds:.3f}"),
        ("spread", lambda row: f"{row.spread:.0%}"),
        ("images/s", lambda row: f"{row.images_per_second:.2f}"),
        ("us/pixel", lambda row: f"{row.us_per_pixel:.1f}"),
        ("GFLOP/s", lambda row: f"{row.gflops:.1f}"),
        ("limit s", lambda row: f"{row.limit_seconds:.3f}"),
        ("of limit", lambda row: f"{row.share:.0%}"),
        ("naive s", lambda row: f"{row.naive_seconds:.1f}"),
        ("ratio", lambda row: f"{row.ratio:.0f}x"),
    ]
    cells = [[name for name, _ in columns], *([text(row) for _, text in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = [[cell.rjust(width) for cell, width in zip(line, widths, strict=True)] for line in cells]
    return "\n".join("  ".join(line) for line in lines)
