"""Times a sampler at several batch sizes and puts each figure beside its limits."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pixelfast.bench.naive import Naive
from pixelfast.bench.text import Column, dtype_name, percent, table
from pixelfast.limit import limit_seconds, weight_size
from pixelfast.machine import Machine
from pixelfast.problem import Problem
from pixelfast.sampler import Sampler

ROUND_SECONDS = 0.05
"""The calls of a round take about this long at least, so that there are several images among those of small models.
One that takes longer is timed row by row."""
REPEAT_SECONDS = 15.0
"""A repeat is as many rounds of the same calls as fill this."""
FEWEST_ROUNDS = 3


@dataclass(frozen=True)
class Times:
    """seconds: of one call, one figure per repeat: the mean over `calls` different ones of their fastest rounds.

    mean: of every call that was timed, whatever else the machine did meanwhile.
    """

    seconds: list[float]
    mean: float
    calls: int
    rounds: int
    accepted: float | None = None
    """Share of forecasts that the last call accepted, None where it made none."""


@dataclass(frozen=True)
class Measurement:
    """One batch size on one backend in one dtype. `seconds`: median over repeats of one call that samples the batch.

    mean_seconds: over every call of every repeat. spread: (slowest - fastest) / median of the repeats, None of one.
    calls_per_repeat, rounds_per_repeat: different calls, and how often a repeat makes each. us_per_pixel: microseconds
    per pixel of one image.
    gflops: 10^9 floating-point operations per second, each activation counted once, padding left out. limit_seconds:
    see `limit.limit_seconds`. share: limit_seconds / seconds. ratio: naive_seconds / seconds, naive sampling being
    eager torch in float32, whatever the dtype. plan: what the backend's cost model chose and expected, where it has
    one.
    """

    batch: int
    backend: str
    dtype: str
    seconds: float
    mean_seconds: float
    spread: float | None
    repeats: int
    calls_per_repeat: int
    rounds_per_repeat: int
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
    """Sample `batch` images to warm up, then in `repeats` repeats.

    Different calls of one repeat make different images, and every repeat the same ones: how many are guessed ahead, and
    so the time, depends on the image, and is no part of the spread.
    """
    condition = problem.batch_condition(None, batch)

    def work(seed: int, on_row: Callable[[int, object], None] | None) -> None:
        sampler.sample(batch, seed=seed, condition=condition, batch_size=batch, progress=progress, on_row=on_row)

    times = time_repeats(work, repeats)
    return replace(times, accepted=_accepted(sampler.stats))


Work = Callable[[int, Callable[[int, object], None] | None], object]
"""Makes a call, given its number, and where it is long a function to be called after each row with the row's number."""


def time_repeats(work: Work, repeats: int) -> Times:
    """Time calls of `work` in repeats of REPEAT_SECONDS, each of FEWEST_ROUNDS rounds at least.

    A round makes calls numbered from 1, as many as fill ROUND_SECONDS; calls numbered 0 come before. Rounds are dealt
    to the repeats in turn, so that a slow spell of the machine falls on all alike.

    Of each call the fastest round counts, of a long call that of each row: what else runs on a machine only ever slows
    it. The rates that limits are made of (`machine.fastest`) and naive forwards are measured in the same way.
    """

    def parts(number: int, long: bool) -> dict[int, float]:
        """Seconds by the row that ended then, the whole call under -1 where nobody says rows."""
        moments = {}
        start = time.perf_counter()
        work(number, (lambda row, _: moments.update({row: time.perf_counter()})) if long else None)
        moments.setdefault(-1, time.perf_counter())
        befores = [start, *moments.values()]
        return {row: stop - before for (row, stop), before in zip(moments.items(), befores, strict=False)}

    alone = min(sum(parts(0, False).values()) for _ in range(2))
    long = alone > ROUND_SECONDS
    calls = math.ceil(ROUND_SECONDS / alone)
    rounds = max(FEWEST_ROUNDS, math.ceil(REPEAT_SECONDS / (calls * alone)))
    found = [[parts(1 + call, long) for call in range(calls)] for _ in range(rounds * repeats)]
    seconds = [statistics.fmean(map(_fastest, zip(*found[one::repeats], strict=True))) for one in range(repeats)]
    return Times(seconds, statistics.fmean(sum(call.values()) for one in found for call in one), calls, rounds)


def _fastest(rounds: Sequence[dict[int, float]]) -> float:
    """Seconds of a call: of its parts the fastest, where they are the same in every round, else of the whole."""
    if all(one.keys() == rounds[0].keys() for one in rounds):
        return sum(min(one[part] for one in rounds) for part in rounds[0])
    return min(sum(one.values()) for one in rounds)


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
        mean_seconds=times.mean,
        spread=spread(times.seconds),
        repeats=len(times.seconds),
        calls_per_repeat=times.calls,
        rounds_per_repeat=times.rounds,
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
        ("mean s", lambda row: f"{row.mean_seconds:.4g}"),
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
    calls = f", of short calls the mean over those that fill {ROUND_SECONDS:g} s" if several > 1 else ""
    long = max(row.mean_seconds for row in rows) > ROUND_SECONDS
    by_row = ", of long calls row by row" if long else ""
    forwards = {row.batch: row.naive_forwards_timed for row in rows}
    timed = ", ".join(f"{count} timed at batch {batch}" for batch, count in forwards.items())
    return (
        f"seconds: median over repeats ({rows[0].repeats}); of a repeat the fastest of "
        f"{min(row.rounds_per_repeat for row in rows)} rounds or more{calls}{by_row}\n"
        "spread: between the slowest and the fastest repeat, as a share of the median; mean s: of every call timed\n"
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
