"""Hands a program to the extension: the same content as tuples and arrays, sums cut into blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .. import _C
from ..likelihoods import Bernoulli, Categorical, DiscretizedLogisticMixture, Likelihood
from ..precision import narrow_kernels
from ..program import Contraction, Instruction, Kernel, Load, Operand, Program, k_blocks
from .cpu_instructions import Argument, translate

NO_TABLE = -1
NO_BUFFER = -1
PAIR = 2
"""Channels that a contraction of bfloat16 numbers multiplies at once."""


def head_of(likelihood: Likelihood) -> tuple[str, int, int] | None:
    """(kind, levels, mixtures) as the extension knows the likelihood; None where it does not."""
    if isinstance(likelihood, DiscretizedLogisticMixture):
        return "mixture", likelihood.levels, likelihood.mixtures
    if isinstance(likelihood, Categorical):
        return "categorical", likelihood.levels, 0
    if isinstance(likelihood, Bernoulli):
        return "bernoulli", 2, 0
    return None


def build_engine(program: Program, likelihood: Likelihood, isa: str, dtype: torch.dtype) -> _C.Engine:
    """Packs the weights and checks the program.

    dtype: float32 or bfloat16.

    Raises:
        ValueError: the program is malformed, or the CPU lacks the instruction set.
    """
    head = head_of(likelihood)
    if head is None:
        raise ValueError(f"no kernel for {likelihood}")
    low = dtype == torch.bfloat16
    narrow = narrow_kernels(program) if low else frozenset()
    return _C.Engine(
        isa=isa,
        precision="bfloat16" if low else "float32",
        shape=list(program.shape),
        buffers=[
            (
                b.kind == "constant",
                b.channels,
                b.slots,
                None if b.data is None else np.ascontiguousarray(b.data, dtype=np.float32),
            )
            for b in program.buffers
        ],
        tables=[np.ascontiguousarray(t, dtype=np.int32) for t in program.tables],
        kernels=[_kernel(k, i in narrow) for i, k in enumerate(program.kernels)],
        tasks=np.ascontiguousarray(program.tasks, dtype=np.int32),
        sites=np.ascontiguousarray(program.sites, dtype=np.int32),
        input=(
            [NO_BUFFER if b is None else b for b in program.input.buffers],
            program.input.scale,
            program.input.offset,
            program.input.table,
        ),
        outputs=[(o.buffer, o.table) for o in program.outputs],
        head=head,
        lookahead=program.lookahead,
        ahead_tables=[np.ascontiguousarray(t, dtype=np.int32) for t in program.ahead_tables],
    )


def _kernel(kernel: Kernel, narrow: bool) -> tuple[Any, ...]:
    return (
        kernel.sites,
        list(kernel.registers),
        None if kernel.contraction is None else _contraction(kernel.contraction, narrow),
        [_load(load) for load in kernel.loads],
        [_instruction(i) for i in kernel.instructions],
        [(s.register, s.start, s.count, s.buffer, s.table, s.channel) for s in kernel.stores],
    )


def _contraction(contraction: Contraction, narrow: bool) -> tuple[Any, ...]:
    counts = [len(t.weight) for t in contraction.terms]
    return (
        contraction.register,
        contraction.out_channels,
        [
            (t.buffer, t.table, t.start, len(t.weight), np.ascontiguousarray(t.weight, dtype=np.float64))
            for t in contraction.terms
        ],
        None if contraction.bias is None else np.ascontiguousarray(contraction.bias, dtype=np.float64),
        [_segments(pattern, counts, PAIR if narrow else 1) for pattern in contraction.patterns],
        np.ascontiguousarray(contraction.pattern_of_site, dtype=np.int32),
        narrow,
    )


def _segments(pattern: tuple[int, ...], counts: list[int], step: int) -> np.ndarray:
    """(segments, 4) int32: term, first channel, channels, whether a block ends here."""
    rows = [
        (pattern[position], first, last - first, piece == len(block) - 1)
        for block in k_blocks([counts[term] for term in pattern], step)
        for piece, (position, first, last) in enumerate(block)
    ]
    return np.array(rows, dtype=np.int32).reshape(-1, 4)


def _load(load: Load) -> tuple[Any, ...]:
    table = NO_TABLE if load.table is None else load.table
    if isinstance(load.channels, tuple):
        return load.register, load.buffer, table, *load.channels, None
    return load.register, load.buffer, table, 0, 0, np.ascontiguousarray(load.channels, dtype=np.int32)


def _instruction(instruction: Instruction) -> tuple[Any, ...]:
    place = instruction.register, instruction.start, instruction.width
    if instruction.op.startswith("reduce."):
        r = instruction.args[0]
        window = r.outer, r.inner, r.count
        return instruction.op.removeprefix("reduce."), *place, [(r.register, r.start, 0)], window
    name, arguments = translate(instruction)
    return name, *place, [_argument(a) for a in arguments], None


def _argument(argument: Argument) -> tuple[int, int, int] | float:
    if isinstance(argument, Operand):
        return argument.register, argument.start, argument.stride
    return argument
