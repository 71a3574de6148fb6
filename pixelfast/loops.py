"""Recurrences in a schedule: kernels that read each other, or themselves, at other sites.

No site depends on itself, so its step can be found as everywhere else, but for all kernels of a loop together. What
is computed at one step may depend on other sites of the same step: a *wave* is what can run at once there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .ir import Source, reads, spread
from .readiness import NEVER

Readers = dict[int, list[tuple[Any, Source]]]
"""For each value, the kernels that read it from outside, and how."""


def inside(made: set[int], group_of: dict[int, int], group: int, source: Source) -> bool:
    """Whether a node reads what its own kernel has just computed at the same site, `made` so far; otherwise it reads
    what was kept."""
    return source.value in made and group_of.get(source.value) == group


def loops(groups: Sequence[Any], group_of: dict[int, int]) -> list[list[Any]]:
    """The kernels, in order, those that belong to one loop together."""
    last = list(range(len(groups)))
    """Of the loop that each kernel begins."""
    for group in groups:
        made: set[int] = set()
        for node in group.nodes:
            for source in reads(node):
                maker = group_of.get(source.value, -1)
                if maker > group.index:
                    last[group.index] = max(last[group.index], maker)
            made.add(node.out)
    found: list[list[Any]] = []
    end = -1
    for group in groups:
        if group.index > end:
            found.append([])
        found[-1].append(group)
        end = max(end, last[group.index])
    return found


def is_loop(groups: Sequence[Any], group_of: dict[int, int]) -> bool:
    """Several kernels, or one that reads what it has kept."""
    return len(groups) > 1 or any(maker is groups[0] for maker, _, _ in _inner_reads(groups, group_of))


def settle(
    loop: Sequence[Any],
    readers: Readers,
    needed_outside: Sequence[np.ndarray],
    batch: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> None:
    """Gives every kernel of a loop its steps.

    needed_outside: for each kernel, the first step at which somebody outside the loop needs each site. batch: from
    when sites are needed and when they are ready to the steps that compute them.
    """
    place = {group.index: i for i, group in enumerate(loop)}
    inner = [
        [(place[reader.index], source) for node in group.nodes for reader, source in readers.get(node.out, ())
         if reader.index in place]
        for group in loop
    ]

    def needed(i: int, steps: Sequence[np.ndarray]) -> np.ndarray:
        need = needed_outside[i].copy()
        for reader, source in inner[i]:
            by = spread(steps[reader], source)
            used = (source.sites >= 0) & (by != NEVER)
            np.minimum.at(need, source.sites[used], by[used])
        return need

    latest = [need.copy() for need in needed_outside]
    changed = True
    while changed:
        changed = False
        for i in reversed(range(len(loop))):
            need = np.minimum(latest[i], needed(i, latest))
            changed |= not np.array_equal(need, latest[i])
            latest[i] = need
    steps = [batch(need, group.ready) for need, group in zip(latest, loop, strict=True)]
    changed = True
    while changed:
        changed = False
        for i in reversed(range(len(loop))):
            # Never later than before, so this ends.
            step = np.minimum(steps[i], batch(needed(i, steps), loop[i].ready))
            changed |= not np.array_equal(step, steps[i])
            steps[i] = step
    for group, step in zip(loop, steps, strict=True):
        group.step = step


def waves(loop: Sequence[Any], group_of: dict[int, int]) -> dict[int, np.ndarray]:
    """For each kernel, by its index, the wave of each of its sites: 0 for what depends on nothing of the same step."""
    wave = {group.index: np.zeros(group.sites, dtype=np.int32) for group in loop}
    links = [
        (maker, reader, source.sites[together], np.flatnonzero(together))
        for maker, reader, source in _inner_reads(loop, group_of)
        if (together := _same(maker.step, reader.step, source, 1)).any()
    ]
    changed = True
    while changed:
        changed = False
        for maker, reader, read, by in links:
            after = wave[maker.index][read] + 1
            late = after > wave[reader.index][by]
            if late.any():
                wave[reader.index][by[late]] = after[late]
                changed = True
    return wave


def merge(loop: Sequence[Any], group_of: dict[int, int], row: int) -> bool:
    """Whether the steps of an image row, `row` of them, may be run as one, kernel after kernel."""
    return not any(
        maker.index >= reader.index and bool(_same(maker.step, reader.step, source, row).any())
        for maker, reader, source in _inner_reads(loop, group_of)
    )


def _same(written: np.ndarray, read: np.ndarray, source: Source, row: int) -> np.ndarray:
    """At which of the reader's sites a value is read that is written at one of the same `row` steps."""
    used = (source.sites >= 0) & (read != NEVER)
    steps = written[np.maximum(source.sites, 0)]
    return np.asarray(used & (steps // row == read // row))


def _inner_reads(loop: Sequence[Any], group_of: dict[int, int]) -> Iterator[tuple[Any, Any, Source]]:
    """What kernels of the loop read of what kernels of the loop have kept: maker, reader, and how."""
    members = {group.index: group for group in loop}
    for group in loop:
        made: set[int] = set()
        for node in group.nodes:
            for source in reads(node):
                maker = members.get(group_of.get(source.value, -1))
                if maker is not None and not inside(made, group_of, group.index, source):
                    yield maker, group, source
            made.add(node.out)
