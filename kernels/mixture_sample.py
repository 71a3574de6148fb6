"""Sampling of discretized logistic mixtures on a GPU: one program for a block of pixels, all components at once.

In float64, the component's choice too: the same numbers as plain torch, but where a value lies within rounding of a
bin's edge.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .elementary import exp, tanh
from .mixture_planes import LOG_SCALE_FLOOR, mixtures_of, place, read


class Launch(NamedTuple):
    """Pixels of one program, components rounded up to a power of two, and warps."""

    block: int
    components: int
    warps: int


def launch(pixels: int, mixtures: int) -> Launch:
    """About four scores for each thread; small blocks while there are too few pixels for all multiprocessors."""
    components = triton.next_power_of_2(mixtures)
    block = 32 if pixels >= 32 * 512 else 8
    return Launch(block, components, min(8, max(1, block * components // 128)))


def mixture_sample(params: Tensor, uniforms: Tensor, levels: int, temperature: float) -> Tensor:
    """int64 (N, C, H, W), see `pixelfast.ops.mixture_sample`."""
    n, channels, height, width, _ = uniforms.shape
    sampled = torch.empty((n, channels, height, width), dtype=torch.int64, device=params.device)
    pixels = n * height * width
    mixtures = mixtures_of(params, channels)
    shape = launch(pixels, mixtures)
    if pixels > 0:
        with torch.cuda.device_of(params):
            mixture_sample_kernel[(triton.cdiv(pixels, shape.block),)](
                params, uniforms, sampled, temperature, pixels, height, width, mixtures, levels,
                *params.stride(), *uniforms.stride(), *sampled.stride(),
                CHANNELS=channels, COMPONENTS=shape.components, BLOCK=shape.block, num_warps=shape.warps,
            )  # fmt: skip
    return sampled


@triton.jit
def mixture_sample_kernel(
    params, uniforms, sampled, temperature: tl.float64, pixels, height, width, mixtures, levels,
    params_image, params_plane, params_row, params_column,
    uniforms_image, uniforms_channel, uniforms_row, uniforms_column, uniforms_draw,
    sampled_image, sampled_channel, sampled_row, sampled_column,
    CHANNELS: tl.constexpr, COMPONENTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """sampled[pixel] <- a level of each channel, -1 where there is none; strides in elements."""
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = pixel < pixels
    image, row, column = place(pixel, height, width)
    params += image * params_image + row * params_row + column * params_column
    uniforms += image * uniforms_image + row * uniforms_row + column * uniforms_column
    sampled += image * sampled_image + row * sampled_row + column * sampled_column
    last = (levels - 1).to(tl.float64)
    component, missing = _choose(params, params_plane, uniforms, uniforms_draw, mask, mixtures, temperature, COMPONENTS)
    kinds: tl.constexpr = 3 if CHANNELS == 3 else 2
    red = tl.zeros([BLOCK], tl.float64)
    green = red
    for c in tl.static_range(CHANNELS):
        first = mixtures * (1 + c * kinds) + component
        mean = read(params, first, params_plane, mask, tl.float64)
        # Coefficients, in the order of the channels' planes: red on green, red on blue, green on blue.
        if c == 1:
            mean += tanh(read(params, mixtures * 3 + component, params_plane, mask, tl.float64)) * red
        if c == 2:
            mean += tanh(read(params, mixtures * 6 + component, params_plane, mask, tl.float64)) * red
            mean += tanh(read(params, mixtures * 9 + component, params_plane, mask, tl.float64)) * green
        log_scale = read(params, first + mixtures, params_plane, mask, tl.float64)
        scale = exp(tl.where(log_scale < LOG_SCALE_FLOOR, LOG_SCALE_FLOOR, log_scale))
        noise = uniforms + c * tl.cast(uniforms_channel, tl.int64) + mixtures * tl.cast(uniforms_draw, tl.int64)
        uniform = tl.load(noise, mask=mask, other=0.5)
        value = mean + temperature * scale * (tl.log(uniform) - tl.log(1.0 - uniform))
        level = (value + 1.0) * (0.5 * last)
        # Clipped without losing NaN; then adding and taking away 1.5 * 2^52 rounds to the nearest, ties to even.
        level = tl.where(level < 0.0, 0.0, tl.where(level > last, last, level))
        level = (level + 6755399441055744.0) - 6755399441055744.0
        bad = missing | (level != level)
        written = tl.where(bad, -1.0, level).to(tl.int64)
        tl.store(sampled + c * tl.cast(sampled_channel, tl.int64), written, mask=mask)
        signed = (2.0 * level - last) / last
        if c == 0:
            red = signed
        if c == 1:
            green = signed


@triton.jit
def _choose(params, plane, uniforms, draw, mask, mixtures, temperature, COMPONENTS: tl.constexpr):
    """The component of each pixel by the Gumbel-max trick, the lowest of equals; and where there is none to choose."""
    k = tl.arange(0, COMPONENTS).to(tl.int64)[None, :]
    inside = mask[:, None] & (k < mixtures)
    logits = tl.load(params[:, None] + k * plane, mask=inside, other=float("-inf")).to(tl.float64)
    uniform = tl.load(uniforms[:, None] + k * draw, mask=inside, other=0.5)
    scores = logits - temperature * tl.log(-tl.log(uniform))
    sick = tl.max((scores != scores).to(tl.int32), axis=1) > 0
    scores = tl.where(scores != scores, float("-inf"), scores)
    missing = sick | (tl.max(scores, axis=1) == float("-inf"))
    return tl.argmax(scores, axis=1), missing
