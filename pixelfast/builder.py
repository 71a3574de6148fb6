"""Adds nodes to a graph: pointwise operations, contractions and reductions on arrays of codes.

Codes have the shape of the tensor they describe. Each builder decides which of its axes are *sites* and which are
*channels*, splits the channels so that every value has one ready time per site, and returns the codes of the result.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .ir import Contract, Copy, Gather, Graph, Pointwise, Reduce, Source, Tap, Value
from .provenance import Space, distinct_columns
from .readiness import source_ready

MANY_VALUES = 8
"""So many values along one axis are the steps of a loop, not parts of a `cat`."""
MAX_WINDOW = 256
"""Widest reduction over positions that is unrolled; wider ones (a norm over the image) are leaks in practice."""


class Builder:
    def __init__(self, graph: Graph, dtype: type[np.signedinteger[Any]] = np.int32) -> None:
        self.graph = graph
        self.space = Space(dtype)
        self.ready: list[np.ndarray] = []
        """Ready time of each value at each of its sites."""
        self._weights: dict[Any, list[np.ndarray]] = {}
        self.where = ""
        """Attached to every value and node made; the caller sets it."""

    # -- values ---------------------------------------------------------------------------------------------------

    def value(self, kind: str, sites: int, channels: int, ready: np.ndarray, data: np.ndarray | None = None) -> int:
        index = len(self.graph.values)
        self.graph.values.append(Value(index, kind, sites, channels, self.where, data))
        self.space.add(sites, channels)
        self.ready.append(ready.astype(np.int32))
        return index

    def constant(self, data: np.ndarray) -> np.ndarray:
        """Codes, of the same shape, of an array of constants."""
        data = np.asarray(data, dtype=np.float64)
        if not data.any():
            return np.zeros(data.shape, dtype=self.space.dtype)
        unique, inverse = np.unique(data, return_inverse=True)
        inverse = inverse.reshape(data.shape)
        value = self.value("constant", len(unique), 1, np.zeros(len(unique)), unique[:, None])
        return np.asarray(np.where(data == 0, 0, self.space.bases[value] + inverse), dtype=self.space.dtype)

    def _whole(self, matrix: np.ndarray) -> Source:
        """The matrix as one value, copied together if need be."""
        value = self.materialise(matrix)
        return Source(value, np.arange(matrix.shape[1], dtype=np.int32), np.arange(len(matrix)))

    def _regular(self, matrix: np.ndarray, columns: np.ndarray, source: Source) -> tuple[np.ndarray, Source]:
        """The same numbers as neighbouring channels of one value. Reading the channels between them with a weight of
        zero instead would turn an infinity there into NaN."""
        if self.is_constant(source) or bool((np.diff(source.channels) == 1).all()):
            return columns, source
        alone = np.where(source.sites >= 0, matrix[columns], 0)
        return columns, self._whole(alone)

    def materialise(self, matrix: np.ndarray) -> int:
        """One value that holds a (channels, sites) matrix of codes."""
        pieces = self.space.sources(matrix)
        channels, sites = matrix.shape
        if len(pieces) == 1:
            columns, source = pieces[0]
            value = self.graph.values[source.value]
            if (
                len(columns) == channels == value.channels
                and value.kind == "node"
                and np.array_equal(source.channels, np.arange(channels))
                and np.array_equal(source.sites, np.arange(value.sites))
            ):
                return source.value
        segments: list[tuple[int, Gather]] = []
        for first, last in _runs([columns for columns, _ in pieces], channels):
            inside = []
            for columns, source in pieces:
                chosen = (columns >= first) & (columns < last)
                if chosen.any():
                    inside.append(Source(source.value, source.sites, source.channels[chosen]))
            segments.append((first, Gather(tuple(inside))))
        ready = self._ready_of([s for _, g in segments for s in g.sources], sites)
        out = self.value("node", sites, channels, ready)
        self.graph.nodes.append(Copy(out, self.where, tuple(segments)))
        return out

    def _ready_of(self, sources: Sequence[Source], sites: int) -> np.ndarray:
        ready = np.zeros(sites, dtype=np.int32)
        for source in sources:
            np.maximum(ready, source_ready(source, self.ready), out=ready)
        return ready

    def data_of(self, source: Source) -> np.ndarray:
        """(channels, sites) numbers of a source that reads a constant."""
        value = self.graph.values[source.value]
        assert value.data is not None
        rows = value.data[np.maximum(source.sites, 0)][:, source.channels]
        return np.where(source.sites[:, None] < 0, 0.0, rows).T

    def numbers(self, codes: np.ndarray) -> np.ndarray:
        """The constants among codes as numbers, NaN for the others."""
        unique, inverse = np.unique(codes, return_inverse=True)
        value, site, channel = self.space.decode(unique)
        found = np.where(unique == 0, 0.0, np.nan)
        for one in np.unique(value[value >= 0]):
            data = self.graph.values[one].data
            if data is not None:
                mine = value == one
                found[mine] = data[site[mine], channel[mine]]
        return found[inverse].reshape(codes.shape)

    def is_constant(self, source: Source) -> bool:
        return self.graph.values[source.value].kind == "constant"

    # -- axes -----------------------------------------------------------------------------------------------------

    def site_axes(self, codes: np.ndarray) -> set[int]:
        """Axes along which the site of some value changes; along the others only channels do.

        A constant's sites are its distinct numbers, in no order that means anything: beside other values they do not
        count.
        """
        at = int(codes.argmax())
        if self._counted(self.space.decode(codes.flat[at : at + 1])[0]).all():
            return self._axes_through(at, codes)
        value, site, _ = self.space.decode(codes)
        counted = self._counted(value)
        return _axes_between(value, site, counted) if counted.any() else self._axes_through(at, codes)

    def _counted(self, value: np.ndarray) -> np.ndarray:
        """Which of these are values of the image or the condition."""
        found = [v for v in np.unique(value).tolist() if v >= 0 and self.graph.values[v].kind != "constant"]
        return np.isin(value, found)

    def _axes_through(self, at: int, codes: np.ndarray) -> set[int]:
        """Looks along the lines through one element, which is a constant only where all are."""
        axes = set()
        position = np.unravel_index(at, codes.shape)
        for axis in range(codes.ndim):
            if codes.shape[axis] == 1 or codes.strides[axis] == 0:
                continue
            where: tuple[Any, ...] = (*position[:axis], slice(None), *position[axis + 1 :])
            value, site, channel = self.space.decode(codes[where])
            if self._steps_of_a_loop(value, channel):
                axes.add(axis)
                continue
            counted = self._counted(value)
            for one in np.unique(value[counted] if counted.any() else value[value >= 0]):
                seen = site[value == one]
                if (seen != seen[0]).any():
                    axes.add(axis)
                    break
        return axes

    def _steps_of_a_loop(self, value: np.ndarray, channel: np.ndarray) -> bool:
        """Whether a line goes from value to value through one channel of each: what the steps of an unrolled loop have
        made, put side by side, are positions."""
        found = np.unique(value)
        wide = all(v >= 0 and self.graph.values[v].channels > 1 for v in found.tolist())
        return wide and len(found) >= MANY_VALUES and bool((channel == channel[0]).all())

    # -- pointwise ------------------------------------------------------------------------------------------------

    def pointwise(self, op: str, args: Sequence[Any], kwargs: dict[str, Any] | None = None) -> np.ndarray:
        """`args`: codes (integer numpy arrays), constants (torch tensors) and plain numbers, broadcast together."""
        kwargs = kwargs or {}
        shape = np.broadcast_shapes(*(tuple(a.shape) for a in args if isinstance(a, (np.ndarray, torch.Tensor))))
        site_axes: set[int] = set()
        for a in args:
            if isinstance(a, np.ndarray) and a.size and a.any():
                site_axes |= {axis + len(shape) - a.ndim for axis in self.site_axes(a)}
        order = [a for a in range(len(shape)) if a not in site_axes] + sorted(site_axes)
        channels = math.prod(shape[a] for a in range(len(shape)) if a not in site_axes)
        sites = math.prod(shape[a] for a in site_axes)

        def matrix(array: np.ndarray) -> np.ndarray:
            return np.ascontiguousarray(np.broadcast_to(array, shape).transpose(order)).reshape(channels, sites)

        operands: list[Any] = []
        pieces: list[list[tuple[np.ndarray, Source]]] = []
        for a in args:
            if isinstance(a, np.ndarray):
                pieces.append(self.space.sources(matrix(a)))
                operands.append(len(pieces) - 1)
            elif isinstance(a, torch.Tensor):
                constant = a.to(torch.float64).numpy()
                operands.append(constant.reshape(1, 1) if constant.size == 1 else matrix(constant))
            else:
                operands.append(_Scalar(a))
        out = np.zeros((channels, sites), dtype=self.space.dtype)
        for columns in _column_groups(pieces, channels):
            out[columns] = self._pointwise_group(op, operands, kwargs, pieces, columns, sites)
        inverse = np.argsort(order)
        return out.reshape([shape[a] for a in order]).transpose(inverse)

    def _pointwise_group(
        self, op: str, operands: list[Any], kwargs: dict[str, Any], pieces: Any, columns: np.ndarray, sites: int
    ) -> np.ndarray:
        sources_of: list[list[Source]] = []
        for found in pieces:
            mine = []
            for of, source in found:
                inside = np.isin(of, columns, assume_unique=True)
                if inside.any():
                    mine.append(Source(source.value, source.sites, source.channels[inside]))
            sources_of.append(mine)
        everything = [s for mine in sources_of for s in mine]
        if all(self.is_constant(s) for s in everything):
            return self._fold(op, operands, kwargs, sources_of, columns, sites)
        arguments: list[Any] = []
        for operand in operands:
            if isinstance(operand, _Scalar):
                arguments.append(operand.value)
            elif isinstance(operand, int):
                arguments.append(Gather(tuple(sources_of[operand])))
            else:
                part = operand if operand.shape == (1, 1) else operand[columns]
                arguments.append(self._constant_operand(part, sites))
        out = self.value("node", sites, len(columns), self._ready_of(everything, sites))
        self.graph.nodes.append(Pointwise(out, self.where, op, tuple(arguments), tuple(sorted(kwargs.items()))))
        return self.space.codes(out, sites)

    def _constant_operand(self, part: np.ndarray, sites: int) -> Gather:
        """(channels or 1, sites or 1) constants; equal rows are stored once."""
        if (part == part[:1]).all():
            part = part[:1]
        rows, table = np.unique(part.T, axis=0, return_inverse=True)
        table = np.broadcast_to(table.reshape(-1), (sites,)).astype(np.int32)
        value = self.value("constant", len(rows), rows.shape[1], np.zeros(len(rows)), rows)
        return Gather((Source(value, table, np.arange(rows.shape[1])),))

    def _fold(
        self, op: str, operands: list[Any], kwargs: dict[str, Any], sources_of: Any, columns: np.ndarray, sites: int
    ) -> np.ndarray:
        arguments = []
        for operand in operands:
            if isinstance(operand, _Scalar):
                arguments.append(operand.value)
            elif isinstance(operand, int):
                data = np.zeros((len(columns), sites))
                for source in sources_of[operand]:
                    data += self.data_of(source)
                arguments.append(torch.from_numpy(data))
            else:
                part = operand if operand.shape == (1, 1) else operand[columns]
                arguments.append(torch.from_numpy(np.ascontiguousarray(part)))
        result = evaluate(op, arguments, kwargs, torch.float64)
        return self.constant(np.broadcast_to(result.numpy(), (len(columns), sites)))

    # -- contraction ----------------------------------------------------------------------------------------------

    def one_array(self, weight: np.ndarray) -> np.ndarray:
        """The weight, or the equal one seen before: loops in a model use a weight again and again, and backends keep
        every array once."""
        weight = np.ascontiguousarray(weight)
        flat = weight.reshape(-1)
        known = self._weights.setdefault((weight.shape, flat[:: 1 + flat.size // 64].tobytes()), [])
        for other in known:
            if np.array_equal(other, weight):
                return other
        known.append(weight)
        return weight

    def contract(
        self, matrix: np.ndarray, taps: Sequence[tuple[np.ndarray | None, np.ndarray]], bias: np.ndarray | None
    ) -> np.ndarray:
        """(O, sites) codes of the sum over taps of matrix[:, site_map].T @ weight, plus bias.

        matrix: (K, sites of the source) codes. taps: (site map or None for identity, weight (K, O)).
        """
        sites = matrix.shape[1] if taps[0][0] is None else len(taps[0][0])
        outs = taps[0][1].shape[1]
        terms: list[tuple[Source, np.ndarray]] = []
        fixed_sites: np.ndarray | None = None
        pieces = [self._regular(matrix, columns, source) for columns, source in self.space.sources(matrix)]
        for site_map, weight in taps:
            for columns, source in pieces:
                table = source.sites if site_map is None else np.where(site_map < 0, -1, source.sites[site_map])
                if (table < 0).all():
                    continue
                moved = Source(source.value, table.astype(np.int32), source.channels)
                part = weight[_as_slice(columns)]
                if self.is_constant(source):
                    contribution = (self.data_of(moved).T @ part).T
                    fixed_sites = contribution if fixed_sites is None else fixed_sites + contribution
                elif part.any():
                    terms.append((moved, part))
        if not terms:
            total = np.zeros((outs, sites)) if fixed_sites is None else fixed_sites
            return self.constant(total + (bias[:, None] if bias is not None else 0.0))
        used = np.stack([part.any(axis=0) for _, part in terms])
        out = np.zeros((outs, sites), dtype=self.space.dtype)
        for columns in self._ready_classes(used, terms, sites):
            mine = [
                Tap(source, self.one_array(part[:, _as_slice(columns)]))
                for i, (source, part) in enumerate(terms)
                if used[i, columns].any()
            ]
            part_bias = None if bias is None or not bias[columns].any() else bias[columns]
            if not mine:
                total = np.zeros((len(columns), sites)) + (bias[columns, None] if bias is not None else 0.0)
                out[columns] = self.constant(total)
                continue
            value = self.value("node", sites, len(columns), self._ready_of([t.source for t in mine], sites))
            self.graph.nodes.append(Contract(value, self.where, tuple(mine), part_bias))
            out[columns] = self.space.codes(value, sites)
        if fixed_sites is not None and fixed_sites.any():
            out = self.pointwise("aten.add.Tensor", [out, torch.from_numpy(fixed_sites)])
        return out

    def _ready_classes(self, used: np.ndarray, terms: Any, sites: int) -> list[np.ndarray]:
        """Output channels grouped by their ready times; a channel that reads nothing is a class of its own kind."""
        patterns, pattern_of, _ = distinct_columns(used)
        classes: dict[bytes, list[int]] = {}
        for i in range(patterns.shape[1]):
            sources = [terms[t][0] for t in np.flatnonzero(patterns[:, i])]
            key = self._ready_of(sources, sites).tobytes() if sources else b""
            classes.setdefault(key, []).append(i)
        return [np.flatnonzero(np.isin(pattern_of, members)) for members in classes.values()]

    # -- reductions -----------------------------------------------------------------------------------------------

    def reduce(self, op: str, codes: np.ndarray, axes: Sequence[int], keepdim: bool) -> np.ndarray | None:
        """op (sum, amax, amin, prod) over axes. None when it spans more than MAX_WINDOW positions."""
        axes = sorted(a % codes.ndim for a in axes) if axes else list(range(codes.ndim))
        site_axes = self.site_axes(codes)
        over_channels = [a for a in axes if a not in site_axes]
        over_sites = [a for a in axes if a in site_axes]
        if math.prod(codes.shape[a] for a in over_sites) > MAX_WINDOW:
            return None
        shape = list(codes.shape)
        if over_channels:
            kept = [a for a in range(codes.ndim) if a not in over_channels]
            channel_axes = [a for a in kept if a not in site_axes]
            position_axes = [a for a in kept if a in site_axes]
            count = math.prod(shape[a] for a in over_channels)
            groups = math.prod(shape[a] for a in channel_axes)
            matrix = np.ascontiguousarray(codes.transpose(channel_axes + over_channels + position_axes))
            matrix = matrix.reshape(groups * count, -1)
            result = np.zeros((groups, matrix.shape[1]), dtype=self.space.dtype)
            for members in self._reduction_classes(matrix, groups, count):
                rows = (members[:, None] * count + np.arange(count)).reshape(-1)
                source = self._whole(matrix[rows])
                ready = self._ready_of([source], matrix.shape[1])
                value = self.value("node", matrix.shape[1], len(members), ready)
                self.graph.nodes.append(Reduce(value, self.where, op, Gather((source,)), count))
                result[members] = self.space.codes(value, matrix.shape[1])
            ordered = channel_axes + position_axes
            codes = result.reshape([shape[a] for a in ordered])
            codes = codes.transpose(np.argsort(ordered)) if ordered else codes
            for a in sorted(over_channels):
                codes = np.expand_dims(codes, a)
        for a in over_sites:
            slices = [codes.take([i], axis=a) for i in range(codes.shape[a])]
            codes = slices[0]
            for item in slices[1:]:
                codes = self.pointwise(_PAIRWISE[op], [codes, item])
        return codes if keepdim else codes.reshape([s for a, s in enumerate(codes.shape) if a not in axes])

    def _reduction_classes(self, matrix: np.ndarray, groups: int, count: int) -> list[np.ndarray]:
        """Groups of the reduction that have the same ready times."""
        classes: dict[bytes, list[int]] = {}
        for group in range(groups):
            rows = matrix[group * count : (group + 1) * count]
            sources = [source for _, source in self.space.sources(rows)]
            classes.setdefault(self._ready_of(sources, matrix.shape[1]).tobytes(), []).append(group)
        return [np.array(members) for members in classes.values()]


_PAIRWISE = {
    "sum": "aten.add.Tensor",
    "amax": "aten.maximum.default",
    "amin": "aten.minimum.default",
    "prod": "aten.mul.Tensor",
}


def _axes_between(value: np.ndarray, site: np.ndarray, counted: np.ndarray) -> set[int]:
    """Axes along which two neighbours, both counted, lie at different sites of one value."""
    axes = set()
    for axis in range(value.ndim):
        here, there = np.arange(value.shape[axis] - 1), np.arange(1, value.shape[axis])
        same = value.take(here, axis) == value.take(there, axis)
        same &= counted.take(here, axis)
        if (same & (site.take(here, axis) != site.take(there, axis))).any():
            axes.add(axis)
    return axes


class _Scalar:
    def __init__(self, value: Any) -> None:
        self.value = value


def _as_slice(numbers: np.ndarray) -> slice | np.ndarray:
    """A run of numbers as a slice, which copies nothing."""
    first, last = int(numbers[0]), int(numbers[-1])
    return slice(first, last + 1) if last - first + 1 == len(numbers) else numbers


def _column_groups(pieces: list[list[tuple[np.ndarray, Source]]], channels: int) -> list[np.ndarray]:
    """Columns that are fed by the same sources in every operand."""
    labels = [np.isin(np.arange(channels), columns) for found in pieces for columns, _ in found]
    if not labels:
        return [np.arange(channels)]
    if all(label.all() for label in labels):
        return [np.arange(channels)]
    _, group, _ = distinct_columns(np.stack(labels))
    order = dict.fromkeys(group.tolist())
    return [np.flatnonzero(group == g) for g in order]


def _runs(column_sets: list[np.ndarray], channels: int) -> list[tuple[int, int]]:
    """Maximal runs of neighbouring columns that belong to the same sets; columns of no set are left out."""
    if not column_sets:
        return []
    member = np.stack([np.isin(np.arange(channels), columns) for columns in column_sets])
    change = np.flatnonzero((member[:, 1:] != member[:, :-1]).any(axis=0)) + 1
    edges = [0, *change.tolist(), channels]
    return [(a, b) for a, b in itertools.pairwise(edges) if member[:, a].any()]


def evaluate(op: str, args: Sequence[Any], kwargs: dict[str, Any], dtype: torch.dtype) -> torch.Tensor:
    """An elementwise operation on float tensors; truth values become 0 and 1."""
    namespace, name, overload = op.split(".")
    function = getattr(getattr(getattr(torch.ops, namespace), name), overload)
    arguments = list(args)
    if op == "aten.where.self":
        arguments[0] = arguments[0] != 0
    result: torch.Tensor = function(*arguments, **kwargs)
    return result.to(dtype)
