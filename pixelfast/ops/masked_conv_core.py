"""The one registered operation behind `masked_conv`, `concat_elu_conv` and `gated_conv`.

    out = bias + added + convolution of activation(x), padded, with weight

What is kept for the backward pass is x (and the condition and a seed): the activation is computed again there. On the
CPU it is C++ where that was measured faster (`masked_conv_cpu`), on a GPU Triton (`masked_conv_cuda`), elsewhere
torch's own convolution of an activation that lives as long as the call.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelfast.errors import ShapeError

from . import masked_conv_torch
from .implementations import CPU_REMEDY, CUDA_REMEDY, implementation
from .masked_conv_activations import FACTORS, padded
from .masked_conv_layout import empty_result

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
LARGEST_REACH = 1 << 24
"""Of padding and dilation: no image is as large, and no product of sizes overflows."""
MULTIPLIES_BFLOAT16 = torch.cpu._is_avx512_bf16_supported()
"""Whether torch's convolutions of bfloat16 run on the processor's own products of them."""


def activated_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    kind: str,
    padding: tuple[int, int, int, int],
    dilation: int,
    condition: Tensor | None = None,
    added: Tensor | None = None,
    seed: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Casts as autocast asks, checks and calls the operation. The arguments are those of the public functions."""
    if autocasts(x):
        x, weight = cast(x), cast(weight)
        bias, condition, added = (None if tensor is None else cast(tensor) for tensor in (bias, condition, added))
    _check(x, weight, bias, condition, added, kind, padding, dilation)
    if kind == "none" and torch_is_faster(x):
        out = F.conv2d(padded(x, padding), weight, bias, dilation=dilation)
        return out if added is None else out + added
    return torch.ops.pixelfast.activated_conv(
        x, weight, bias, condition, added, seed, kind, list(padding), [dilation, dilation], dropout
    )


def torch_is_faster(x: Tensor) -> bool:
    """Whether plain torch takes less time than C++ where there is no activation to leave out, or only gates.

    The C++ multiplies floats. With AVX-512 BF16 a training step of a Gated PixelCNN of 64 features, 16 images of 28x28,
    took 1.38 times as long with it as the model in plain torch, and 1.01 to 1.05 times by this rule; with 32 features
    both took 1.07 times as long.
    """
    return x.device.type == "cpu" and x.dtype == torch.bfloat16 and MULTIPLIES_BFLOAT16


def autocasts(x: Tensor) -> bool:
    """Whether autocast is on for the device of x; torch knows none for the meta device."""
    return x.device.type != "meta" and torch.is_autocast_enabled(x.device.type)


def masked_weight(weight: Tensor, mask: Tensor | None) -> Tensor:
    """weight * mask. ShapeError unless the mask can be broadcast to the weight."""
    if mask is None:
        return weight
    sizes = zip(reversed(mask.shape), reversed(weight.shape), strict=False)
    if mask.ndim > weight.ndim or any(m not in (1, w) for m, w in sizes) or mask.device != weight.device:
        raise ShapeError(
            f"the mask has shape {tuple(mask.shape)} on {mask.device}; it must be broadcastable to the weight's, "
            f"{tuple(weight.shape)}, and on {weight.device}"
        )
    return weight * mask


def cast(tensor: Tensor) -> Tensor:
    """As autocast does before torch's own convolution: float64 stays."""
    return tensor if tensor.dtype == torch.float64 else tensor.to(torch.get_autocast_dtype(tensor.device.type))


def _check(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    condition: Tensor | None,
    added: Tensor | None,
    kind: str,
    padding: tuple[int, int, int, int],
    dilation: int,
) -> None:
    times, parts = FACTORS[kind]
    if x.ndim != 4 or weight.ndim != 4 or x.dtype not in FLOATS:
        raise ShapeError(
            f"x has dtype {x.dtype} and shape {tuple(x.shape)}, the weight has shape {tuple(weight.shape)}; they must "
            "be floats (N, C, H, W) and (out, in, rows, columns)"
        )
    if x.shape[1] % parts or weight.shape[1] * parts != x.shape[1] * times:
        raise ShapeError(
            f"x has {x.shape[1]} channels, which make {x.shape[1] * times / parts:g} features, and the weight takes "
            f"{weight.shape[1]}; they must be equal"
        )
    check_filled(x, weight)
    if not _is_reach(dilation, 1) or len(padding) != 4 or not all(_is_reach(p, -LARGEST_REACH) for p in padding):
        raise ShapeError(
            f"padding is {padding} and dilation {dilation}; they must be four integers (left, right, top, bottom) and "
            f"one from 1, up to {LARGEST_REACH}"
        )
    left, right, top, bottom = padding
    reach = (dilation * (weight.shape[2] - 1), dilation * (weight.shape[3] - 1))
    if (top + bottom, left + right) != reach:
        raise ShapeError(
            f"padding {padding} does not keep the image's size; left + right must be {reach[1]} and top + bottom "
            f"{reach[0]} for this kernel"
        )
    result = (x.shape[0], weight.shape[0], *x.shape[2:])
    if added is not None and added.shape != result:
        raise ShapeError(f"what is added has shape {tuple(added.shape)}; it must have the result's, {tuple(result)}")
    check_condition(x, condition)
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(f"the bias has shape {tuple(bias.shape)}; it must be ({weight.shape[0]},)")
    check_alike(x, weight, bias, condition, added)


def _is_reach(value: object, low: int) -> bool:
    return isinstance(value, int) and low <= value <= LARGEST_REACH


def check_filled(x: Tensor, *others: Tensor) -> None:
    """ShapeError where something has no elements, or is not laid out by strides. x may have no images."""
    for shape in (x.shape[1:], *(other.shape for other in others)):
        if 0 in shape:
            raise ShapeError(f"sizes {tuple(shape)} have a 0; only the number of images may be 0")
    for tensor in (x, *others):
        if tensor.layout != torch.strided:
            raise ShapeError(f"an argument has layout {tensor.layout}; only ordinary (strided) tensors are accepted")


def check_condition(x: Tensor, condition: Tensor | None) -> None:
    """ShapeError unless the condition is (N or 1, C, H or 1, W or 1) for x (N, C, H, W)."""
    if condition is None:
        return
    fits = condition.ndim == 4 and condition.shape[1] == x.shape[1]
    if not fits or any(c != 1 and c != s for c, s in zip(condition.shape, x.shape, strict=True)):
        raise ShapeError(
            f"the condition has shape {tuple(condition.shape)}; it must have four axes and all "
            f"channels, and be broadcastable to x's, {tuple(x.shape)}"
        )


def check_alike(x: Tensor, *others: Tensor | None) -> None:
    """ShapeError unless the others have the dtype and the device of x."""
    for other in others:
        if other is not None and (other.dtype, other.device, other.layout) != (x.dtype, x.device, x.layout):
            raise ShapeError(
                f"x is {x.dtype} on {x.device} ({x.layout}), another argument {other.dtype} on {other.device} "
                f"({other.layout}); convert one of them, or use autocast"
            )


def _cpu() -> Any:
    return implementation("pixelfast.ops.masked_conv_cpu", "masked_conv", CPU_REMEDY)


def _cuda() -> Any:
    return implementation("pixelfast.ops.masked_conv_cuda", "masked_conv", CUDA_REMEDY)


@torch.library.custom_op("pixelfast::activated_conv", mutates_args=())
def _conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    condition: Tensor | None,
    added: Tensor | None,
    seed: Tensor | None,
    kind: str,
    padding: list[int],
    dilation: list[int],
    dropout: float,
) -> Tensor:
    return masked_conv_torch.conv(x, weight, bias, condition, added, seed, kind, padding, dilation, dropout)


@torch.library.custom_op("pixelfast::activated_conv_backward", mutates_args=())
def _conv_backward(
    upstream: Tensor,
    x: Tensor,
    weight: Tensor,
    condition: Tensor | None,
    seed: Tensor | None,
    kind: str,
    padding: list[int],
    dilation: list[int],
    dropout: float,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias, those that `needs` names; empty for the others."""
    return masked_conv_torch.conv_backward(
        upstream, x, weight, condition, seed, kind, padding, dilation, dropout, needs
    )


@_conv.register_kernel("cpu")
def _(*args: Any) -> Tensor:
    return _cpu().conv(*args)


@_conv_backward.register_kernel("cpu")
def _(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _cpu().conv_backward(*args)


@_conv.register_kernel("cuda")
def _(*args: Any) -> Tensor:
    return _cuda().conv(*args)


@_conv_backward.register_kernel("cuda")
def _(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _cuda().conv_backward(*args)


@_conv.register_fake
def _(x: Tensor, weight: Tensor, *others: Any) -> Tensor:
    return empty_result(x, weight.shape[0])


@_conv_backward.register_fake
def _(upstream: Tensor, x: Tensor, weight: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    needs = others[-1]
    return (
        torch.empty_like(x) if needs[0] else x.new_empty(0),
        weight.new_empty(weight.shape) if needs[1] else x.new_empty(0),
        x.new_empty(weight.shape[0]) if needs[2] else x.new_empty(0),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _, condition, _, seed, *settings = inputs
    ctx.save_for_backward(x, weight, condition, seed)
    ctx.settings = settings


def _backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, condition, seed = ctx.saved_tensors
    asked = ctx.needs_input_grad
    needs = [asked[0] or asked[3], asked[1], asked[2]]
    gradients: list[Tensor | None] = [None] * 3
    if any(needs):
        found = torch.ops.pixelfast.activated_conv_backward(upstream, x, weight, condition, seed, *ctx.settings, needs)
        gradients = [gradient if needed else None for gradient, needed in zip(found, needs, strict=True)]
    of_condition = None
    if asked[3]:
        assert gradients[0] is not None
        of_condition = gradients[0].contiguous().sum_to_size(condition.shape)
    return (
        gradients[0] if asked[0] else None,
        gradients[1],
        gradients[2],
        of_condition,
        upstream if asked[4] else None,
        None,
        *([None] * len(ctx.settings)),
    )


_conv.register_autograd(_backward, setup_context=_save)
