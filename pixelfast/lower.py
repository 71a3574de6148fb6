"""Writes a schedule down as a program: slots instead of sites, registers instead of values."""

from __future__ import annotations

from typing import Any

import numpy as np

from .ir import Attend, Contract, Copy, Gather, Graph, Pointwise, Reduce, Source, spread
from .program import (
    Attended,
    Attention,
    Buffer,
    Contraction,
    Input,
    Instruction,
    Kernel,
    Load,
    Operand,
    Output,
    Program,
    Reduction,
    Store,
    Term,
)
from .provenance import distinct_columns
from .readiness import NEVER
from .schedule import Group, Schedule

PATTERN_SHARE = 0.1
"""A set of active taps gets products of its own when at least this share of the sites has it (parities of a transposed
convolution); the taps that other sites miss read zeros."""


def lower(schedule: Schedule, scale: float, offset: float, table: np.ndarray | None) -> tuple[Program, dict[int, int]]:
    """The program, and the buffer of each value that has one.

    `scale`, `offset`, `table`: how a level becomes the model's input (see `program.Input`).
    """
    lowering = _Lowering(schedule)
    return lowering.program(scale, offset, table), lowering.buffer_of


class _Lowering:
    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.graph: Graph = schedule.graph
        self.buffers: list[Buffer] = []
        self.buffer_of: dict[int, int] = {}
        self.tables: list[np.ndarray] = []
        self.ahead_tables: list[np.ndarray] = []
        self._table_number: dict[bytes, int] = {}
        self.flops = 0.0
        self._zero_buffer: int | None = None

    def program(self, scale: float, offset: float, table: np.ndarray | None) -> Program:
        for value in self.graph.inputs:
            self.buffer(value)
        kernels = tuple(_KernelLowering(self, group).kernel() for group in self.schedule.groups)
        outputs = tuple(
            Output(self.buffer(value), self.table(self.slots_in_order(value))) for value in self.graph.outputs
        )
        read = {load.buffer for k in kernels for load in k.loads}
        read |= {term.buffer for k in kernels if k.contraction for term in k.contraction.terms}
        read |= {part.buffer for k in kernels if (a := k.attention) for part in (a.query, a.keys, a.values)}
        inputs = tuple(self.buffer_of[v] if self.buffer_of[v] in read else None for v in self.graph.inputs)
        return Program(
            self.graph.shape,
            tuple(self.buffers),
            tuple(self.tables),
            kernels,
            self.schedule.tasks,
            self.schedule.sites,
            Input(inputs, scale, offset, table),
            outputs,
            self.flops,
            self.schedule.lookahead,
            tuple(self.ahead_tables),
        )

    def buffer(self, value: int) -> int:
        if value not in self.buffer_of:
            v = self.graph.values[value]
            kind = "state" if v.kind == "node" else v.kind
            slots = self.schedule.slot_count[value] if v.kind == "node" else v.sites
            self.buffer_of[value] = len(self.buffers)
            self.buffers.append(Buffer(f"%{value} {v.where}", kind, v.channels, slots, v.data))
        return self.buffer_of[value]

    def zero_buffer(self) -> int:
        if self._zero_buffer is None:
            self._zero_buffer = len(self.buffers)
            self.buffers.append(Buffer("zero", "constant", 1, 1, np.zeros((1, 1))))
        return self._zero_buffer

    def table(self, slots: np.ndarray) -> int:
        """slots: (2, sites), one step at a time and where steps are merged."""
        slots = np.ascontiguousarray(slots, dtype=np.int32)
        key = slots.tobytes()
        if key not in self._table_number:
            self._table_number[key] = len(self.tables)
            self.tables.append(slots[0])
            self.ahead_tables.append(slots[1])
        return self._table_number[key]

    def slots_in_order(self, value: int) -> np.ndarray:
        """(2, sites): slots of a value's sites."""
        return np.stack([self.schedule.slots[value], self.schedule.ahead_slots[value]])

    def slots_of(self, source: Source, live: np.ndarray) -> np.ndarray:
        """(2, entries): slot of what each entry of a source reads, -1 where the reader's site is not live."""
        table = np.where(spread(live, source), source.sites, -1)
        if self.graph.values[source.value].kind != "node":
            return np.stack([table, table])
        slots = np.pad(self.slots_in_order(source.value), ((0, 0), (0, 1)), constant_values=-1)
        return slots.take(table, axis=1)  # table's -1 takes the last column, which is -1


class _KernelLowering:
    def __init__(self, parent: _Lowering, group: Group) -> None:
        self.parent = parent
        self.group = group
        self.live = group.step != NEVER
        self.widths: list[int] = []
        self.register_of: dict[int, int] = {}
        self.loads: list[Load] = []
        self.instructions: list[Instruction] = []
        self._loaded: dict[Any, int] = {}

    def kernel(self) -> Kernel:
        contraction = attention = None
        for node in self.group.nodes:
            channels = self.parent.graph.values[node.out].channels
            if isinstance(node, Contract):
                contraction = self._contraction(node, channels)
            elif isinstance(node, Attend):
                attention = self._attention(node, channels)
            elif isinstance(node, Pointwise):
                args = tuple(self._operand(a, channels) if isinstance(a, Gather) else a for a in node.args)
                register = self.register_of[node.out] = self._new(channels)
                self.instructions.append(Instruction(node.op, register, 0, channels, args, node.kwargs))
            elif isinstance(node, Copy):
                self._copy(node, channels)
            else:
                self._reduce(node, channels)
        return Kernel(
            self.group.nodes[0].where,
            self.group.sites,
            tuple(self.widths),
            contraction,
            tuple(self.loads),
            tuple(self.instructions),
            self._stores(),
            attention,
        )

    def _new(self, width: int) -> int:
        self.widths.append(width)
        return len(self.widths) - 1

    def _contraction(self, node: Contract, channels: int) -> Contraction:
        terms = []
        active = []
        for tap in node.taps:
            slots = self.parent.slots_of(tap.source, self.live)
            active.append(slots[0] >= 0)
            terms.append(
                Term(
                    self.parent.buffer(tap.source.value),
                    self.parent.table(slots),
                    int(tap.source.channels[0]),
                    tap.weight,
                )
            )
        used = np.stack(active)
        counts = np.array([len(tap.source.channels) for tap in node.taps])
        self.parent.flops += 2.0 * channels * float((used.sum(axis=1) * counts).sum())
        patterns, pattern_of_site = _patterns(used, self.live, counts)
        register = self.register_of[node.out] = self._new(channels)
        return Contraction(register, tuple(terms), node.bias, patterns, pattern_of_site)

    def _attention(self, node: Attend, channels: int) -> Attention:
        def part(source: Source) -> Attended:
            table = self.parent.table(self.parent.slots_of(source, self.live))
            start, count = int(source.channels[0]), len(source.channels)
            return Attended(self.parent.buffer(source.value), table, start, count // node.heads)

        pairs = int(np.diff(node.keys.first)[self.live].sum())
        self.parent.flops += 2.0 * pairs * (len(node.query.channels) + len(node.values.channels))
        register = self.register_of[node.out] = self._new(channels)
        first = node.keys.first.astype(np.int32)
        parts = part(node.query), part(node.keys), part(node.values)
        return Attention(register, *parts, first, node.bias, node.heads, node.scale, node.epsilon)

    def _operand(self, gather: Gather, channels: int) -> Operand:
        """A register that holds the gathered numbers, `channels` wide or broadcast."""
        if not gather.sources:
            return self._zero()
        parts = [self._source(source, channels) for source in gather.sources]
        total = parts[0]
        for part in parts[1:]:
            register = self._new(channels)
            self.instructions.append(Instruction("aten.add.Tensor", register, 0, channels, (total, part)))
            total = Operand(register)
        return total

    def _zero(self) -> Operand:
        if "zero" not in self._loaded:
            register = self._new(1)
            self.loads.append(Load(register, self.parent.zero_buffer(), None, (0, 1)))
            self._loaded["zero"] = register
        return Operand(self._loaded["zero"], 0, 0)

    def _source(self, source: Source, channels: int) -> Operand:
        if source.value in self.register_of:
            return Operand(self.register_of[source.value], *_start_stride(source.channels, channels))
        slots = self.parent.slots_of(source, self.live)
        constant = self.parent.graph.values[source.value].kind == "constant"
        table = None if constant and not slots[0][self.live].any() else self.parent.table(slots)
        steps = np.diff(source.channels)
        one = bool((steps == 0).all())
        regular = one or bool((steps == 1).all())
        stride = 0 if one and channels > 1 else 1
        wanted: Any = source.channels
        if regular:
            wanted = (int(source.channels[0]), 1 if one else len(source.channels))
        key = (source.value, table, wanted if regular else source.channels.tobytes())
        if key not in self._loaded:
            register = self._new(wanted[1] if regular else len(wanted))
            self.loads.append(Load(register, self.parent.buffer(source.value), table, wanted))
            self._loaded[key] = register
        return Operand(self._loaded[key], 0, stride)

    def _copy(self, node: Copy, channels: int) -> None:
        register = self._new(channels)
        covered = np.zeros(channels, dtype=bool)
        for first, gather in node.segments:
            width = len(gather.sources[0].channels)
            covered[first : first + width] = True
            self.instructions.append(Instruction("copy", register, first, width, (self._operand(gather, width),)))
        for first in np.flatnonzero(~covered).tolist():
            self.instructions.append(Instruction("copy", register, first, 1, (self._zero(),)))
        self.register_of[node.out] = register

    def _reduce(self, node: Reduce, channels: int) -> None:
        operand = self._operand(node.source, channels * node.count)
        stride = operand.stride
        register = self.register_of[node.out] = self._new(channels)
        argument = Reduction(operand.register, operand.start, node.count * stride, stride, node.count)
        self.instructions.append(Instruction(f"reduce.{node.op}", register, 0, channels, (argument,)))

    def _stores(self) -> tuple[Store, ...]:
        stores = []
        for node in self.group.nodes:
            if node.out in self.parent.schedule.slots:
                channels = self.parent.graph.values[node.out].channels
                table = self.parent.table(self.parent.slots_in_order(node.out))
                stores.append(Store(self.register_of[node.out], 0, channels, self.parent.buffer(node.out), table, 0))
        return tuple(stores)


def _start_stride(channels: np.ndarray, wanted: int) -> tuple[int, int]:
    start = int(channels[0])
    if len(channels) == 1:
        return start, 0 if wanted > 1 else 1
    return start, int(channels[1] - channels[0])


def _patterns(used: np.ndarray, live: np.ndarray, counts: np.ndarray) -> tuple[tuple[tuple[int, ...], ...], np.ndarray]:
    """Sets of taps worth products of their own, and the set of each site: the cheapest that has all it needs."""
    if not live.any():
        return ((),), np.zeros(len(live), dtype=np.int32)
    found, kind, sizes = distinct_columns(used[:, live])
    kept = [found[:, i] for i in np.flatnonzero(sizes >= PATTERN_SHARE * max(live.sum(), 1))]
    whole = used[:, live].any(axis=1)
    if not any((k == whole).all() for k in kept):
        kept.append(np.asarray(whole))
    kept.sort(key=lambda k: int((k * counts).sum()))
    choice = [next(j for j, k in enumerate(kept) if (k >= found[:, i]).all()) for i in range(found.shape[1])]
    chosen = sorted(set(choice))
    pattern_of_site = np.zeros(len(live), dtype=np.int32)
    pattern_of_site[live] = np.array([chosen.index(choice[i]) for i in range(found.shape[1])], dtype=np.int32)[kind]
    return tuple(tuple(np.flatnonzero(kept[j]).tolist()) for j in chosen), pattern_of_site
