"""Gates and their gradient on a GPU: one program for a block of the result's numbers. Arithmetic is float32."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .activations import gate_factors

BLOCK = 512
WARPS = 4
NO_STRIDES = (0, 0, 0, 0)


def gate(x: Tensor, condition: Tensor | None, residual: Tensor | None, kind: str, out: Tensor) -> None:
    """out (N, C, H, W) <- residual + the gate of x + condition (N, 2 C, H, W)."""
    if out.numel() > 0:
        with torch.cuda.device_of(x):
            gate_kernel[(triton.cdiv(out.numel(), BLOCK),)](
                x, condition, residual, out, out.numel(), *out.shape[1:],
                *x.stride(), *_strides(condition, x), *_strides(residual), *out.stride(),
                KIND=kind, LAST=_last(out), BLOCK=BLOCK, num_warps=WARPS,
            )  # fmt: skip


def gate_gradient(upstream: Tensor, x: Tensor, condition: Tensor | None, kind: str, gradient: Tensor) -> None:
    """gradient (N, 2 C, H, W) <- that of x, from that of the result (N, C, H, W)."""
    if upstream.numel() > 0:
        with torch.cuda.device_of(x):
            gate_gradient_kernel[(triton.cdiv(upstream.numel(), BLOCK),)](
                upstream, x, condition, gradient, upstream.numel(), *upstream.shape[1:],
                *upstream.stride(), *x.stride(), *_strides(condition, x), *gradient.stride(),
                KIND=kind, LAST=_last(gradient), BLOCK=BLOCK, num_warps=WARPS,
            )  # fmt: skip


def _strides(tensor: Tensor | None, like: Tensor | None = None) -> tuple[int, ...]:
    """Of `tensor`, broadcast to `like`."""
    if tensor is None:
        return NO_STRIDES
    return (tensor if like is None else tensor.expand_as(like)).stride()


def _last(tensor: Tensor) -> bool:
    """Whether neighbouring programs and threads should be neighbouring channels."""
    return tensor.stride(1) == 1


@triton.jit
def gate_kernel(
    x, condition, residual, out, numbers, features, height, width,
    x_image, x_plane, x_row, x_column,
    condition_image, condition_plane, condition_row, condition_column,
    residual_image, residual_plane, residual_row, residual_column,
    out_image, out_plane, out_row, out_column,
    KIND: tl.constexpr, LAST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    number = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = number < numbers
    image, plane, row, column = _place(number, features, height, width, LAST)
    first, second = _halves(
        x, condition, image, plane, row, column, features, mask,
        x_image, x_plane, x_row, x_column,
        condition_image, condition_plane, condition_row, condition_column,
    )  # fmt: skip
    value, share, _ = gate_factors(first, second, KIND)
    result = value * share
    if residual is not None:
        at = residual + image * residual_image + plane * residual_plane + row * residual_row + column * residual_column
        result += tl.load(at, mask=mask, other=0.0).to(tl.float32)
    to = out + image * out_image + plane * out_plane + row * out_row + column * out_column
    tl.store(to, result.to(out.dtype.element_ty), mask=mask)


@triton.jit
def gate_gradient_kernel(
    upstream, x, condition, gradient, numbers, features, height, width,
    upstream_image, upstream_plane, upstream_row, upstream_column,
    x_image, x_plane, x_row, x_column,
    condition_image, condition_plane, condition_row, condition_column,
    gradient_image, gradient_plane, gradient_row, gradient_column,
    KIND: tl.constexpr, LAST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    number = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = number < numbers
    image, plane, row, column = _place(number, features, height, width, LAST)
    first, second = _halves(
        x, condition, image, plane, row, column, features, mask,
        x_image, x_plane, x_row, x_column,
        condition_image, condition_plane, condition_row, condition_column,
    )  # fmt: skip
    value, share, rest = gate_factors(first, second, KIND)
    at = upstream + image * upstream_image + plane * upstream_plane + row * upstream_row + column * upstream_column
    given = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    by_value = given * share
    if KIND == "tanh":
        by_value *= 1.0 - value * value
    to = gradient + image * gradient_image + plane * gradient_plane + row * gradient_row + column * gradient_column
    tl.store(to, by_value.to(gradient.dtype.element_ty), mask=mask)
    to += tl.cast(features, tl.int64) * gradient_plane
    tl.store(to, (given * value * share * rest).to(gradient.dtype.element_ty), mask=mask)


@triton.jit
def _place(number, features, height, width, LAST: tl.constexpr):
    """Image, feature, row and column of a number, counted along the memory."""
    if LAST:
        pixel = number // features
        return pixel // (height * width), number % features, pixel // width % height, pixel % width
    else:
        plane = number // (height * width)
        return plane // features, plane % features, number // width % height, number % width


@triton.jit
def _halves(
    x, condition, image, plane, row, column, features, mask,
    x_image, x_plane, x_row, x_column,
    condition_image, condition_plane, condition_row, condition_column,
):  # fmt: skip
    """Both halves of x + condition."""
    at = x + image * x_image + plane * x_plane + row * x_row + column * x_column
    first = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    second = tl.load(at + tl.cast(features, tl.int64) * x_plane, mask=mask, other=0.0).to(tl.float32)
    if condition is not None:
        at = condition + image * condition_image + plane * condition_plane
        at += row * condition_row + column * condition_column
        first += tl.load(at, mask=mask, other=0.0).to(tl.float32)
        second += tl.load(at + tl.cast(features, tl.int64) * condition_plane, mask=mask, other=0.0).to(tl.float32)
    return first, second
