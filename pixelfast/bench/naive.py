"""Naive sampling in eager torch, timed on a few forwards and extrapolated."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from pixelfast.causality import highest_image
from pixelfast.problem import Problem

FORWARDS = 3
SECONDS = 10.0
"""Of a batch: no forward begins later, but for the first that is timed."""


@dataclass(frozen=True)
class Naive:
    """seconds: of a whole batch, extrapolated from `timed` forwards to the `forwards` that it takes.

    Drawing the numbers is left out, which flatters naive sampling.
    """

    seconds: float
    timed: int
    forwards: int


def forwards_per_batch(problem: Problem) -> int:
    """Full forwards that naive sampling takes: one per pixel, or per number where channels differ."""
    channels, height, width = problem.shape
    needs = problem.likelihood.needs(channels)
    return height * width * (1 if all(need == needs[0] for need in needs) else channels)


def extrapolate(problem: Problem, batch: int, timed: Callable[[int, int], None] | None = None) -> Naive:
    """Time forwards of a batch on all of torch's threads and on one, in SECONDS; take the fastest of all.

    On a busy machine threads that wait for each other can make a forward a hundred times slower. The fastest one is
    closest to what naive sampling takes on a quiet machine, and the least flattering to compare with. Where there is no
    time for both, it is the number of threads that is faster for one image.

    timed: called with (forwards done, forwards to do at most).
    """
    threads = torch.get_num_threads()
    counts = [1] if threads == 1 else [1, threads]
    done = 0

    def forward(images: int, count: int) -> float:
        nonlocal done
        levels = highest_image(problem).double().repeat(images, 1, 1, 1)
        condition = problem.batch_condition(None, images)
        torch.set_num_threads(count)
        start = time.perf_counter()
        problem.forward(levels, condition)
        taken = time.perf_counter() - start
        done += 1
        if timed is not None:
            timed(done, len(counts) * (FORWARDS + 3))
        return taken

    seconds: list[float] = []
    try:
        if len(counts) > 1:
            counts.sort(key=lambda count: min(forward(1, count), forward(1, count)))
        end = time.perf_counter() + SECONDS
        for count in counts:
            if not seconds or time.perf_counter() < end:
                seconds += time_forwards(functools.partial(forward, batch, count), end)
    finally:
        torch.set_num_threads(threads)
    forwards = forwards_per_batch(problem)
    return Naive(min(seconds) * forwards, len(seconds), forwards)


def time_forwards(forward: Callable[[], float], end: float) -> list[float]:
    """Seconds of FORWARDS forwards after one that warms up, or of as many as begin before `end`.

    forward: does one and returns its seconds. Where the first takes until `end`, it is the one that counts.
    """
    first = forward()
    seconds: list[float] = []
    while len(seconds) < FORWARDS and time.perf_counter() < end:
        seconds.append(forward())
    return seconds or [first]
