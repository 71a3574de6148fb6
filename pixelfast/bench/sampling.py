"""Times a sampler at several batch sizes and puts each figure beside its limits."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pixelfast.bench.naive import Naive
from pixelfast.bench.text import Column, dtype_name, percent, table
from pixelfast.limit import limit_seconds, weight_size
from pixelfast.machine import Machine
from pixelfast.problem import Problem
from pixelfast.sampler import Sampler

REPEAT_SECONDS = 1.0
"""A repeat lasts about this long at least: shorter ones would measure the operating system."""


@dataclass(frozen=True)
class Times:
    """seconds: of one call, one figure per repeat, which is the mean of `calls`."""

    seconds: list[float]
    calls: int
    accepted: float | None
    """Share of forecasts that the last call accepted, None where it made none."""


@dataclass(frozen=True)
class Measurement:
    """One batch size on one backend in one dtype. `seconds`: median over repeats of one call that samples the batch.

    spread: (slowest - fastest) / median, None of one repeat. us_per_pixel: microseconds per pixel of one image.
    gflops: 10^9 floating-point operations per second, each activation counted once, padding left out. limit_seconds:
    see `limit.limit_seconds`. share: limit_seconds / seconds. ratio: naive_seconds / seconds, naive sampling being
    eager torch in float32, whatever the dtype. plan: what the backend's cost model chose and expected, where it has
    one.
    """

    batch: int
    backend: str
    dtype: str
    seconds: float
    spread: float | None
    repeats: int
    calls_per_repeat: int
    images_per_second: float
    us_per_pixel: float
    gflops: float
    limit_seconds: float
    share: float
    naive_seconds: float
    naive_forwards: int
    naive_forwards_timed: int
    ratio: float
    accepted: float | None
    plan: dict[str, Any] | None

    @property
    def name(self) -> str:
        return f"batch {self.batch}, {self.backend} {self.dtype}"


def time_batch(sampler: Sampler, problem: Problem, batch: int, repeats: int, *, progress: bool = False) -> Times:
    """Sample `batch` images once to warm up, then in `repeats` repeats of REPEAT_SECONDS.

    Calls of one repeat make different images, and every repeat the same ones: how many are guessed ahead, and so the
    time, depends on the image, and is no part of the spread.
    """
    condition = problem.batch_condition(None, batch)
    seconds, calls = time_repeats(
        lambda seed: sampler.sample(batch, seed=seed, condition=condition, batch_size=batch, progress=progress), repeats
    )
    return Times(seconds, calls, _accepted(sampler.stats))


def time_repeats(work: Callable[[int], object], repeats: int) -> tuple[list[float], int]:
    """Mean seconds of a call in each repeat, and the calls of a repeat: as many as fill REPEAT_SECONDS.

    `work` is given the number of the call within its repeat, from 1; two calls numbered 0 come before all repeats.
    """

    def seconds(numbers: Sequence[int]) -> float:
        start = time.perf_counter()
        for number in numbers:
            work(number)
        return (time.perf_counter() - start) / len(numbers)

    seconds([0])
    calls = math.ceil(REPEAT_SECONDS / seconds([0]))
    return [seconds(range(1, calls + 1)) for _ in range(repeats)], calls


def spread(seconds: Sequence[float]) -> float | None:
    """(slowest - fastest) / median of repeats; one alone says nothing."""
    return (max(seconds) - min(seconds)) / statistics.median(seconds) if len(seconds) > 1 else None


def measurement(
    sampler: Sampler,
    batch: int,
    times: Times,
    naive: Naive,
    weights_read: float,
    machine: Machine,
    attended_bytes: float = 0.0,
) -> Measurement:
    """Times of a batch put beside naive sampling and the machine's limit. weights_read: how many, not bytes."""
    median = statistics.median(times.seconds)
    flops = sampler.program.flops
    weight_bytes = weights_read * weight_size(sampler.dtype)
    limit = limit_seconds(flops, weight_bytes, batch, machine, sampler.dtype, attended_bytes)
    plan = getattr(sampler.backend, "plan", None)
    return Measurement(
        batch=batch,
        backend=sampler.backend.name,
        dtype=dtype_name(sampler.dtype),
        seconds=median,
        spread=spread(times.seconds),
        repeats=len(times.seconds),
        calls_per_repeat=times.calls,
        images_per_second=batch / median,
        us_per_pixel=1e6 * median / (batch * sampler.shape[1] * sampler.shape[2]),
        gflops=flops * batch / median / 1e9,
        limit_seconds=limit,
        share=limit / median,
        naive_seconds=naive.seconds,
        naive_forwards=naive.forwards,
        naive_forwards_timed=naive.timed,
        ratio=naive.seconds / median,
        accepted=times.accepted,
        plan=plan(batch) if plan is not None else None,
    )


def measurement_table(rows: Sequence[Measurement]) -> str:
    """The measurements as text."""
    columns: list[Column] = [
        ("batch", lambda row: str(row.batch)),
        ("backend", lambda row: row.backend),
        ("dtype", lambda row: row.dtype),
        ("seconds", lambda row: f"{row.seconds:.4g}"),
        ("spread", lambda row: percent(row.spread)),
        ("images/s", lambda row: f"{row.images_per_second:.2f}"),
        ("us/pixel", lambda row: f"{row.us_per_pixel:.1f}"),
        ("GFLOP/s", lambda row: f"{row.gflops:.1f}"),
        ("limit s", lambda row: f"{row.limit_seconds:.4g}"),
        ("of limit", lambda row: f"{row.share:.0%}"),
        ("naive s", lambda row: f"{row.naive_seconds:.1f}"),
        ("ratio", lambda row: f"{row.ratio:.0f}x"),
    ]
    if any(row.accepted is not None for row in rows):
        columns.append(("accepted", lambda row: percent(row.accepted)))
    return table(columns, rows)


def footnotes(rows: Sequence[Measurement]) -> str:
    """How the figures of the table came about."""
    several = max(row.calls_per_repeat for row in rows)
    calls = f"; short calls: the mean of as many as fill {REPEAT_SECONDS:g} s" if several > 1 else ""
    forwards = {row.batch: row.naive_forwards_timed for row in rows}
    timed = ", ".join(f"{count} timed at batch {batch}" for batch, count in forwards.items())
    return (
        f"seconds: median over repeats ({rows[0].repeats}) after one call to warm up{calls}\n"
        "spread: between the slowest and the fastest repeat, as a share of the median\n"
        "limit: the larger of arithmetic and reading weights, keys and values from cache, at the rates above\n"
        f"naive: eager torch in float32, the fastest forward ({timed}) times {rows[0].naive_forwards:,}"
    )


def plan_line(plan: dict[str, Any]) -> str:
    """What the backend's cost model chose, beside what it rejected."""
    words = {"tasks": "each task shared", "images": "images of their own"}
    chosen, seconds = plan["sharing"], plan["seconds"]
    other = "images" if chosen == "tasks" else "tasks"
    return (
        f"{plan['threads']}, {words[chosen]} (estimated {seconds[chosen]:.3g} s; {words[other]} {seconds[other]:.3g} s)"
    )


def _accepted(stats: Any) -> float | None:
    forecasts = getattr(stats, "forecasts", 0)
    return stats.forecasts_accepted / forecasts if forecasts else None
