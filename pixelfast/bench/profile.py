"""Where the time of one call goes: by kernel, and by what kind of work it is."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pixelfast.backends.base import Job, Result
from pixelfast.bench.text import Column, table
from pixelfast.precision import contraction_types
from pixelfast.problem import Problem
from pixelfast.program import Program
from pixelfast.sampler import Sampler

ROW_SITES = 2.0
"""A kernel's tasks are row tasks from this many sites per task on, as the program has them, without guesses."""
DRAWING = -1
"""Stands for the drawing of numbers where a kernel's index is expected."""


@dataclass(frozen=True)
class Entry:
    """One kernel, in one call, as the first thread saw it. seconds: `waiting` for others included.

    group: "rows", "pixels" or "drawing". rows: sites times images. gflops: 10^9 floating-point operations per second
    that all threads did together, nothing counted that was done on wrong guesses. weight_gbytes: 10^9 bytes of weights
    per second, each task reading once those that it uses.
    """

    kernel: int
    name: str
    group: str
    tasks: int
    rows: int
    seconds: float
    waiting: float
    gflops: float
    weight_gbytes: float


@dataclass(frozen=True)
class Profile:
    """One call that sampled a batch. seconds: of the whole call; what entries do not account for is elsewhere."""

    batch: int
    backend: str
    dtype: str
    seconds: float
    entries: list[Entry]


class _Profiling:
    """A backend whose runs are profiled."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.name = backend.name
        self.stats: dict[str, Any] = {}

    def run(self, job: Job) -> Result:
        result = self._backend.run(dataclasses.replace(job, profile=True))
        self.stats = result.stats
        return result


def profile(sampler: Sampler, problem: Problem, batch: int) -> Profile | None:
    """Sample `batch` images, once to warm up, and say where the time went; None for a backend that does not know."""
    profiled = copy.copy(sampler)
    profiled.backend = _Profiling(sampler.backend)
    condition = problem.batch_condition(None, batch)
    for _ in range(2):
        profiled.sample(batch, condition=condition, batch_size=batch, progress=False)
    stats = profiled.stats
    assert stats is not None
    measured = profiled.backend.stats.get("profile")
    if measured is None:
        return None
    types = contraction_types(sampler.program, sampler.dtype)
    entries = [_entry(sampler, item, batch, types) for item in measured if item["tasks"]]
    return Profile(batch, stats.backend, stats.dtype, stats.seconds, entries)


def _entry(sampler: Sampler, item: dict[str, Any], batch: int, types: list[torch.dtype]) -> Entry:
    kernel, seconds = item["kernel"], max(item["seconds"], 1e-9)
    name, group, flops, weight_bytes = "drawing numbers", "drawing", 0.0, 0.0
    if kernel != DRAWING:
        name = sampler.program.kernels[kernel].name
        counts = sampler.program.tasks[sampler.program.tasks[:, 1] == kernel, 3]
        group = "rows" if counts.mean() >= ROW_SITES else "pixels"
        flops, weights = kernel_work(sampler.program, kernel)
        weight_bytes = weights * types[kernel].itemsize
    return Entry(
        kernel=kernel,
        name=name,
        group=group,
        tasks=item["tasks"],
        rows=item["rows"],
        seconds=item["seconds"],
        waiting=item["waiting"],
        gflops=flops * batch / seconds / 1e9,
        weight_gbytes=weight_bytes * item["tasks"] / seconds / 1e9,
    )


def kernel_work(program: Program, kernel: int) -> tuple[float, float]:
    """Of a kernel: flops of all its tasks for one image, and how many weights one task uses, on average."""
    contraction = program.kernels[kernel].contraction
    if contraction is None:
        return 0.0, 0.0
    tasks = program.tasks[program.tasks[:, 1] == kernel]
    patterns = [contraction.pattern_of_site[program.sites[first : first + count]] for _, _, first, count in tasks]
    sizes = [term.weight.size for term in contraction.terms]
    flops = [2.0 * sum(sizes[term] for term in pattern) for pattern in contraction.patterns]
    weights = 0.0
    for used in patterns:
        terms = {term for pattern in np.unique(used) for term in contraction.patterns[pattern]}
        weights += sum(sizes[term] for term in terms)
    total = np.bincount(np.concatenate(patterns), minlength=len(flops)) @ np.array(flops) if patterns else 0.0
    return float(total), weights / max(1, len(tasks))


def summary(found: Profile) -> str:
    """Shares of the call by kind of work, waiting apart."""
    kinds = (("rows", "row tasks"), ("pixels", "pixel tasks"), ("drawing", "drawing numbers"))
    lines = []
    for group, name in kinds:
        entries = [entry for entry in found.entries if entry.group == group]
        tasks = sum(entry.tasks for entry in entries)
        rows = f"{tasks:,} tasks of {sum(entry.rows for entry in entries) / max(1, tasks):.1f} rows"
        lines.append((name, sum(entry.seconds - entry.waiting for entry in entries), rows))
    lines.append(("waiting for other threads", sum(entry.waiting for entry in found.entries), ""))
    lines.append(("elsewhere", max(0.0, found.seconds - sum(entry.seconds for entry in found.entries)), ""))
    return "\n".join(
        f"  {name:<25}  {seconds / found.seconds:6.1%}  {seconds:.4f} s  {note}".rstrip()
        for name, seconds, note in lines
    )


def kernel_table(found: Profile, most: int = 15) -> str:
    """The kernels that take longest, as text."""
    columns: list[Column] = [
        ("share", lambda entry: f"{entry.seconds / found.seconds:.1%}"),
        ("seconds", lambda entry: f"{entry.seconds:.4f}"),
        ("waiting", lambda entry: f"{entry.waiting / max(entry.seconds, 1e-9):.0%}"),
        ("tasks", lambda entry: f"{entry.tasks:,}"),
        ("rows/task", lambda entry: f"{entry.rows / entry.tasks:.1f}"),
        ("GFLOP/s", lambda entry: f"{entry.gflops:.1f}" if entry.gflops else "-"),
        ("GB/s", lambda entry: f"{entry.weight_gbytes:.1f}" if entry.weight_gbytes else "-"),
        ("kernel", lambda entry: entry.name if entry.kernel == DRAWING else f"k{entry.kernel} {entry.name}"),
    ]
    longest = sorted(found.entries, key=lambda entry: -entry.seconds)[:most]
    return table(columns, longest, words_last=True)
