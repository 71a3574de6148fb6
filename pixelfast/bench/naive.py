"""Naive sampling in eager torch, timed on a few forwards and extrapolated."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from pixelfast.problem import Problem

FORWARDS = 3


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
    """Time FORWARDS forwards of a batch on all of torch's threads and again on one; take the fastest of all.

    On a busy machine threads that wait for each other can make a forward a hundred times slower. The fastest one is
    closest to what naive sampling takes on a quiet machine, and the least flattering to compare with.

    timed: called with (forwards done, forwards to do).
    """
    levels = torch.randint(problem.likelihood.levels, (batch, *problem.shape)).double()
    condition = problem.batch_condition(None, batch)
    threads = torch.get_num_threads()
    counts = [threads, 1] if threads > 1 else [1]
    total = len(counts) * (FORWARDS + 1)
    seconds = []
    try:
        for count in counts:
            torch.set_num_threads(count)
            for i in range(FORWARDS + 1):
                start = time.perf_counter()
                problem.forward(levels, condition)
                if i:
                    seconds.append(time.perf_counter() - start)
                if timed is not None:
                    timed(len(seconds) + 1, total)
    finally:
        torch.set_num_threads(threads)
    forwards = forwards_per_batch(problem)
    return Naive(min(seconds) * forwards, len(seconds), forwards)
