"""The graph: values on sites, and the few kinds of operation between them.

A value is a matrix (sites, channels) of one image; site and channel numbers carry no geometry. All channels of a value
have the same ready times: where an operation's channels differ (RGB groups), it makes several values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Value:
    """One activation. `kind`: input (one channel of the image), condition, constant or node."""

    index: int
    kind: str
    sites: int
    channels: int
    where: str
    data: np.ndarray | None = None
    """(sites, channels) float64, for constants."""


@dataclass(frozen=True, eq=False)
class Source:
    """Channels of a value, fetched for each site of the reader: `sites[s]` is the value's site, -1 gives zeros."""

    value: int
    sites: np.ndarray
    """(reader's sites,) int32."""
    channels: np.ndarray
    """(channels,) int64."""


@dataclass(frozen=True, eq=False)
class Span(Source):
    """Several sites of a value for each site of the reader: reader s reads `sites[first[s] : first[s + 1]]`."""

    first: np.ndarray
    """(reader's sites + 1,) int64."""


@dataclass(frozen=True, eq=False)
class Gather:
    """A sum of sources; at each site and channel at most one of them is not zero."""

    sources: tuple[Source, ...]


@dataclass(frozen=True, eq=False)
class Node:
    """Common part of all operations: the value made, and the model's line it comes from."""

    out: int
    where: str


@dataclass(frozen=True, eq=False)
class Tap:
    """One term of a contraction: source (sites, K) times weight (K, O)."""

    source: Source
    weight: np.ndarray
    """(K, O) float64."""


@dataclass(frozen=True, eq=False)
class Contract(Node):
    """Sum over taps of source @ weight, plus bias: convolutions, linear layers, embeddings."""

    taps: tuple[Tap, ...]
    bias: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Pointwise(Node):
    """An elementwise ATen operation. Tensor arguments are Gathers as wide as the value, or one channel wide."""

    op: str
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, eq=False)
class Copy(Node):
    """Puts sources side by side: segment i fills channels from its first one."""

    segments: tuple[tuple[int, Gather], ...]


@dataclass(frozen=True, eq=False)
class Reduce(Node):
    """out[s, i] = op over j < count of source[s, i * count + j]; op is sum, amax, amin or prod."""

    op: str
    source: Gather
    count: int


@dataclass(frozen=True, eq=False)
class Attend(Node):
    """Attention of every site to sites of its own choice, several heads side by side:

    out[s, h] = sum over j of exp(score[s, h, j] - top) * values[j, h] / (epsilon + sum over j of exp(score - top)),
    score[s, h, j] = scale * query[s, h] . keys[j, h] + bias[h, pair(s, j)], top the largest score of s and h.

    Zeros where a site attends to nothing, or every bias of a head is -inf there. Channels of query, keys, values and
    out: head after head. `keys` and `values` read the same positions for every site, in the same order.
    """

    query: Source
    keys: Span
    values: Span
    heads: int
    scale: float
    epsilon: float
    bias: np.ndarray | None
    """(heads or 1, pairs) float64, by `keys.first`."""


@dataclass
class Graph:
    """Values in the order they are made; nodes in the same order."""

    shape: tuple[int, int, int]
    values: list[Value] = field(default_factory=list)
    nodes: list[Any] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    """The input value of each channel."""
    outputs: list[int] = field(default_factory=list)
    """For each channel, the value (H * W sites) that holds its likelihood's parameters."""
    notes: list[str] = field(default_factory=list)
    """What looked odd on the way, such as a layer whose weights are all zero."""

    @property
    def channels(self) -> int:
        return self.shape[0]

    @property
    def pixels(self) -> int:
        return self.shape[1] * self.shape[2]

    def __str__(self) -> str:
        lines = []
        for node in self.nodes:
            value = self.values[node.out]
            lines.append(f"%{node.out} ({value.sites} x {value.channels}) = {describe(node)}  # {node.where}")
        return "\n".join(lines)


def reads(node: Any) -> list[Source]:
    """Every source the node reads."""
    if isinstance(node, Contract):
        return [tap.source for tap in node.taps]
    if isinstance(node, Pointwise):
        return [s for a in node.args if isinstance(a, Gather) for s in a.sources]
    if isinstance(node, Copy):
        return [s for _, gather in node.segments for s in gather.sources]
    if isinstance(node, Attend):
        return [node.query, node.keys, node.values]
    return list(node.source.sources)


def sites_read(source: Source, reader: int) -> np.ndarray:
    """Sites of the source's value that one site of the reader reads."""
    if isinstance(source, Span):
        return source.sites[source.first[reader] : source.first[reader + 1]]
    return source.sites[reader : reader + 1]


def spread(of_reader: np.ndarray, source: Source) -> np.ndarray:
    """Numbers of the reader's sites, (sites,), one for each entry of `source.sites`."""
    return np.repeat(of_reader, np.diff(source.first)) if isinstance(source, Span) else of_reader


def describe(node: Any) -> str:
    """One line of text."""
    values = " ".join(f"%{v}" for v in dict.fromkeys(s.value for s in reads(node)))
    if isinstance(node, Contract):
        return f"contract[{len(node.taps)} taps] {values}"
    if isinstance(node, Pointwise):
        scalars = [a for a in node.args if not isinstance(a, Gather)]
        return f"{node.op} {values}" + (f" {scalars}" if scalars else "")
    if isinstance(node, Copy):
        return f"copy {values}"
    if isinstance(node, Attend):
        return f"attend[{node.heads} heads] {values}"
    return f"reduce.{node.op}[{node.count}] {values}"
