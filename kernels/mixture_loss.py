"""The loss of discretized logistic mixtures and its gradient on a GPU: one program for a block of pixels.

A loop over the components keeps running sums, so that registers do not grow with their number. The gradient goes over
them twice: once for the pixel's probability, once for the derivatives. Arithmetic is float32, or float64 for float64
parameters. The mathematics is that of the CPU kernels (`csrc/ops_mixture_loss_impl.h`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .elementary import decay, exp, tanh
from .mixture_planes import LOG_SCALE_FLOOR, mixtures_of, place, read, write

LEAST = tl.constexpr(-1e30)
"""Stands for minus infinity where differences are taken."""


class Launch(NamedTuple):
    """Pixels of one program, and its warps."""

    block: int
    warps: int


def launch(pixels: int) -> Launch:
    """One pixel per thread; smaller blocks while there are too few to give every multiprocessor four."""
    blocks_wanted = 512
    return next((Launch(block, block // 32) for block in (128, 64) if pixels >= block * blocks_wanted), Launch(32, 1))


def mixture_nll(params: Tensor, x: Tensor, levels: int) -> Tensor:
    """(N, H, W), see `pixelfast.ops.mixture_nll`."""
    dtype = torch.float64 if params.dtype == torch.float64 else torch.float32
    nats = torch.empty((x.shape[0], *x.shape[2:]), dtype=dtype, device=params.device)
    pixels = nats.numel()
    shape = launch(pixels)
    if pixels > 0:
        with torch.cuda.device_of(params):
            mixture_nll_kernel[(triton.cdiv(pixels, shape.block),)](
                params, x, nats, pixels, x.shape[2], x.shape[3], mixtures_of(params, x.shape[1]), levels,
                *params.stride(), *x.stride(),
                CHANNELS=x.shape[1], BLOCK=shape.block, num_warps=shape.warps,
            )  # fmt: skip
    return nats


def mixture_nll_backward(upstream: Tensor, params: Tensor, x: Tensor, levels: int) -> Tensor:
    """Gradient with respect to `params`, given that with respect to the result."""
    gradient = torch.empty_like(params)
    pixels = upstream.numel()
    shape = launch(pixels)
    if pixels > 0:
        with torch.cuda.device_of(params):
            mixture_nll_backward_kernel[(triton.cdiv(pixels, shape.block),)](
                upstream, params, x, gradient, pixels, x.shape[2], x.shape[3], mixtures_of(params, x.shape[1]), levels,
                *upstream.stride(), *params.stride(), *x.stride(), *gradient.stride(),
                CHANNELS=x.shape[1], BLOCK=shape.block, num_warps=shape.warps,
            )  # fmt: skip
    return gradient


@triton.jit
def mixture_nll_kernel(
    params, x, nats, pixels, height, width, mixtures, levels,
    params_image, params_plane, params_row, params_column, x_image, x_plane, x_row, x_column,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """nats[pixel] <- -log p(x[pixel]); strides in elements."""
    number = nats.dtype.element_ty
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = pixel < pixels
    image, row, column = place(pixel, height, width)
    params += image * params_image + row * params_row + column * params_column
    x += image * x_image + row * x_row + column * x_column
    last = (levels - 1).to(number)
    red, green, blue, sick = _levels(x, x_plane, mask, last, CHANNELS)
    top = _largest_logit(params, params_plane, mask, mixtures, number)
    prior, best, total = _sums(params, params_plane, mask, mixtures, top, red, green, blue, last, CHANNELS)
    tl.store(nats + pixel, tl.log(prior) - (best + tl.log(total)) + sick, mask=mask)


@triton.jit
def mixture_nll_backward_kernel(
    upstream, params, x, gradient, pixels, height, width, mixtures, levels,
    upstream_image, upstream_row, upstream_column,
    params_image, params_plane, params_row, params_column, x_image, x_plane, x_row, x_column,
    gradient_image, gradient_plane, gradient_row, gradient_column,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """gradient[pixel] <- upstream[pixel] * d(-log p(x[pixel])) / d params[pixel]; strides in elements."""
    number = upstream.dtype.element_ty
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = pixel < pixels
    image, row, column = place(pixel, height, width)
    params += image * params_image + row * params_row + column * params_column
    x += image * x_image + row * x_row + column * x_column
    gradient += image * gradient_image + row * gradient_row + column * gradient_column
    upstream += image * upstream_image + row * upstream_row + column * upstream_column
    last = (levels - 1).to(number)
    red, green, blue, sick = _levels(x, x_plane, mask, last, CHANNELS)
    top = _largest_logit(params, params_plane, mask, mixtures, number)
    prior, best, total = _sums(params, params_plane, mask, mixtures, top, red, green, blue, last, CHANNELS)
    outer = tl.load(upstream, mask=mask, other=0.0) + sick
    kinds: tl.constexpr = 3 if CHANNELS == 3 else 2
    for k in range(mixtures):
        logit = read(params, k, params_plane, mask, number) - top
        means, tangents = _means(params, params_plane, mask, mixtures, k, red, green, last, CHANNELS)
        mass = prior * 0.0 + 1.0
        exponent = logit
        by_means, by_scales = (), ()
        for c in tl.static_range(CHANNELS):
            log_scale = read(params, mixtures * (2 + c * kinds) + k, params_plane, mask, number)
            own, shift, _, by_mean, by_scale = _bin(means[c], log_scale, (red, green, blue)[c], last)
            mass *= own
            exponent += shift
            by_means = by_means + (by_mean,)  # noqa: RUF005 (Triton has no unpacking)
            by_scales = by_scales + (by_scale,)  # noqa: RUF005
        # As in the sums: an exponent rounded in another way would give another probability.
        weight = outer * (mass * exp(exponent - best) / total)
        write(gradient, k, gradient_plane, mask, outer * (exp(logit) / prior) - weight)
        for c in tl.static_range(CHANNELS):
            first = mixtures * (1 + c * kinds) + k
            write(gradient, first, gradient_plane, mask, -weight * by_means[c])
            write(gradient, first + mixtures, gradient_plane, mask, -weight * by_scales[c])
            if CHANNELS == 3:
                by_tangent = by_means[1 if c == 0 else 2] * ((green if c == 2 else red) / last)
                slope = 1.0 - tangents[c] * tangents[c]
                write(gradient, first + 2 * mixtures, gradient_plane, mask, -weight * by_tangent * slope)


@triton.jit
def _levels(x, stride, mask, last, CHANNELS: tl.constexpr):
    """2 level - last of each channel (of red where there is one only); NaN where one of them is no level, else 0."""
    number = last.dtype
    red = tl.load(x, mask=mask, other=0).to(number)
    valid = (red >= 0) & (red <= last)
    green, blue = red, red
    if CHANNELS == 3:
        green = tl.load(x + stride, mask=mask, other=0).to(number)
        blue = tl.load(x + 2 * stride, mask=mask, other=0).to(number)
        valid = valid & (green >= 0) & (green <= last) & (blue >= 0) & (blue <= last)
    sick = tl.where(valid, 0.0, float("nan")).to(number)
    return 2 * red - last, 2 * green - last, 2 * blue - last, sick


@triton.jit
def _largest_logit(params, stride, mask, mixtures, number: tl.constexpr):
    top = tl.load(params, mask=mask, other=0.0).to(number)
    for k in range(1, mixtures):
        top = tl.maximum(top, read(params, k, stride, mask, number))
    return top


@triton.jit
def _sums(params, stride, mask, mixtures, top, red, green, blue, last, CHANNELS: tl.constexpr):
    """Sum of exp(logit - top), and the joint probabilities' sum as exp(best) * total."""
    number = top.dtype
    kinds: tl.constexpr = 3 if CHANNELS == 3 else 2
    prior = top * 0.0
    best = tl.zeros_like(top) + LEAST
    total = tl.zeros_like(top)
    for k in range(mixtures):
        logit = read(params, k, stride, mask, number) - top
        means, _ = _means(params, stride, mask, mixtures, k, red, green, last, CHANNELS)
        mass = tl.zeros_like(top) + 1.0
        exponent = logit
        size = logit
        for c in tl.static_range(CHANNELS):
            log_scale = read(params, mixtures * (2 + c * kinds) + k, stride, mask, number)
            own, shift, log_own, _, _ = _bin(means[c], log_scale, (red, green, blue)[c], last)
            mass *= own
            exponent += shift
            size += shift + log_own
        prior += exp(logit)
        better = tl.maximum(best, size)
        total = total * exp(best - better) + mass * exp(exponent - better)
        best = better
    return prior, best, total


@triton.jit
def _means(params, stride, mask, mixtures, k, red, green, last, CHANNELS: tl.constexpr):
    """Means of one component by channel, and the coefficients that moved them, after tanh."""
    number = red.dtype
    first = read(params, mixtures + k, stride, mask, number)
    if CHANNELS == 3:
        red_on_green = tanh(read(params, mixtures * 3 + k, stride, mask, number))
        red_on_blue = tanh(read(params, mixtures * 6 + k, stride, mask, number))
        green_on_blue = tanh(read(params, mixtures * 9 + k, stride, mask, number))
        second = read(params, mixtures * 4 + k, stride, mask, number) + red_on_green * (red / last)
        third = read(params, mixtures * 7 + k, stride, mask, number) + red_on_blue * (red / last)
        third += green_on_blue * (green / last)
        return (first, second, third), (red_on_green, red_on_blue, green_on_blue)
    else:
        return (first,), ()


@triton.jit
def _bin(mean, log_scale, centre, last):
    """A bin's probability as mass * exp(exponent), a bound of log(mass), and the derivatives of its logarithm.

    With near and far the distances from the mean to the bin's edges in units of the scale, and E = exp(near), it is
    (1 - exp(-near - far)) E / (1 + E) / (1 + exp(-far)); the outermost bins have a near edge only.
    """
    floor = tl.where(log_scale < LOG_SCALE_FLOOR, LOG_SCALE_FLOOR, log_scale)
    inverse_scale = exp(-floor)
    half_bin = inverse_scale / last
    width = half_bin + half_bin
    log_width = tl.log(2.0 / last) - floor
    lowest = centre == -last
    highest = centre == last
    edge = lowest | highest
    # Then 1 - exp(-width) is width to the last bit. The product of three that are not tiny is a normal number.
    tiny = log_width < (-40.0 if mean.dtype == tl.float64 else -25.0)

    centred = centre - mean * last
    side = tl.where(lowest | ((centred < 0) & (centre != last)), 1.0, -1.0).to(mean.dtype)
    near = (side * centred + 1.0) * half_bin
    far = width - near
    inside = near > 0
    power_near = exp(tl.where(near > 80.0, 80.0, near))
    power_width, rest = decay(width)
    power_width = tl.where(edge, 0.0, power_width)
    rest = tl.where(edge | tiny, 1.0, rest)

    near_term = 1.0 + power_near
    far_power = power_near * power_width
    far_term = 1.0 + far_power
    terms = near_term * far_term
    log_rest = tl.where(edge, 0.0, log_width)
    exponent = tl.where(inside, 0.0, near) + tl.where(tiny, log_rest, 0.0)
    log_mass = tl.where(tiny, 0.0, tl.minimum(log_rest, 0.0))
    shared = 1.0 / (terms * rest)
    reciprocal = shared * rest
    mass = tl.where(inside, rest * power_near, rest) * reciprocal
    by_near = reciprocal * far_term
    by_far = reciprocal * near_term * far_power
    by_width = tl.where(tiny, tl.where(edge, 0.0, 1.0), width * power_width * (shared * terms))
    by_mean = side * inverse_scale * (by_far - by_near)
    by_log_scale = tl.where(log_scale < LOG_SCALE_FLOOR, 0.0, -(near * by_near + far * by_far + by_width))
    return mass, exponent, log_mass, by_mean, by_log_scale
