"""The LSTM of `ops.row_lstm` and `ops.diagonal_lstm`: one contraction and a few pointwise nodes per line of cells.

All lines share the same arrays of weights, which backends keep once.
"""

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
    builder: Any, call: Any, gates: Codes, weight: Any, bias: Any, hidden: Any, cell: Any, before: int
) -> list[Codes | None]:
    """See `ops.recurrence`. Only the hidden states can be read, not what is kept for the backward pass."""
    if any(isinstance(a, Codes) for a in (weight, bias, hidden, cell)) or not isinstance(gates, Codes):
        raise NotImplementedError("a recurrence whose weights or first state depend on the image or the condition")
    images = [_Lines(builder, codes, weight, bias, hidden, cell, before).run() for codes in gates.array]
    return [Codes(np.stack(images), gates.dtype), None, None]


@dataclass
class _Part:
    """Features of the state whose gates have the same ready times, and where their gates come from."""

    features: np.ndarray
    rows: np.ndarray
    """Their rows among the gates, gate after gate."""
    gates: Source


class _Lines:
    """One image's recurrence. What no position of the image reaches, such as the padding of a skewed map, is constant:
    computed now, and folded into the lines that read it."""

    def __init__(
        self, builder: Any, gates: np.ndarray, weight: Any, bias: Any, hidden: Any, cell: Any, before: int
    ) -> None:
        self.builder = builder
        self.channels, self.steps, self.length = gates.shape
        self.features = self.channels // GATES
        self.gates = np.ascontiguousarray(gates).reshape(self.channels, -1)
        self.weight = np.ascontiguousarray(weight.permute(2, 1, 0).numpy())  # (taps, C, 4 C)
        self.bias = None if bias is None else bias.numpy()
        self.before = before
        still = torch.zeros(1, *gates.shape, dtype=torch.float64)
        states, _, cells = torch.ops.pixelfast.lstm(still, weight, bias, hidden, cell, before)
        first = np.zeros((self.features, self.length)) if hidden is None else hidden.numpy()
        # (T + 1, L, C): line t is what step t reads. Right where it is known, see `_known`.
        self.known_states = np.concatenate([first.T[None], states[0].permute(1, 2, 0).numpy()])
        self.known_cells = cells[:, 0].numpy()
        self.known = self._known()
        self.parts = self._parts()
        self._weights = {
            (tap, mine, theirs): np.ascontiguousarray(self.weight[tap][np.ix_(of.features, to.rows)])
            for tap in range(len(self.weight))
            for mine, to in enumerate(self.parts)
            for theirs, of in enumerate(self.parts)
        }
        self._bias = [None if self.bias is None else self.bias[part.rows] for part in self.parts]

    def _known(self) -> np.ndarray:
        """(T + 1, L): whether a position's state is a constant; line 0 is the one before the first."""
        still = ~self.gates.any(axis=0).reshape(self.steps, self.length)
        known = np.ones((self.steps + 1, self.length), dtype=bool)
        for t in range(self.steps):
            known[t + 1] = still[t]
            for tap in range(len(self.weight)):
                at, inside = self._reads(np.arange(self.length), tap)
                known[t + 1] &= known[t][at] | ~inside
        return known

    def _reads(self, positions: np.ndarray, tap: int) -> tuple[np.ndarray, np.ndarray]:
        """The position that a tap reads, and whether there is one."""
        at = positions + tap - self.before
        inside = (at >= 0) & (at < self.length)
        return np.where(inside, at, 0), inside

    def _parts(self) -> list[_Part]:
        """Features whose gates are ready at other times than those of others are a part of their own."""
        builder = self.builder
        ready = np.zeros((self.channels, self.gates.shape[1]), dtype=np.int32)
        for columns, source in builder.space.sources(self.gates):
            ready[columns] = np.maximum(ready[columns], source_ready(source, builder.ready))
        of_feature = ready.reshape(GATES, self.features, -1).max(axis=0)
        _, which = np.unique(of_feature, axis=0, return_inverse=True)
        parts = []
        for number in dict.fromkeys(which.reshape(-1).tolist()):
            features = np.flatnonzero(which.reshape(-1) == number)
            rows = (np.arange(GATES)[:, None] * self.features + features).reshape(-1)
            parts.append(_Part(features, rows, self._one_source(self.gates[rows])))
        return parts

    def _one_source(self, matrix: np.ndarray) -> Source:
        pieces = self.builder.space.sources(matrix)
        if len(pieces) == 1 and len(pieces[0][0]) == len(matrix):
            source: Source = pieces[0][1]
            if bool((np.diff(source.channels) == 1).all()):
                return source
        value = self.builder.materialise(matrix)
        return Source(value, np.arange(matrix.shape[1], dtype=np.int32), np.arange(len(matrix)))

    def run(self) -> np.ndarray:
        """(C, T, L) codes of the hidden states."""
        builder = self.builder
        out = self._constants()
        place = np.full(self.length, -1, dtype=np.int32)
        states: list[int] = []
        cells: list[int] = []
        for t in range(self.steps):
            positions = np.flatnonzero(~self.known[t + 1])
            if not len(positions):
                continue
            made = [self._cells(t, mine, positions, place, states, cells) for mine in range(len(self.parts))]
            states, cells = [h for h, _ in made], [c for _, c in made]
            place = np.full(self.length, -1, dtype=np.int32)
            place[positions] = np.arange(len(positions))
            for part, state in zip(self.parts, states, strict=True):
                out[part.features[:, None], t, positions] = builder.space.codes(state, len(positions))
        return out

    def _constants(self) -> np.ndarray:
        """Codes of the states that are known, zeros elsewhere."""
        out = np.zeros((self.features, self.steps, self.length), dtype=self.builder.space.dtype)
        known = self.known[1:]
        if known.any():
            data = self.known_states[1:][known]
            value = self.builder.value("constant", len(data), self.features, np.zeros(len(data)), data)
            out[:, known] = self.builder.space.codes(value, len(data))
        return out

    def _cells(
        self, t: int, mine: int, positions: np.ndarray, place: np.ndarray, states: list[int], cells: list[int]
    ) -> tuple[int, int]:
        """The values of one part's hidden states and cells at the positions of line t that are not known.

        place: where each position of the line before lies in `states` and `cells`, -1 where it is known.
        """
        part = self.parts[mine]
        count = len(part.features)
        sites = len(positions)
        taps, fixed = self._taps(t, mine, positions, place, states)
        given = Source(part.gates.value, part.gates.sites[t * self.length + positions], part.gates.channels)
        terms = [Gather((given,))]
        if taps:
            bias = self._bias[mine]
            state_to_state = self._add(
                sites, GATES * count, [tap.source for tap in taps], lambda out, where: Contract(out, where, taps, bias)
            )
            terms.append(self._whole(state_to_state, sites, 0, GATES * count))
        elif self._bias[mine] is not None:
            fixed = fixed + self._bias[mine]
        if fixed.any():
            terms.append(self._constant(fixed))
        total = terms[0]
        for term in terms[1:]:
            total = self._whole(self._pointwise("aten.add.Tensor", sites, GATES * count, total, term), sites)

        def gate(first: int, last: int) -> Gather:
            (source,) = total.sources
            return Gather((Source(source.value, source.sites, source.channels[first * count : last * count]),))

        opened = self._pointwise("aten.sigmoid.default", sites, 3 * count, gate(0, 3))
        content = self._pointwise("aten.tanh.default", sites, count, gate(3, 4))
        o, f, i = (self._whole(opened, sites, k * count, (k + 1) * count) for k in range(3))
        cell = self._pointwise("aten.mul.Tensor", sites, count, i, self._whole(content, sites))
        last = self._cells_before(t, mine, positions, place, cells)
        if last.sources:
            kept = self._pointwise("aten.mul.Tensor", sites, count, f, last)
            added = self._whole(kept, sites), self._whole(cell, sites)
            cell = self._pointwise("aten.add.Tensor", sites, count, *added)
        squashed = self._pointwise("aten.tanh.default", sites, count, self._whole(cell, sites))
        return self._pointwise("aten.mul.Tensor", sites, count, o, self._whole(squashed, sites)), cell

    def _taps(
        self, t: int, mine: int, positions: np.ndarray, place: np.ndarray, states: list[int]
    ) -> tuple[tuple[Tap, ...], np.ndarray]:
        """What is read of the line before: taps on its values, and the sum over what is known of it."""
        rows = self.parts[mine].rows
        fixed = np.zeros((len(positions), len(rows)))
        taps = []
        for tap in range(len(self.weight)):
            at, inside = self._reads(positions, tap)
            known = inside & self.known[t][at]
            fixed[known] += self.known_states[t][at[known]] @ self.weight[tap][:, rows]
            sites = np.where(inside, place[at], -1).astype(np.int32)
            if (sites < 0).all():
                continue
            for theirs, state in enumerate(states):
                weight = self._weights[tap, mine, theirs]
                if weight.any():
                    taps.append(Tap(Source(state, sites, np.arange(len(weight))), weight))
        return tuple(taps), fixed

    def _cells_before(
        self, t: int, mine: int, positions: np.ndarray, place: np.ndarray, cells: list[int]
    ) -> Gather:
        sources = []
        features = self.parts[mine].features
        if cells and (place[positions] >= 0).any():
            sources.append(Source(cells[mine], place[positions], np.arange(len(features))))
        known = np.where(self.known[t][positions, None], self.known_cells[t][positions][:, features], 0.0)
        if known.any():
            sources += self._constant(known).sources
        return Gather(tuple(sources))

    # -- nodes --------------------------------------------------------------------------------------------------------

    def _add(self, sites: int, channels: int, sources: list[Source], make: Callable[[int, str], Any]) -> int:
        builder = self.builder
        ready = np.zeros(sites, dtype=np.int32)
        for source in sources:
            np.maximum(ready, source_ready(source, builder.ready), out=ready)
        out: int = builder.value("node", sites, channels, ready)
        builder.graph.nodes.append(make(out, builder.where))
        return out

    def _pointwise(self, op: str, sites: int, channels: int, *operands: Gather) -> int:
        sources = [source for operand in operands for source in operand.sources]
        return self._add(sites, channels, sources, lambda out, where: Pointwise(out, where, op, operands))

    def _whole(self, value: int, sites: int, first: int = 0, last: int | None = None) -> Gather:
        end = self.builder.graph.values[value].channels if last is None else last
        return Gather((Source(value, np.arange(sites, dtype=np.int32), np.arange(first, end)),))

    def _constant(self, data: np.ndarray) -> Gather:
        """(sites, channels) constants; equal rows are stored once."""
        rows, table = np.unique(data, axis=0, return_inverse=True)
        value = self.builder.value("constant", len(rows), data.shape[1], np.zeros(len(rows)), rows)
        return Gather((Source(value, table.reshape(-1).astype(np.int32), np.arange(data.shape[1])),))


RULES: dict[str, Callable[..., Any]] = {"pixelfast.lstm": _lstm}
