"""Ready times: how many numbers must be known before an activation can be computed; and who leaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .ir import Contract, Graph, Source, Span, reads, sites_read

NEVER = np.iinfo(np.int32).max


def source_ready(source: Source, ready: Sequence[np.ndarray]) -> np.ndarray:
    """Ready time of what a source delivers at each site of its reader; 0 outside the image."""
    times = ready[source.value]
    if isinstance(source, Span):
        latest = np.zeros(len(source.first) - 1, dtype=np.int32)
        some = np.diff(source.first) > 0
        if some.any():
            latest[some] = np.maximum.reduceat(times[source.sites], source.first[:-1][some])
        return latest
    return np.where(source.sites < 0, 0, times[np.maximum(source.sites, 0)])


def input_ready(shape: tuple[int, int, int], channel: int) -> np.ndarray:
    """Number p * C + c becomes known when it is sampled: ready time p * C + c + 1."""
    channels, height, width = shape
    return np.arange(height * width, dtype=np.int32) * channels + channel + 1


@dataclass(frozen=True)
class Leak:
    """An output that depends on a number sampled at the same time or later."""

    channel: int
    pixel: int
    reads_channel: int
    reads_pixel: int
    where: str
    path: tuple[str, ...]
    """Operations from the output back to the input."""


def find_leak(graph: Graph, ready: Sequence[np.ndarray]) -> Leak | None:
    """The first output, in sampling order, that is ready after its number is sampled."""
    worst: tuple[int, int, int] | None = None
    for channel, value in enumerate(graph.outputs):
        allowed = np.arange(graph.pixels) * graph.channels + channel
        late = np.flatnonzero(ready[value] > allowed)
        if len(late):
            number = int(late[0]) * graph.channels + channel
            if worst is None or number < worst[0]:
                worst = (number, channel, int(late[0]))
    return None if worst is None else _walk_back(graph, ready, worst[1], worst[2])


def _walk_back(graph: Graph, ready: Sequence[np.ndarray], channel: int, pixel: int) -> Leak:
    """Follows the latest dependency from an output to the input, and finds the operation that lets it in."""
    nodes = {node.out: node for node in graph.nodes}
    value, site = graph.outputs[channel], pixel
    path: list[tuple[Any, bool]] = []
    while value in nodes:
        node = nodes[value]
        latest, at = max(
            ((s, int(at)) for s in reads(node) for at in sites_read(s, site) if at >= 0),
            key=lambda item: int(ready[item[0].value][item[1]]),
        )
        path.append((node, graph.values[latest.value].sites == graph.values[value].sites and at > site))
        value, site = latest.value, at
    lines = tuple(node.where for node, _ in path)
    return Leak(channel, pixel, graph.inputs.index(value), site, _blame(graph, ready, path), lines)


def _blame(graph: Graph, ready: Sequence[np.ndarray], path: list[tuple[Any, bool]]) -> str:
    """From the input on: the first step after which a value on the image's own grid knows a pixel after its position.

    If there is none, the first step that reads a later site of its own grid. If there is none either, the newest pixel
    itself is let through: the first operation wider than one pixel should have kept it out.
    """
    suspect = path[-1][0]
    known = (np.arange(graph.pixels) + 1) * graph.channels
    clean = True
    for node, _ in reversed(path):
        if clean:
            suspect = node
        comparable = graph.values[node.out].sites == graph.pixels
        if comparable and bool((ready[node.out] > known).any()):
            return str(suspect.where)
        clean = comparable
    steps = [node for node, forward in reversed(path) if forward]
    wide = [node for node, _ in reversed(path) if isinstance(node, Contract) and len(_site_maps(node)) > 1]
    return str([*steps, *wide, path[-1][0]][0].where)


def _site_maps(node: Contract) -> set[bytes]:
    """The different places that a contraction reads: more than one for anything wider than 1x1."""
    return {tap.source.sites.tobytes() for tap in node.taps}
