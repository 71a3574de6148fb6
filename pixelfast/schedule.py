"""When everything is computed: fuses nodes into kernels, gives each of their sites a step, and each value slots.

Each site is computed at the step that first needs it, together with all sites of the same kernel that are ready by then
and needed within one image row. Computing as soon as possible instead would read the weights many more times.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

import numpy as np

from .ir import Attend, Contract, Graph, Source, Span, reads, spread
from .loops import inside, is_loop, loops, merge, settle, waves
from .readiness import NEVER

LATE_SHARE = 0.25
"""A node joins the kernel that feeds it unless more than this share of its sites must wait for something else."""
LOOKAHEAD = 8
"""Pixels of an image row whose steps a backend may merge."""


@dataclass
class Group:
    """Nodes that run as one kernel: at most one contraction or attention, first, and what is computed from it there."""

    index: int
    sites: int
    ready: np.ndarray
    nodes: list[Any] = field(default_factory=list)
    step: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    """The step that computes each site; NEVER if nobody needs it."""


@dataclass
class Schedule:
    graph: Graph
    groups: list[Group]
    group_of: dict[int, int]
    """Group that makes a value."""
    slots: dict[int, np.ndarray]
    """For each value read outside its group, the slot of each of its sites (-1: never computed)."""
    ahead_slots: dict[int, np.ndarray]
    """The same for backends that merge steps: a slot is free again only after `lookahead` steps."""
    slot_count: dict[int, int]
    """Enough for both."""
    tasks: np.ndarray
    sites: np.ndarray
    lookahead: int
    """Consecutive steps of one image row that may be merged."""


def schedule(graph: Graph, ready: Sequence[np.ndarray]) -> Schedule:
    nodes = _live(graph)
    punctual: set[int] = set()
    while True:
        groups, group_of = _fuse(graph, nodes, ready, punctual)
        readers = _readers(groups, group_of)
        _assign_steps(graph, groups, group_of, readers)
        waiting = _waiting(groups, ready) - punctual
        if not waiting:
            break
        punctual |= waiting
    lookahead = graph.channels * min(LOOKAHEAD, graph.shape[2])
    found = [loop for loop in loops(groups, group_of) if is_loop(loop, group_of)]
    if not all(merge(loop, group_of, graph.shape[2] * graph.channels) for loop in found):
        lookahead = 1
    slots, few = _allocate(graph, groups, group_of, readers, 1)
    ahead_slots, many = _allocate(graph, groups, group_of, readers, lookahead)
    count = {value: max(few[value], many[value]) for value in slots}
    tasks, sites = _tasks(groups, [(loop[0].index, waves(loop, group_of)) for loop in found])
    return Schedule(graph, groups, group_of, slots, ahead_slots, count, tasks, sites, lookahead)


def _waiting(groups: list[Group], ready: Sequence[np.ndarray]) -> set[int]:
    """Nodes that make their kernel late at sites of which somebody needs an earlier node sooner."""
    found: set[int] = set()
    for group in groups:
        if bool(((group.step != NEVER) & (group.step < group.ready)).any()):
            found |= {n.out for n in group.nodes if bool((ready[n.out] > ready[group.nodes[0].out]).any())}
    return found


def _live(graph: Graph) -> list[Any]:
    """Nodes that some output reads."""
    wanted = set(graph.outputs)
    live = []
    for node in reversed(graph.nodes):
        if node.out in wanted:
            live.append(node)
            wanted |= {s.value for s in reads(node)}
    return live[::-1]


def is_identity(source: Source, sites: int) -> bool:
    if isinstance(source, Span) or len(source.sites) != sites:
        return False
    return bool((source.sites == np.arange(sites, dtype=np.int32)).all())


def is_regular(channels: np.ndarray) -> bool:
    """Start and stride describe these channels."""
    steps = np.diff(channels)
    return len(steps) == 0 or bool((steps == steps[0]).all() and steps[0] >= 0)


def _fuse(
    graph: Graph, nodes: list[Any], ready: Sequence[np.ndarray], punctual: set[int]
) -> tuple[list[Group], dict[int, int]]:
    groups: list[Group] = []
    group_of: dict[int, int] = {}
    for node in nodes:
        times = ready[node.out]
        makers = (group_of.get(s.value, -1) for s in reads(node))
        target = -1 if isinstance(node, (Contract, Attend)) else max(makers, default=-1)
        if target >= 0 and not _may_join(
            node, groups[target], group_of, graph, times, 0.0 if node.out in punctual else LATE_SHARE
        ):
            target = -1
        if target < 0:
            target = len(groups)
            groups.append(Group(target, graph.values[node.out].sites, times.copy()))
        group = groups[target]
        group.nodes.append(node)
        np.maximum(group.ready, times, out=group.ready)
        group_of[node.out] = target
    return groups, group_of


def _may_join(
    node: Any, group: Group, group_of: dict[int, int], graph: Graph, times: np.ndarray, late_share: float
) -> bool:
    if len(times) != group.sites:
        return False
    for source in reads(node):
        if group_of.get(source.value) == group.index and not (
            is_identity(source, graph.values[source.value].sites) and is_regular(source.channels)
        ):
            return False
    return float((times > group.ready).mean()) <= late_share


def _readers(groups: list[Group], group_of: dict[int, int]) -> dict[int, list[tuple[Group, Source]]]:
    """Who reads each value from outside the group that makes it."""
    readers: dict[int, list[tuple[Group, Source]]] = {}
    for group in groups:
        made: set[int] = set()
        for node in group.nodes:
            for source in reads(node):
                if not inside(made, group_of, group.index, source):
                    readers.setdefault(source.value, []).append((group, source))
            made.add(node.out)
    return readers


def _assign_steps(graph: Graph, groups: list[Group], group_of: dict[int, int], readers: Any) -> None:
    horizon = graph.shape[2] * graph.channels
    for loop in reversed(loops(groups, group_of)):
        members = {group.index for group in loop}
        needs = [_needed(graph, group, readers, members) for group in loop]
        if is_loop(loop, group_of):
            settle(loop, readers, needs, lambda need, ready: _batch(need, ready, horizon))
        else:
            loop[0].step = _batch(needs[0], loop[0].ready, horizon)


def _needed(graph: Graph, group: Group, readers: Any, members: set[int]) -> np.ndarray:
    """The first step at which somebody who is not among `members` needs each site."""
    need = np.full(group.sites, NEVER, dtype=np.int32)
    for node in group.nodes:
        for reader, source in readers.get(node.out, ()):
            if reader.index in members:
                continue
            steps = spread(reader.step, source)
            used = (source.sites >= 0) & (steps != NEVER)
            np.minimum.at(need, source.sites[used], steps[used])
        for channel, value in enumerate(graph.outputs):
            if value == node.out:
                numbers = np.arange(graph.pixels, dtype=np.int32) * graph.channels + channel
                np.minimum(need, numbers, out=need)
    return need


def _batch(need: np.ndarray, ready: np.ndarray, horizon: int) -> np.ndarray:
    """At each step where a site is needed, compute it and every ready site needed within the horizon.

    In other words each site joins the earliest such step. A site that is not ready when the one before it is needed
    cannot join anybody and makes a step of its own, which is what nearly all of a horizontal stack does.
    """
    step = np.full(len(need), NEVER, dtype=np.int32)
    order = np.argsort(need, kind="stable")
    order = order[: int((need != NEVER).sum())]
    if not len(order):
        return step
    wanted, since = need[order], ready[order]
    alone = np.ones(len(order), dtype=bool)
    alone[1:] = since[1:] > wanted[:-1]
    chosen = wanted.copy()
    starts = np.unique(wanted[alone]).tolist()
    rest = np.flatnonzero(~alone)
    for site, by, earliest in zip(
        rest.tolist(), wanted[rest].tolist(), np.maximum(since, wanted - horizon + 1)[rest].tolist(), strict=True
    ):
        at = bisect_left(starts, earliest)
        if at < len(starts) and starts[at] <= by:
            chosen[site] = starts[at]
        else:
            starts.insert(at, by)
    step[order] = chosen
    return step


def _allocate(
    graph: Graph, groups: list[Group], group_of: dict[int, int], readers: Any, lookahead: int
) -> tuple[dict[int, np.ndarray], dict[int, int]]:
    """Slots of every value that is read outside its group: a slot is free again after the step of its last reader.

    Where steps are merged, a kernel writes for all of them before the next kernel reads: a slot stays busy for
    `lookahead - 1` steps more, up to the end of the image row, which merged steps never cross.
    """
    row = graph.shape[2] * graph.channels
    slots: dict[int, np.ndarray] = {}
    count: dict[int, int] = {}
    found: dict[tuple[bytes, bytes], tuple[np.ndarray, int]] = {}
    last_of_output = {
        value: np.arange(graph.pixels, dtype=np.int32) * graph.channels + channel
        for channel, value in enumerate(graph.outputs)
    }
    for value in {*readers, *graph.outputs} & set(group_of):
        group = groups[group_of[value]]
        last = np.full(group.sites, -1, dtype=np.int32)
        for reader, source in readers.get(value, ()):
            steps = spread(reader.step, source)
            used = (source.sites >= 0) & (steps != NEVER)
            np.maximum.at(last, source.sites[used], steps[used])
        if value in last_of_output:
            np.maximum(last, last_of_output[value], out=last)
        # A site that is written and never read holds its slot too: it must not overwrite a neighbour of the same step.
        last = np.where(group.step == NEVER, last, np.maximum(last, group.step))
        last = np.minimum(last + lookahead - 1, (last // row + 1) * row - 1)
        lifetimes = (group.step.tobytes(), last.tobytes())  # the values of one kernel mostly share them
        if lifetimes not in found:
            found[lifetimes] = _first_fit(group.step, last)
        slots[value], count[value] = found[lifetimes]
    return slots, count


def _first_fit(written: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, int]:
    """Reuses the lowest free slot; sites written in one step get neighbouring slots where possible."""
    slot = np.full(len(written), -1, dtype=np.int32)
    order = np.lexsort((np.arange(len(written)), written))
    order = order[: int((written != NEVER).sum())]
    busy: list[tuple[int, int]] = []
    free: list[int] = []
    total = 0
    for site, now, until in zip(order.tolist(), written[order].tolist(), last[order].tolist(), strict=True):
        while busy and busy[0][0] < now:
            heappush(free, heappop(busy)[1])
        if free:
            chosen = heappop(free)
        else:
            chosen = total
            total += 1
        slot[site] = chosen
        heappush(busy, (until, chosen))
    return slot, max(total, 1)


def _tasks(groups: list[Group], recurrent: list[tuple[int, dict[int, np.ndarray]]]) -> tuple[np.ndarray, np.ndarray]:
    """(tasks, 4) of step, kernel, first, count, and the concatenated sites.

    recurrent: the first kernel of every loop, and the waves of its kernels; the tasks of one step go wave by wave.
    """
    first_of = {index: first for first, wave in recurrent for index in wave}
    wave_of = {index: wave for _, waves in recurrent for index, wave in waves.items()}
    rows, sites, order_of = [], [], []
    first = 0
    for group in groups:
        wave = wave_of.get(group.index, np.zeros(group.sites, dtype=np.int32))
        order = np.lexsort((np.arange(group.sites), wave, group.step))
        order = order[: int((group.step != NEVER).sum())].astype(np.int32)
        if not len(order):
            continue
        begins = np.ones(len(order), dtype=bool)
        begins[1:] = (np.diff(group.step[order]) != 0) | (np.diff(wave[order]) != 0)
        starts = np.flatnonzero(begins)
        counts = np.diff(np.append(starts, len(order)))
        steps = group.step[order][starts]
        rows.append(np.stack([steps, np.full_like(steps, group.index), starts + first, counts], axis=1))
        order_of.append(np.stack([np.full_like(steps, first_of.get(group.index, group.index)), wave[order][starts]]))
        sites.append(order)
        first += len(order)
    if not rows:
        return np.zeros((0, 4), dtype=np.int32), np.zeros(0, dtype=np.int32)
    tasks = np.concatenate(rows).astype(np.int32)
    loop, turn = np.concatenate(order_of, axis=1)
    tasks = tasks[np.lexsort((tasks[:, 1], turn, loop, tasks[:, 0]))]
    return tasks, np.concatenate(sites)
