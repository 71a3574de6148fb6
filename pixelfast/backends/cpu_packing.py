"""Hands a program to the extension: the same content as tuples and arrays, sums cut into blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .. import _C
from ..likelihoods import Bernoulli, Categorical, DiagonalGaussian, DiscretizedLogisticMixture, Likelihood
from ..precision import coded_weights, contraction_types
from ..program import Attended, Attention, Contraction, Instruction, Kernel, Load, Operand, Program, k_blocks
from .cpu_instructions import Argument, translate

NO_TABLE = -1
NO_BUFFER = -1
PAIR = 2
"""Channels that a contraction of bfloat16 numbers multiplies at once."""
FLOAT32, BFLOAT16, INT8 = "float32", "bfloat16", "int8"
PRECISIONS = {torch.float32: FLOAT32, torch.bfloat16: BFLOAT16, torch.int8: INT8}
"""As the extension names them."""


Codes = dict[tuple[int, ...], tuple[list[np.ndarray], np.ndarray]]
"""What weights become in int8, by the identity of their arrays: the extension keeps equal weights once where their
arrays are the same."""


def head_of(likelihood: Likelihood) -> tuple[str, int, int] | None:
    """(kind, levels, mixtures) as the extension knows the likelihood; None where it does not."""
    if isinstance(likelihood, DiscretizedLogisticMixture):
        return "mixture", likelihood.levels, likelihood.mixtures
    if isinstance(likelihood, Categorical):
        return "categorical", likelihood.levels, 0
    if isinstance(likelihood, Bernoulli):
        return "bernoulli", 2, 0
    if isinstance(likelihood, DiagonalGaussian):
        return "gaussian", 0, 0
    return None


def build_engine(program: Program, likelihood: Likelihood, isa: str, dtype: torch.dtype) -> _C.Engine:
    """Packs the weights and checks the program.

    dtype: float32, bfloat16 or int8.

    Raises:
        ValueError: the program is malformed, or the CPU lacks the instruction set.
    """
    head = head_of(likelihood)
    if head is None:
        raise ValueError(f"no kernel for {likelihood}")
    types = contraction_types(program, dtype)
    codes: Codes = {}
    return _C.Engine(
        isa=isa,
        precision=PRECISIONS[dtype],
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
        kernels=[_kernel(k, PRECISIONS[t], codes) for k, t in zip(program.kernels, types, strict=True)],
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


def _kernel(kernel: Kernel, precision: str, codes: Codes) -> tuple[Any, ...]:
    return (
        kernel.sites,
        list(kernel.registers),
        None if kernel.contraction is None else _contraction(kernel.contraction, precision, codes),
        [_load(load) for load in kernel.loads],
        [_instruction(i) for i in kernel.instructions],
        [(s.register, s.start, s.count, s.buffer, s.table, s.channel) for s in kernel.stores],
        None if kernel.attention is None else _attention(kernel.attention),
    )


def _contraction(contraction: Contraction, precision: str, codes: Codes) -> tuple[Any, ...]:
    counts = [len(t.weight) for t in contraction.terms]
    weights, scales = [t.weight for t in contraction.terms], None
    if precision == INT8:
        key = tuple(id(weight) for weight in weights)
        if key not in codes:
            codes[key] = coded_weights(weights)
        weights, scales = codes[key]
    return (
        contraction.register,
        contraction.out_channels,
        [
            (t.buffer, t.table, t.start, len(w), np.ascontiguousarray(w, dtype=np.float64))
            for t, w in zip(contraction.terms, weights, strict=True)
        ],
        None if contraction.bias is None else np.ascontiguousarray(contraction.bias, dtype=np.float64),
        [_segments(pattern, counts, precision) for pattern in contraction.patterns],
        np.ascontiguousarray(contraction.pattern_of_site, dtype=np.int32),
        precision,
        scales,
    )


def _attention(attention: Attention) -> tuple[Any, ...]:
    def part(attended: Attended) -> tuple[int, ...]:
        return attended.buffer, attended.table, attended.start, attended.width

    return (
        attention.register,
        part(attention.query),
        part(attention.keys),
        part(attention.values),
        np.ascontiguousarray(attention.first, dtype=np.int32),
        attention.heads,
        attention.scale,
        attention.epsilon,
        None if attention.bias is None else np.ascontiguousarray(attention.bias, dtype=np.float64),
    )


def _segments(pattern: tuple[int, ...], counts: list[int], precision: str) -> np.ndarray:
    """(segments, 4) int32: term, first channel, channels, whether a block ends here. A block of codes is a term."""
    if precision == INT8:
        return np.array([(term, 0, counts[term], True) for term in pattern], dtype=np.int32).reshape(-1, 4)
    step = PAIR if precision == BFLOAT16 else 1
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
