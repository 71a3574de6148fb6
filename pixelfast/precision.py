"""Low precision: what the contractions of a program take where that is asked for, and what their numbers become.

bfloat16: weights and inputs of such a contraction are rounded to nearest, ties to even. int8: they become codes,
integers from -127 to 127, times a scale: of the output channel for weights, of the slot for inputs, found anew whenever
a slot is written; within a term sums of codes are exact. Sums over terms, everything computed from them, and what is
kept between kernels for other readers stay float32.

Contractions that read the image, and those in the kernels that make the likelihood's parameters, stay float32
altogether: there is little work in them, an 8-bit level does not survive the rounding, and neither do the logits of
rare levels. What contractions of the image have computed still holds that level, so those that read it take bfloat16
where the others take codes: on the shipped network that saves four fifths of the bits/dim that codes would cost.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .program import Program

LOW_PRECISION = (torch.bfloat16, torch.int8)
LARGEST_CODE = 127
SMALLEST_MAGNITUDE = 2.0**-100
"""A slot with nothing larger counts as zero: its scale could not be divided by."""


def narrow_kernels(program: Program) -> frozenset[int]:
    """Indices of the kernels whose contraction takes numbers of low precision."""
    inputs = {index for index, buffer in enumerate(program.buffers) if buffer.kind == "input"}
    outputs = {output.buffer for output in program.outputs}
    return frozenset(
        index
        for index, kernel in enumerate(program.kernels)
        if kernel.contraction is not None
        and not any(term.buffer in inputs for term in kernel.contraction.terms)
        and not any(store.buffer in outputs for store in kernel.stores)
    )


def contraction_types(program: Program, dtype: torch.dtype) -> list[torch.dtype]:
    """What the contraction of each kernel takes when a program runs in `dtype`; `dtype` itself unless that is low."""
    if dtype not in LOW_PRECISION:
        return [dtype] * len(program.kernels)
    narrow, near = narrow_kernels(program), kernels_next_to_the_image(program)
    types = []
    for index in range(len(program.kernels)):
        low = torch.bfloat16 if index in near else dtype
        types.append(low if index in narrow else torch.float32)
    return types


def kernels_next_to_the_image(program: Program) -> frozenset[int]:
    """Indices of the kernels whose contraction reads what was computed by a contraction of the image, and no other."""
    image = {index for index, buffer in enumerate(program.buffers) if buffer.kind == "input"}
    next_to_image: set[int] = set()  # buffers
    found = []
    for index, kernel in enumerate(program.kernels):
        if kernel.contraction is not None:
            sources = {term.buffer for term in kernel.contraction.terms}
            if sources & next_to_image:
                found.append(index)
            adds = bool(sources & image)
        else:
            loaded = {load.buffer for load in kernel.loads}
            adds = bool(loaded) and loaded <= next_to_image
        if adds:
            next_to_image |= {store.buffer for store in kernel.stores}
    return frozenset(found)


def coded_weights(weights: Sequence[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    """Codes and scales of the terms of a contraction: weight = code * scale, nearly.

    weights: (count, columns) float64 each. Codes: the same shapes, integers in float64. Scales: (columns,) float64,
    each of them a float32.
    """
    largest = np.max([np.abs(weight).max(axis=0) for weight in weights], axis=0)
    scales = (largest / LARGEST_CODE).astype(np.float32).astype(np.float64)
    divisors = np.where(scales > 0, scales, 1.0)
    return [np.clip(np.rint(weight / divisors), -LARGEST_CODE, LARGEST_CODE) for weight in weights], scales


def coded_slots(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and scales of slots: value = code * scale, nearly.

    values: (..., channels) float32. Codes: the same shape, integers in float64. Scales: (..., 1) float32, NaN where a
    slot holds NaN or infinity.
    """
    largest = values.abs().amax(dim=-1, keepdim=True)
    # A number divided by a tensor would be its reciprocal times the number: two roundings.
    codes = torch.round(values * (torch.full_like(largest, LARGEST_CODE) / largest)).to(torch.float64)
    small = largest < SMALLEST_MAGNITUDE
    finite = torch.isfinite(largest)
    scales = torch.where(small, 0.0, torch.where(finite, largest / LARGEST_CODE, torch.nan))
    return torch.where(finite & ~small, codes, 0.0), scales
