"""Splits contractions by when their taps are ready: what is ready rows earlier is summed early, many sites at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .ir import Contract, Gather, Graph, Pointwise, Source, Value
from .readiness import source_ready

EARLY_ROWS = 0.25
"""A tap is early when, at most sites, it is ready at least this share of an image row before the whole sum is."""


def split_early(graph: Graph, ready: Sequence[np.ndarray]) -> tuple[Graph, list[np.ndarray]]:
    """A graph in which such contractions are an early sum, a late sum, and their addition."""
    threshold = EARLY_ROWS * graph.shape[2] * graph.channels
    new = Graph(graph.shape, list(graph.values), [], graph.inputs, graph.outputs, graph.notes)
    times = list(ready)

    def value(like: int, when: np.ndarray) -> int:
        old = graph.values[like]
        new.values.append(Value(len(new.values), "node", old.sites, old.channels, old.where))
        times.append(when.astype(np.int32))
        return len(new.values) - 1

    for node in graph.nodes:
        if not isinstance(node, Contract):
            new.nodes.append(node)
            continue
        own = [source_ready(tap.source, ready) for tap in node.taps]
        slack = [np.median((times[node.out] - t)[tap.source.sites >= 0]) for t, tap in zip(own, node.taps, strict=True)]
        early = [i for i, s in enumerate(slack) if s >= threshold]
        late = [i for i, s in enumerate(slack) if s < threshold]
        if not early or not late:
            new.nodes.append(node)
            continue
        first = value(node.out, np.maximum.reduce([own[i] for i in early]))
        second = value(node.out, np.maximum.reduce([own[i] for i in late]))
        new.nodes.append(Contract(first, node.where, tuple(node.taps[i] for i in early), node.bias))
        new.nodes.append(Contract(second, node.where, tuple(node.taps[i] for i in late), None))
        old = graph.values[node.out]
        whole = np.arange(old.sites, dtype=np.int32), np.arange(old.channels)
        parts = tuple(Gather((Source(v, *whole),)) for v in (second, first))
        new.nodes.append(Pointwise(node.out, node.where, "aten.add.Tensor", parts))
    return new, times
