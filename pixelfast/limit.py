"""The least time in which this machine could sample a batch: a function of the model and the batch alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pixelfast.ir import Attend, Contract, Graph, reads, sites_read, spread
from pixelfast.machine import Machine
from pixelfast.readiness import NEVER, source_ready


def limit_seconds(
    flops: float,
    weight_bytes: float,
    batch: int,
    machine: Machine,
    dtype: torch.dtype = torch.float32,
    attended_bytes: float = 0.0,
) -> float:
    """max(arithmetic, reading from cache), in seconds, for a batch of images.

    flops: of one image, every activation computed once, taps on padding left out.
    weight_bytes: of one image and of any batch, the images of a batch being computed together.
    dtype: of the inputs and weights of contractions, which says how fast arithmetic is.
    attended_bytes: keys and values of attention, of one image; every image has its own.
    """
    reading = (weight_bytes + batch * attended_bytes) / machine.cache_bandwidth
    return max(flops * batch / machine.flops_in(dtype), reading)


def weight_size(dtype: torch.dtype) -> int:
    """Bytes of a weight. float32's stand for wider types, as in `Machine.flops_in`: their limit is float32's."""
    return min(dtype.itemsize, torch.float32.itemsize)


def fewest_weight_bytes(graph: Graph, ready: Sequence[np.ndarray], itemsize: int = 4) -> int:
    """Bytes of weights that any schedule must read to sample an image.

    A tap of a contraction can be applied at a site from the time its source is ready until the site is
    needed. All sites of a tap whose intervals share a moment can share one reading of its weights: the fewest
    readings are the fewest moments that hit every interval. For a pixel's newest neighbour that is one
    reading per pixel, for the row above one per row. A weight that several taps have is read for all of them.
    itemsize: bytes of one weight.
    """
    needed = need_times(graph)
    weights: dict[int, np.ndarray] = {}
    intervals: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    for node in graph.nodes:
        if isinstance(node, Contract):
            for tap in node.taps:
                used = (tap.source.sites >= 0) & (needed[node.out] != NEVER)
                weights[id(tap.weight)] = tap.weight
                interval = source_ready(tap.source, ready)[used], needed[node.out][used]
                intervals.setdefault(id(tap.weight), []).append(interval)
    total = 0
    for key, found in intervals.items():
        first, last = (np.concatenate(ends) for ends in zip(*found, strict=True))
        total += fewest_moments(first, last) * weights[key].size * itemsize
    return total


def fewest_attended_bytes(graph: Graph, ready: Sequence[np.ndarray]) -> int:
    """Bytes of keys and values, as floats, that any schedule must read to sample an image.

    A key or value is read for a query between the time both are there and the time the query's result is needed. All
    queries whose intervals share a moment can share one reading. While an image is sampled hardly any do: queries are
    ready one by one.
    """
    needed = need_times(graph)
    total = 0
    for node in graph.nodes:
        if not isinstance(node, Attend):
            continue
        wanted = needed[node.out]
        asked = source_ready(node.query, ready)
        rows = np.argsort(wanted, kind="stable")[: int((wanted != NEVER).sum())]
        for part in (node.keys, node.values):
            there = ready[part.value]
            read_last = np.full(len(there), -1, dtype=np.int64)
            readings = 0
            for row in rows.tolist():
                sites = sites_read(part, row)
                again = sites[np.maximum(there[sites], asked[row]) > read_last[sites]]
                read_last[again] = wanted[row]
                readings += len(again)
            total += readings * len(part.channels) * torch.float32.itemsize
    return total


def need_times(graph: Graph) -> dict[int, np.ndarray]:
    """For each value, the first number at each site whose sampling needs it; NEVER where none does."""
    needed = {value.index: np.full(value.sites, NEVER, dtype=np.int64) for value in graph.values}
    for channel, value in enumerate(graph.outputs):
        numbers = np.arange(graph.pixels, dtype=np.int64) * graph.channels + channel
        np.minimum(needed[value], numbers, out=needed[value])
    made: set[int] = set()
    loop = False
    for node in graph.nodes:
        made.add(node.out)
        loop = loop or any(graph.values[s.value].kind == "node" and s.value not in made for s in reads(node))
    changed = True
    while changed:
        changed = False
        for node in reversed(graph.nodes):
            for source in reads(node):
                by_entry = spread(needed[node.out], source)
                used = (source.sites >= 0) & (by_entry != NEVER)
                before = needed[source.value].copy() if loop else None
                np.minimum.at(needed[source.value], source.sites[used], by_entry[used])
                changed |= before is not None and not np.array_equal(before, needed[source.value])
    return needed


def fewest_moments(first: np.ndarray, last: np.ndarray) -> int:
    """The smallest number of moments such that every interval [first, last] holds one."""
    order = np.argsort(last, kind="stable")
    moments, latest = 0, -1
    for begin, end in zip(first[order].tolist(), last[order].tolist(), strict=True):
        if begin > latest:
            moments, latest = moments + 1, end
    return moments
