"""A block of a Gated PixelCNN as one operation for training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pixelfast.errors import ShapeError

from . import gated_block_parts as parts
from . import masked_conv_torch
from .gated import gated_conv, gated_conv_reference
from .implementations import CPU_REMEDY, implementation
from .masked_conv import masked_conv, masked_conv_reference
from .masked_conv_core import (
    FLOATS,
    LARGEST_REACH,
    autocasts,
    cast,
    check_alike,
    check_condition,
    check_filled,
    torch_is_faster,
)
from .masked_conv_layout import empty_result


def gated_block(
    v: Tensor,
    h: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    *,
    v_condition: Tensor | None = None,
    h_condition: Tensor | None = None,
    dilation: int = 1,
) -> tuple[Tensor, Tensor]:
    """One layer of the vertical and the horizontal stack.

        above = vertical(gate(v + v_condition)), or vertical(v) where v has as many channels as h
        left  = horizontal(h) + link(above)
        out   = h + mix(gate(left + h_condition)),    gate(a, b) = tanh(a) * sigmoid(b) of the channels' halves

    What is kept for the backward pass is v, h, above and left. On the CPU everything else stays in the cache; on other
    devices the block is `masked_conv` and `gated_conv`. On a CPU that multiplies bfloat16 itself such a block is plain
    torch, which keeps more. Differentiable once, in every tensor.
    van den Oord et al., "Conditional Image Generation with PixelCNN Decoders", 2016, figure 2.

    Args:
        v: (N, 2 F, H, W) before its gate, or (N, F, H, W).
        h: (N, F, H, W), float32, float64, float16 or bfloat16; 16-bit floats are computed in float32.
        weights: of vertical (2 F, F, r, 2 r - 1), horizontal (2 F, F, 1, r), link (2 F, 2 F, 1, 1) and mix
            (F, F, 1, 1): live rows and columns of kernels of 2 r - 1. Autocast casts every argument.
        biases: of the same.
        v_condition: broadcastable to v, of all its channels; only where v is gated.
        h_condition: broadcastable to (N, 2 F, H, W), of all channels.
        dilation: distance of neighbouring taps.

    Returns:
        above, (N, 2 F, H, W), which the next block takes as its v, and out, (N, F, H, W).

    Raises:
        ShapeError: shapes or dtypes do not fit.
        BackendError: the kernels cannot be loaded.
    """
    if autocasts(h):
        v, h = cast(v), cast(h)
        weights, biases = [cast(weight) for weight in weights], [cast(bias) for bias in biases]
        v_condition, h_condition = (None if t is None else cast(t) for t in (v_condition, h_condition))
    _check(v, h, weights, biases, v_condition, h_condition, dilation)
    if torch_is_faster(h):
        return parts.composed(
            masked_conv_reference, gated_conv_reference, v, h, weights, biases, v_condition, h_condition, dilation
        )
    if h.device.type != "cpu":
        return parts.composed(masked_conv, gated_conv, v, h, weights, biases, v_condition, h_condition, dilation)
    above, _, out = torch.ops.pixelfast.gated_block(v, h, *weights, *biases, v_condition, h_condition, dilation)
    return above, out


def gated_block_reference(
    v: Tensor,
    h: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    *,
    v_condition: Tensor | None = None,
    h_condition: Tensor | None = None,
    dilation: int = 1,
) -> tuple[Tensor, Tensor]:
    """`gated_block` in plain torch."""
    return parts.composed(
        masked_conv_reference, gated_conv_reference, v, h, weights, biases, v_condition, h_condition, dilation
    )


def _check(
    v: Tensor,
    h: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    v_condition: Tensor | None,
    h_condition: Tensor | None,
    dilation: int,
) -> None:
    if h.ndim != 4 or h.dtype not in FLOATS or len(weights) != 4 or len(biases) != 4:
        raise ShapeError(
            f"h has dtype {h.dtype} and shape {tuple(h.shape)}, with {len(weights)} weights and {len(biases)} biases; "
            "it must be floats (N, F, H, W), with 4 of each"
        )
    images, features, height, width = h.shape
    if v.shape not in ((images, features, height, width), (images, 2 * features, height, width)):
        raise ShapeError(
            f"v has shape {tuple(v.shape)} and h {tuple(h.shape)}; v must have as many channels, or twice as many"
        )
    check_filled(h, *weights)
    rows = weights[0].shape[2] if weights[0].ndim == 4 else 1
    pair = 2 * features
    shapes = [(pair, features, rows, 2 * rows - 1), (pair, features, 1, rows), (pair, pair, 1, 1)]
    shapes.append((features, features, 1, 1))
    for name, weight, bias, shape in zip(
        ("vertical", "horizontal", "link", "mix"), weights, biases, shapes, strict=True
    ):
        if weight.shape != shape or bias.shape != shape[:1]:
            raise ShapeError(
                f"the {name} weight has shape {tuple(weight.shape)} and its bias {tuple(bias.shape)}; for {features} "
                f"features and {rows} rows they must be {shape} and {shape[:1]}"
            )
    if not isinstance(dilation, int) or not 1 <= dilation <= LARGEST_REACH // max(rows, height, width):
        raise ShapeError(f"dilation is {dilation}; it must be an integer from 1, and not absurdly large")
    if v_condition is not None and not parts.gates(v, h):
        raise ShapeError("v has as many channels as h, so it has no gate to condition; leave v_condition out")
    check_condition(v, v_condition)
    check_condition(v.new_empty((images, pair, height, width), device="meta"), h_condition)
    check_alike(h, v, *weights, *biases, v_condition, h_condition)


def _cpu() -> Any:
    return implementation("pixelfast.ops.gated_block_cpu", "gated_block", CPU_REMEDY)


@torch.library.custom_op("pixelfast::gated_block", mutates_args=())
def _block(
    v: Tensor,
    h: Tensor,
    vertical: Tensor,
    horizontal: Tensor,
    link: Tensor,
    mix: Tensor,
    vertical_bias: Tensor,
    horizontal_bias: Tensor,
    link_bias: Tensor,
    mix_bias: Tensor,
    v_condition: Tensor | None,
    h_condition: Tensor | None,
    dilation: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """above, left and out. `left` is for the backward pass alone: nothing comes back through it."""
    weights, biases = [vertical, horizontal, link, mix], [vertical_bias, horizontal_bias, link_bias, mix_bias]
    return parts.forward(masked_conv_torch.conv, v, h, weights, biases, v_condition, h_condition, dilation)


@torch.library.custom_op("pixelfast::gated_block_backward", mutates_args=())
def _block_backward(
    above_gradient: Tensor | None,
    out_gradient: Tensor,
    v: Tensor,
    h: Tensor,
    above: Tensor,
    left: Tensor,
    vertical: Tensor,
    horizontal: Tensor,
    link: Tensor,
    mix: Tensor,
    v_condition: Tensor | None,
    h_condition: Tensor | None,
    dilation: int,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of v, h, left, the weights and the biases, those that `needs` names; empty for the others."""
    saved = (v, h, above, left, [vertical, horizontal, link, mix], v_condition, h_condition)
    found = parts.backward(masked_conv_torch.conv_backward, above_gradient, out_gradient, *saved, dilation, needs)
    return found  # type: ignore[return-value]  # eleven


@_block.register_kernel("cpu")
def _(v: Tensor, h: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _cpu().block(v, h, others[:4], others[4:8], *others[8:])


@_block_backward.register_kernel("cpu")
def _(*arguments: Any) -> tuple[Tensor, ...]:
    return _cpu().block_backward(*arguments[:6], arguments[6:10], *arguments[10:])


@_block.register_fake
def _(v: Tensor, h: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    pair = 2 * h.shape[1]
    return empty_result(h, pair), empty_result(h, pair), empty_result(h, h.shape[1])


@_block_backward.register_fake
def _(
    above_gradient: Tensor | None,
    out_gradient: Tensor,
    v: Tensor,
    h: Tensor,
    above: Tensor,
    left: Tensor,
    *others: Any,
) -> tuple[Tensor, ...]:
    return parts.empty_gradients(v, h, left, others[:4], others[-1])


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    v, h, *others = inputs
    above, left, _ = output
    ctx.save_for_backward(v, h, above, left, *others[:4], *others[8:10])
    ctx.dilation = others[10]
    ctx.set_materialize_grads(False)


def _backward(
    ctx: Any, of_above: Tensor | None, of_left: Tensor | None, of_out: Tensor | None
) -> tuple[Tensor | None, ...]:
    v, h, above, left, *weights, v_condition, h_condition = ctx.saved_tensors
    asked = ctx.needs_input_grad
    needs = [asked[0] or asked[10], asked[1], asked[11], *asked[2:10]]
    if of_out is None:
        of_out = torch.zeros_like(h)
    found = torch.ops.pixelfast.gated_block_backward(
        of_above, of_out, v, h, above, left, *weights, v_condition, h_condition, ctx.dilation, needs
    )
    gradients = [gradient if needed else None for gradient, needed in zip(found, needs, strict=True)]
    of_v, of_h, of_gate = gradients[:3]

    def summed(gradient: Tensor | None, condition: Tensor) -> Tensor:
        assert gradient is not None
        return gradient.contiguous().sum_to_size(condition.shape)

    return (
        of_v if asked[0] else None,
        of_h,
        *gradients[3:],
        summed(of_v, v_condition) if asked[10] else None,
        summed(of_gate, h_condition) if asked[11] else None,
        None,
    )


_block.register_autograd(_backward, setup_context=_save)
