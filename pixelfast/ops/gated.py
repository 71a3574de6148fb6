"""Gates of PixelCNNs: alone, with a residual, or in front of a convolution; their halves are never kept."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelfast.errors import PixelfastError, ShapeError

from .implementations import CPU_REMEDY, CUDA_REMEDY, implementation
from .masked_conv import Padding
from .masked_conv_activations import gate, gate_gradient, padded
from .masked_conv_core import (
    FLOATS,
    activated_conv,
    autocasts,
    check_alike,
    check_condition,
    check_filled,
    masked_weight,
)
from .masked_conv_layout import empty_result, memory_format

KINDS = ("tanh", "linear")


def gated(x: Tensor, *, kind: str = "tanh", condition: Tensor | None = None, residual: Tensor | None = None) -> Tensor:
    """residual + tanh(a) * sigmoid(b), with a and b the halves of the channels of x + condition.

    One forward and one backward pass; x and the condition are all that is kept between them. Differentiable once.
    van den Oord et al., "Conditional Image Generation with PixelCNN Decoders", 2016, equation 4; the linear gate:
    Dauphin et al., "Language Modeling with Gated Convolutional Networks", 2017.

    Args:
        x: (N, 2 C, H, W), float32, float64, float16 or bfloat16, any strides; 16-bit floats are computed in float32.
        kind: "tanh", or "linear": a instead of tanh(a).
        condition: broadcastable to x, of 2 C channels.
        residual: (N, C, H, W).

    Returns:
        (N, C, H, W) in the dtype of x, channels-last if x is. Autocast changes nothing.

    Raises:
        ShapeError, PixelfastError: an argument does not fit.
        BackendError: the kernels cannot be loaded.
    """
    _check_kind(kind)
    if x.ndim != 4 or x.dtype not in FLOATS or x.shape[1] % 2:
        raise ShapeError(
            f"x has dtype {x.dtype} and shape {tuple(x.shape)}; it must be floats (N, channels, H, W) with an even "
            "number of channels"
        )
    check_filled(x)
    result = (x.shape[0], x.shape[1] // 2, *x.shape[2:])
    if residual is not None and residual.shape != result:
        raise ShapeError(f"the residual has shape {tuple(residual.shape)}; it must have the result's, {result}")
    if autocasts(x):
        condition, residual = (None if t is None else t.to(x.dtype) for t in (condition, residual))
    check_condition(x, condition)
    check_alike(x, condition, residual)
    return torch.ops.pixelfast.gated(x, condition, residual, kind)


def gated_reference(
    x: Tensor, *, kind: str = "tanh", condition: Tensor | None = None, residual: Tensor | None = None
) -> Tensor:
    """`gated` in plain torch."""
    out = gate(x, condition, kind)
    return out if residual is None else residual + out


def gated_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    kind: str = "tanh",
    condition: Tensor | None = None,
    padding: Padding = (0, 0, 0, 0),
    dilation: int = 1,
    mask: Tensor | None = None,
    added: Tensor | None = None,
) -> Tensor:
    """masked_conv(gated(x)): what `gated_conv_reference` returns, the gate's result never kept.

    Args:
        x: (N, 2 C, H, W), as in `gated`; kind and condition, too.
        weight: (out, C, rows, columns).
        bias, padding, dilation, mask, added: as in `masked_conv`.

    Returns:
        (N, out, H, W) in the dtype of x, channels-last if x is.

    Raises:
        ShapeError, PixelfastError: an argument does not fit.
        BackendError: the kernels cannot be loaded.
    """
    _check_kind(kind)
    weight = masked_weight(weight, mask)
    return activated_conv(
        x, weight, bias, kind=kind, padding=padding, dilation=dilation, condition=condition, added=added
    )


def gated_conv_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    kind: str = "tanh",
    condition: Tensor | None = None,
    padding: Padding = (0, 0, 0, 0),
    dilation: int = 1,
    mask: Tensor | None = None,
    added: Tensor | None = None,
) -> Tensor:
    """`gated_conv` in plain torch."""
    weight = weight if mask is None else weight * mask
    out = F.conv2d(padded(gate(x, condition, kind), padding), weight, bias, dilation=dilation)
    return out if added is None else out + added


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise PixelfastError(f"kind is {kind!r}; it must be one of {', '.join(KINDS)}")


def _cpu() -> Any:
    return implementation("pixelfast.ops.masked_conv_cpu", "gated", CPU_REMEDY)


def _cuda() -> Any:
    return implementation("pixelfast.ops.masked_conv_cuda", "gated", CUDA_REMEDY)


@torch.library.custom_op("pixelfast::gated", mutates_args=())
def _gated(x: Tensor, condition: Tensor | None, residual: Tensor | None, kind: str) -> Tensor:
    return gated_reference(x, kind=kind, condition=condition, residual=residual).contiguous(
        memory_format=memory_format(x)
    )


@torch.library.custom_op("pixelfast::gated_backward", mutates_args=())
def _gated_backward(upstream: Tensor, x: Tensor, condition: Tensor | None, kind: str) -> Tensor:
    return torch.empty_like(x).copy_(gate_gradient(upstream, x, condition, kind))


@_gated.register_kernel("cpu")
def _(x: Tensor, condition: Tensor | None, residual: Tensor | None, kind: str) -> Tensor:
    return _cpu().gate(x, condition, residual, kind)


@_gated_backward.register_kernel("cpu")
def _(upstream: Tensor, x: Tensor, condition: Tensor | None, kind: str) -> Tensor:
    return _cpu().gate_backward(upstream, x, condition, kind)


@_gated.register_kernel("cuda")
def _(x: Tensor, condition: Tensor | None, residual: Tensor | None, kind: str) -> Tensor:
    return _cuda().gate(x, condition, residual, kind)


@_gated_backward.register_kernel("cuda")
def _(upstream: Tensor, x: Tensor, condition: Tensor | None, kind: str) -> Tensor:
    return _cuda().gate_backward(upstream, x, condition, kind)


@_gated.register_fake
def _(x: Tensor, condition: Tensor | None, residual: Tensor | None, kind: str) -> Tensor:
    return empty_result(x, x.shape[1] // 2)


@_gated_backward.register_fake
def _(upstream: Tensor, x: Tensor, condition: Tensor | None, kind: str) -> Tensor:
    return torch.empty_like(x)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, condition, _, ctx.kind = inputs
    ctx.save_for_backward(x, condition)


def _backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    x, condition = ctx.saved_tensors
    needs_x, needs_condition, needs_residual, _ = ctx.needs_input_grad
    of_x = of_condition = None
    if needs_x or needs_condition:
        gradient = torch.ops.pixelfast.gated_backward(upstream, x, condition, ctx.kind)
        of_x = gradient if needs_x else None
        of_condition = gradient.contiguous().sum_to_size(condition.shape) if needs_condition else None
    return of_x, of_condition, upstream if needs_residual else None, None


_gated.register_autograd(_backward, setup_context=_save)
