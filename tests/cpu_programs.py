"""Programs built by hand for the tests of the CPU backend."""

from __future__ import annotations

from typing import Any

import numpy as np

from pixelfast.likelihoods import Categorical
from pixelfast.program import (
    Buffer,
    Contraction,
    Input,
    Instruction,
    Kernel,
    Load,
    Operand,
    Output,
    Program,
    Store,
    Term,
)


def int32(values: Any) -> np.ndarray:
    return np.ascontiguousarray(values, dtype=np.int32)


def one_pixel_program(
    conditions: list[int], out_channels: int, registers: list[int], instructions: list[Instruction]
) -> Program:
    """An image of one pixel: register i < len(conditions) holds condition i, the last one is the output."""
    count = len(conditions)
    buffers = [Buffer("input", "input", 1, 1)]
    buffers += [Buffer(f"condition{i}", "condition", c, 1) for i, c in enumerate(conditions)]
    buffers.append(Buffer("out", "state", out_channels, 1))
    kernel = Kernel(
        name="all",
        sites=1,
        registers=tuple(registers),
        contraction=None,
        loads=tuple(Load(i, 1 + i, None, (0, c)) for i, c in enumerate(conditions)),
        instructions=tuple(instructions),
        stores=(Store(len(registers) - 1, 0, out_channels, 1 + count, 0, 0),),
    )
    return Program(
        shape=(1, 1, 1),
        buffers=tuple(buffers),
        tables=(int32([0]),),
        kernels=(kernel,),
        tasks=int32([[0, 0, 0, 1]]),
        sites=int32([0]),
        input=Input((0,), 1.0, 0.0, None),
        outputs=(Output(1 + count, 0),),
        flops=0.0,
    )


def operation_program(op: str, args: list[Any], kwargs: dict[str, Any], width: int) -> Program:
    """out = op(args), `width` channels; arguments that are None become condition registers, in order."""
    conditions = [a for a in args if a is None]
    numbered = iter(range(len(conditions)))
    operands = tuple(Operand(next(numbered)) if a is None else a for a in args)
    registers = [width] * (len(conditions) + 1)
    instruction = Instruction(op, len(conditions), 0, width, operands, tuple(kwargs.items()))
    return one_pixel_program([width] * len(conditions), width, registers, [instruction])


def random_program(rng: np.random.Generator, height: int = 4, width: int = 5) -> tuple[Program, Categorical]:
    """A small network of one channel.

    Rows above give a vertical stack, computed a row at a time; the pixels to the left a horizontal one; then
    a 1x1 output. Widths and weights are random; borders give several patterns.
    """
    levels = int(rng.integers(2, 40))
    vertical, horizontal = (int(n) for n in rng.integers(1, 90, 2))
    sites = height * width
    y, x = np.divmod(np.arange(sites), width)
    tables: list[np.ndarray] = []

    def shifted(dy: int, dx: int) -> int:
        inside = (y + dy >= 0) & (x + dx >= 0) & (x + dx < width)
        tables.append(int32(np.where(inside, (y + dy) * width + x + dx, -1)))
        return len(tables) - 1

    here = shifted(0, 0)
    buffers = (
        Buffer("input", "input", 1, sites),
        Buffer("vertical", "state", 2 * vertical, sites),
        Buffer("horizontal", "state", horizontal, sites),
        Buffer("out", "state", levels, sites),
        Buffer("positions", "constant", 3, sites, rng.normal(size=(sites, 3))),
        Buffer("condition", "condition", 4, 1),
    )

    def contraction(register: int, taps: list[tuple[int, int, int, int, int]], outs: int) -> Contraction:
        """taps: (buffer, dy, dx, start, count)."""
        terms = []
        for buffer, dy, dx, start, count in taps:
            weight = rng.normal(size=(count, outs)) / np.sqrt(count * len(taps))
            terms.append(Term(buffer, shifted(dy, dx), start, weight))
        active = np.stack([tables[t.table] >= 0 for t in terms], axis=1)
        unique, pattern = np.unique(active, axis=0, return_inverse=True)
        patterns = tuple(tuple(np.flatnonzero(row).tolist()) for row in unique)
        bias = rng.normal(size=outs) if rng.integers(2) else None
        return Contraction(register, tuple(terms), bias, patterns, int32(pattern.reshape(-1)))

    up = Kernel(
        "vertical",
        sites,
        (vertical, vertical, 2 * vertical, 4, 3),
        contraction(0, [(0, -1, -1, 0, 1), (0, -1, 0, 0, 1), (0, -1, 1, 0, 1), (4, 0, 0, 1, 2)], vertical),
        (Load(3, 5, None, np.array([3, 0, 2, 1])), Load(4, 4, here, (0, 3))),
        (
            Instruction("aten.tanh.default", 1, 0, vertical, (Operand(0),)),
            Instruction("copy", 2, 0, vertical, (Operand(1),)),
            Instruction("aten.mul.Tensor", 2, vertical, vertical, (Operand(0), Operand(4, 1, 0))),
            Instruction("aten.add.Tensor", 2, 0, vertical, (Operand(2), Operand(3, 2, 0)), (("alpha", 0.5),)),
        ),
        (Store(2, 0, 2 * vertical, 1, here, 0),),
    )
    start = int(rng.integers(0, vertical))
    left = Kernel(
        "horizontal",
        sites,
        (horizontal, horizontal, horizontal),
        contraction(
            0,
            [(0, 0, -1, 0, 1), (2, 0, -1, 0, horizontal), (1, 0, 0, start, 2 * vertical - start)],
            horizontal,
        ),
        (Load(1, 2, shifted(0, -2), (0, horizontal)),),
        (
            Instruction("aten.elu.default", 2, 0, horizontal, (Operand(0),)),
            Instruction("aten.add.Tensor", 2, 0, horizontal, (Operand(2), Operand(1))),
        ),
        (Store(2, 0, horizontal, 2, here, 0),),
    )
    out = Kernel(
        "out",
        sites,
        (levels,),
        contraction(0, [(2, 0, 0, 0, horizontal), (1, 0, 0, 0, vertical)], levels),
        (),
        (),
        (Store(0, 0, levels, 3, here, 0),),
    )
    tasks = []
    for site in range(sites):
        if site % width == 0:
            tasks.append((site, 0, site, width))
        tasks += [(site, 1, site, 1), (site, 2, site, 1)]
    program = Program(
        shape=(1, height, width),
        buffers=buffers,
        tables=tuple(tables),
        kernels=(up, left, out),
        tasks=int32(tasks),
        sites=int32(np.arange(sites)),
        input=Input((0,), 2.0 / (levels - 1), -1.0, None),
        outputs=(Output(3, here),),
        flops=0.0,
    )
    return program, Categorical(levels)
