"""Gated blocks on the CPU: `csrc/ops_gated_block.h`, where nothing between the inputs and the results is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pixelfast import _C

from . import gated_block_parts as parts
from . import masked_conv_cpu
from .masked_conv_cpu import LARGEST_SCRATCH, memory
from .masked_conv_layout import empty_result


def _sizes(v: Tensor, h: Tensor, weights: Sequence[Tensor], dilation: int) -> dict[str, Any]:
    return {
        "dtype": str(h.dtype).removeprefix("torch."),
        "gates_v": parts.gates(v, h),
        "sizes": tuple(h.shape),
        "reach": weights[0].shape[2] - 1,
        "dilation": dilation,
    }


def _inputs(
    v: Tensor, h: Tensor, weights: Sequence[Tensor], v_condition: Tensor | None, h_condition: Tensor | None
) -> dict[str, Any]:
    """The weights must be dense, and outlive the call."""
    return {
        "v": memory(v),
        "v_condition": None if v_condition is None else memory(v_condition.expand_as(v)),
        "h": memory(h),
        "h_condition": None if h_condition is None else memory(h_condition.expand(h.shape[0], -1, *h.shape[2:])),
        "weights": tuple(weight.data_ptr() for weight in weights),
        "threads": torch.get_num_threads(),
    }


def block(
    v: Tensor,
    h: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    v_condition: Tensor | None,
    h_condition: Tensor | None,
    dilation: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `gated_block`."""
    sizes = _sizes(v, h, weights, dilation)
    if _C.gated_block_scratch_bytes(**sizes) > LARGEST_SCRATCH:
        return parts.forward(masked_conv_cpu.conv, v, h, weights, biases, v_condition, h_condition, dilation)
    weights, biases = [w.contiguous() for w in weights], [b.contiguous() for b in biases]
    above, left = empty_result(h, 2 * h.shape[1]), empty_result(h, 2 * h.shape[1])
    out = empty_result(h, h.shape[1])
    _C.gated_block(
        **sizes,
        **_inputs(v, h, weights, v_condition, h_condition),
        biases=tuple(bias.data_ptr() for bias in biases),
        above=memory(above),
        left=memory(left),
        out=memory(out),
    )
    return above, left, out


def block_backward(
    above_gradient: Tensor | None,
    out_gradient: Tensor,
    v: Tensor,
    h: Tensor,
    above: Tensor,
    left: Tensor,
    weights: Sequence[Tensor],
    v_condition: Tensor | None,
    h_condition: Tensor | None,
    dilation: int,
    needs: Sequence[bool],
) -> tuple[Tensor, ...]:
    """See `gated_block`."""
    sizes = _sizes(v, h, weights, dilation)
    if _C.gated_block_scratch_bytes(**sizes) > LARGEST_SCRATCH:
        saved = (v, h, above, left, weights, v_condition, h_condition)
        return parts.backward(masked_conv_cpu.conv_backward, above_gradient, out_gradient, *saved, dilation, needs)
    weights = [w.contiguous() for w in weights]
    found = parts.empty_gradients(v, h, left, weights, needs)
    tensors = [memory(t) if needed else None for t, needed in zip(found[:3], needs[:3], strict=True)]
    addresses = [t.data_ptr() if needed else None for t, needed in zip(found[3:], needs[3:], strict=True)]
    _C.gated_block_gradient(
        **sizes,
        **_inputs(v, h, weights, v_condition, h_condition),
        above=memory(above),
        left=memory(left),
        above_gradient=memory(above_gradient),
        out_gradient=memory(out_gradient),
        v_gradient=tensors[0],
        h_gradient=tensors[1],
        left_gradient=tensors[2],
        weight_gradients=tuple(addresses[:4]),
        bias_gradients=tuple(addresses[4:]),
    )
    return found
