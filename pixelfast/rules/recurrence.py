"""The LSTM of `ops.row_lstm` and `ops.diagonal_lstm`: a contraction and pointwise nodes that read, at the sites of a
line, what they have made at the sites of the line before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..ir import Contract, Gather, Pointwise, Source, Tap
from ..ops.recurrence import GATES
from ..readiness import source_ready
from .common import Codes


def _lstm(
    builder: Any, call: Any, gates: Any, weight: Any, bias: Any, hidden: Any, cell: Any, before: int
) -> list[Codes | None]:
    """See `ops.recurrence`. Only the hidden states can be read, not what is kept for the backward pass."""
    if any(isinstance(a, Codes) for a in (weight, bias, hidden, cell)) or not isinstance(gates, Codes):
        raise NotImplementedError("a recurrence whose weights or first state depend on the image or the condition")
    images = [_Lstm(builder, codes, weight, bias, hidden, cell, before).run() for codes in gates.array]
    return [Codes(np.stack(images), gates.dtype), None, None]


@dataclass
class _Part:
    """Features of the state whose gates have the same ready times."""

    features: np.ndarray
    gates: Source
    """At every position of the map (T, L), gate after gate."""
    hidden: int
    """Values of the states, at the positions that are not known."""
    cell: int

    @property
    def count(self) -> int:
        return len(self.features)


def rows_of(features: np.ndarray, total: int) -> np.ndarray:
    """Rows of some features among the gates of all: (4 * features,)."""
    return np.asarray((np.arange(GATES)[:, None] * total + features).reshape(-1))


class _Lstm:
    """One image's recurrence over the lines of a map (T, L).

    States that no pixel reaches, such as those in the padding of a skewed map, are constants: *known*. The sites of all
    nodes are the other positions, line after line.
    """

    def __init__(
        self, builder: Any, gates: np.ndarray, weight: Any, bias: Any, hidden: Any, cell: Any, before: int
    ) -> None:
        self.builder = builder
        self.steps, self.length = gates.shape[1:]
        self.features = len(gates) // GATES
        self.gates = np.ascontiguousarray(gates).reshape(len(gates), -1)
        self.weight = np.ascontiguousarray(weight.permute(2, 1, 0).numpy())  # (taps, C, 4 C)
        self.bias = None if bias is None else bias.numpy()
        self.before = before
        self.known = self._known()
        still = torch.zeros(1, *gates.shape, dtype=torch.float64)
        states, _, cells = torch.ops.pixelfast.lstm(still, weight, bias, hidden, cell, before)
        first = np.zeros((self.features, self.length)) if hidden is None else hidden.numpy()
        self.known_states = np.concatenate([first.T[None], states[0].permute(1, 2, 0).numpy()])
        self.known_cells = cells[:, 0].numpy()
        """(T + 1, L, C): line t is what step t reads. Right where it is known."""
        self.positions = np.flatnonzero(~self.known[1:])
        self.sites = len(self.positions)
        self.site = np.full((self.steps + 1, self.length), -1, dtype=np.int32)
        """Site of each position, -1 where it is known; line 0 is the one before the first."""
        self.site[1:].flat[self.positions] = np.arange(self.sites)

    def _known(self) -> np.ndarray:
        """(T + 1, L): whether the state at a position is a constant."""
        still = ~self.gates.any(axis=0).reshape(self.steps, self.length)
        known = np.ones((self.steps + 1, self.length), dtype=bool)
        for t in range(self.steps):
            known[t + 1] = still[t]
            for tap in range(len(self.weight)):
                at, within = self._reads(np.arange(self.length), tap)
                known[t + 1] &= known[t][at] | ~within
        return known

    def _reads(self, positions: np.ndarray, tap: int) -> tuple[np.ndarray, np.ndarray]:
        """The position of the line before that a tap reads, and whether there is one."""
        at = positions + tap - self.before
        within = (at >= 0) & (at < self.length)
        return np.where(within, at, 0), within

    def run(self) -> np.ndarray:
        """(C, T, L) codes of the hidden states."""
        builder = self.builder
        out = np.zeros((self.features, self.steps * self.length), dtype=builder.space.dtype)
        known = np.flatnonzero(self.known[1:])
        if len(known):
            data = self.known_states[1:].reshape(-1, self.features)[known]
            out[:, known] = builder.space.codes(self._constant(data), len(known))
        if self.sites:
            parts = self._parts()
            for part in parts:
                self._part(part, parts)
                out[np.ix_(part.features, self.positions)] = builder.space.codes(part.hidden, self.sites)
        return out.reshape(self.features, self.steps, self.length)

    def _parts(self) -> list[_Part]:
        """Features whose gates are ready at other times than those of others are a part of their own."""
        builder = self.builder
        ready = np.zeros(self.gates.shape, dtype=np.int32)
        for columns, source in builder.space.sources(self.gates):
            ready[columns] = np.maximum(ready[columns], source_ready(source, builder.ready))
        of_feature = ready.reshape(GATES, self.features, -1).max(axis=0)
        kinds, which = np.unique(of_feature, axis=0, return_inverse=True)
        states = self._state_ready(kinds.reshape(-1, self.steps, self.length))
        parts = []
        for kind in dict.fromkeys(which.reshape(-1).tolist()):
            features = np.flatnonzero(which.reshape(-1) == kind)
            hidden, cell = (builder.value("node", self.sites, len(features), states[kind]) for _ in range(2))
            gates = self._gates(self.gates[rows_of(features, self.features)])
            parts.append(_Part(features, gates, hidden, cell))
        return parts

    def _state_ready(self, gates: np.ndarray) -> np.ndarray:
        """Ready times of the states at the sites, of the gates at all positions: (kinds, T, L) -> (kinds, sites).

        Every state reads all features of the line before.
        """
        ready = np.where(self.known[1:], 0, gates)
        for t in range(1, self.steps):
            line = ready[:, t - 1].max(axis=0)
            for tap in range(len(self.weight)):
                at, within = self._reads(np.arange(self.length), tap)
                ready[:, t] = np.maximum(ready[:, t], np.where(within & ~self.known[t + 1], line[at], 0))
        return np.asarray(ready.reshape(len(gates), -1)[:, self.positions])

    def _gates(self, matrix: np.ndarray) -> Source:
        """The rows of the matrix as neighbouring channels of one value."""
        pieces = self.builder.space.sources(matrix)
        if len(pieces) == 1 and len(pieces[0][0]) == len(matrix):
            source: Source = pieces[0][1]
            if bool((np.diff(source.channels) == 1).all()):
                return source
        value = self.builder.materialise(matrix)
        return Source(value, np.arange(matrix.shape[1], dtype=np.int32), np.arange(len(matrix)))

    def _part(self, part: _Part, parts: list[_Part]) -> None:
        """The nodes that make a part's states."""
        n = part.count
        taps = self._taps(part, parts)
        bias = None if self.bias is None else self.bias[rows_of(part.features, self.features)]
        total = Gather((Source(part.gates.value, part.gates.sites[self.positions], part.gates.channels),))
        if taps:
            sources = [tap.source for tap in taps]
            from_states = self._node(GATES * n, sources, lambda out, where: Contract(out, where, taps, bias))
            total = self._read(self._pointwise("aten.add.Tensor", GATES * n, total, self._read(from_states)))
        elif bias is not None:
            shared = Source(self._constant(bias[None]), np.zeros(self.sites, dtype=np.int32), np.arange(GATES * n))
            total = self._read(self._pointwise("aten.add.Tensor", GATES * n, total, Gather((shared,))))

        def of_gates(first: int, last: int) -> Gather:
            (source,) = total.sources
            return Gather((Source(source.value, source.sites, source.channels[first * n : last * n]),))

        opened = self._pointwise("aten.sigmoid.default", 3 * n, of_gates(0, 3))
        o, f, i = (self._read(opened, k * n, (k + 1) * n) for k in range(3))
        content = self._read(self._pointwise("aten.tanh.default", n, of_gates(3, 4)))
        last = self._last_cells(part)
        if last.sources:
            new = self._read(self._pointwise("aten.mul.Tensor", n, i, content))
            kept = self._read(self._pointwise("aten.mul.Tensor", n, f, last))
            self._pointwise("aten.add.Tensor", n, kept, new, out=part.cell)
        else:
            self._pointwise("aten.mul.Tensor", n, i, content, out=part.cell)
        squashed = self._read(self._pointwise("aten.tanh.default", n, self._read(part.cell)))
        self._pointwise("aten.mul.Tensor", n, o, squashed, out=part.hidden)

    def _taps(self, part: _Part, parts: list[_Part]) -> tuple[Tap, ...]:
        """What the gates of a part read of the line before: of values, and of what is known."""
        line, column = np.divmod(self.positions, self.length)
        rows = rows_of(part.features, self.features)
        taps = []
        for tap, weight in enumerate(self.weight):
            at, within = self._reads(column, tap)
            sites = np.where(within, self.site[line, at], -1).astype(np.int32)
            known = np.where((within & self.known[line, at])[:, None], self.known_states[line, at], 0.0)
            read = [(Source(of.hidden, sites, np.arange(of.count)), of.features) for of in parts if sites.max() >= 0]
            if known.any():
                read.append((self._rows(known), np.arange(self.features)))
            for source, features in read:
                block = self.builder.one_array(weight[np.ix_(features, rows)])
                if block.any():
                    taps.append(Tap(source, block))
        return tuple(taps)

    def _last_cells(self, part: _Part) -> Gather:
        """The cells of the line before, at the same positions."""
        line, column = np.divmod(self.positions, self.length)
        sites = self.site[line, column]
        sources = [Source(part.cell, sites, np.arange(part.count))] if sites.max() >= 0 else []
        cells = self.known_cells[line, column][:, part.features]
        known = np.where(self.known[line, column][:, None], cells, 0.0)
        if known.any():
            sources.append(self._rows(known))
        return Gather(tuple(sources))

    # -- nodes --------------------------------------------------------------------------------------------------------

    def _node(self, channels: int, sources: list[Source], make: Callable[[int, str], Any], out: int = -1) -> int:
        """Adds a node; makes its value, unless that is given."""
        builder = self.builder
        if out < 0:
            ready = np.zeros(self.sites, dtype=np.int32)
            for source in sources:
                np.maximum(ready, source_ready(source, builder.ready), out=ready)
            out = builder.value("node", self.sites, channels, ready)
        builder.graph.nodes.append(make(out, builder.where))
        return out

    def _pointwise(self, op: str, channels: int, *operands: Gather, out: int = -1) -> int:
        sources = [source for operand in operands for source in operand.sources]
        return self._node(channels, sources, lambda value, where: Pointwise(value, where, op, operands), out)

    def _read(self, value: int, first: int = 0, last: int | None = None) -> Gather:
        """Channels of a value at the same sites."""
        end = self.builder.graph.values[value].channels if last is None else last
        return Gather((Source(value, np.arange(self.sites, dtype=np.int32), np.arange(first, end)),))

    def _constant(self, data: np.ndarray) -> int:
        """A value that holds (sites, channels) constants."""
        value: int = self.builder.value("constant", *data.shape, np.zeros(len(data)), data)
        return value

    def _rows(self, data: np.ndarray) -> Source:
        """(sites, channels) constants; equal rows are stored once, rows of zeros not at all."""
        rows, table = np.unique(data, axis=0, return_inverse=True)
        table = np.where(data.any(axis=1), table.reshape(-1), -1).astype(np.int32)
        return Source(self._constant(rows), table, np.arange(data.shape[1]))


RULES: dict[str, Callable[..., Any]] = {"pixelfast.lstm": _lstm}
