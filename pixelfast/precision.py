"""Which contractions a program runs in bfloat16, where that is asked for.

Weights and inputs of such a contraction are rounded to bfloat16 (to nearest, ties to even); sums, everything computed
from them, and what is kept between kernels for other readers stay float32. Contractions that read the image, and those
in the kernels that make the likelihood's parameters, stay float32 altogether: there is little work in them, an
8-bit level does not survive the rounding, and neither do the logits of rare levels.
"""

from __future__ import annotations

from .program import Program


def narrow_kernels(program: Program) -> frozenset[int]:
    """Indices of the kernels whose contraction takes bfloat16 numbers."""
    inputs = {index for index, buffer in enumerate(program.buffers) if buffer.kind == "input"}
    outputs = {output.buffer for output in program.outputs}
    return frozenset(
        index
        for index, kernel in enumerate(program.kernels)
        if kernel.contraction is not None
        and not any(term.buffer in inputs for term in kernel.contraction.terms)
        and not any(store.buffer in outputs for store in kernel.stores)
    )
