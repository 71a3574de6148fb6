"""Whether a machine was quiet while it was measured."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from pixelfast.bench import sampling
from pixelfast.machine import Machine, product

CHANGE = 0.10
SPREAD = 0.05
OTHERS = 0.5
"""Of a process: what the load may exceed the cores by, since it counts the operating system's own work too."""


def load() -> float:
    """Processes that wanted to run in the last minute, on average."""
    return os.getloadavg()[0]


def cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def own_spread(repeats: int) -> float | None:
    """The spread of repeats, as long as a sampler's, of a product of torch's: what the machine alone accounts for."""
    work = product(torch.float32)
    return sampling.spread(sampling.time_repeats(lambda *_: work(), repeats).seconds)


def doubts(
    before: Machine, after: Machine, loads: Sequence[float], spreads: Sequence[tuple[str, float | None]]
) -> list[str]:
    """Reasons not to rely on the figures; empty for a quiet machine.

    before, after: the machine as measured before and after the samplers. loads: of those moments. spreads: over the
    repeats of each thing measured, with its name.
    """
    found = []
    for rate, what in (
        ("flops", "float32 arithmetic"),
        ("bf16_flops", "bfloat16 arithmetic"),
        ("cache_bandwidth", "reading from cache"),
    ):
        low, high = sorted((getattr(before, rate), getattr(after, rate)))
        if high > (1 + CHANGE) * low:
            found.append(f"{what} ran at {low / high:.0%} of its speed before or after the measurements")
    if max(loads) > cores() + OTHERS:
        found.append(f"a load of {max(loads):.1f} on {cores()} cores")
    found += [
        f"repeats differ by {spread:.0%} ({name})" for name, spread in spreads if spread is not None and spread > SPREAD
    ]
    return found
