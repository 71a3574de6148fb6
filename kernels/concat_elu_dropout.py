"""Which of the two features of each channel dropout keeps, as two bits; `pixelfast.ops.concat_elu_dropout` says how."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

PAIRS = 8
POSITIONS = 128


def kept_features(x: Tensor, seed: Tensor, threshold: int) -> Tensor:
    """uint8 like x (N, C, H, W): bit 0 where elu(x) is kept, bit 1 where elu(-x) is.

    A quarter of a byte per feature would do; a byte per channel lets the convolution read one address per channel.
    """
    kept = torch.empty_like(x, dtype=torch.uint8)
    images, channels, height, width = x.shape
    pairs = triton.cdiv(channels, 2)
    if kept.numel() > 0:
        grid = (triton.cdiv(height * width, POSITIONS), triton.cdiv(pairs, PAIRS), images)
        with torch.cuda.device_of(x):
            kept_features_kernel[grid](
                kept, seed, threshold, channels, height, width, *kept.stride(), PAIRS=PAIRS, POSITIONS=POSITIONS
            )
    return kept


@triton.jit
def kept_features_kernel(
    kept, seed, threshold, channels, height, width,
    kept_image, kept_plane, kept_row, kept_column,
    PAIRS: tl.constexpr, POSITIONS: tl.constexpr,
):  # fmt: skip
    """Philox of (image, position, pair of channels); word 2 * (channel % 2) + half is below threshold where dropped."""
    position = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    pair = tl.program_id(1) * PAIRS + tl.arange(0, PAIRS)
    image = tl.program_id(2)
    zero = (pair[:, None] + position[None, :]).to(tl.uint32) * 0
    first, second, third, fourth = tl.philox(
        tl.load(seed), zero + image.to(tl.uint32), zero + position[None, :].to(tl.uint32),
        zero + pair[:, None].to(tl.uint32), zero,
    )  # fmt: skip
    limit = tl.cast(threshold, tl.uint32)
    even = (first >= limit).to(tl.uint8) + 2 * (second >= limit).to(tl.uint8)
    odd = (third >= limit).to(tl.uint8) + 2 * (fourth >= limit).to(tl.uint8)
    row, column = (position // width).to(tl.int64), (position % width).to(tl.int64)
    place = kept + image.to(tl.int64) * kept_image + row * kept_row + column * kept_column
    inside = (position < height * width)[None, :]
    for half in tl.static_range(2):
        channel = (2 * pair + half)[:, None]
        bits = even if half == 0 else odd
        tl.store(place[None, :] + channel.to(tl.int64) * kept_plane, bits, mask=inside & (channel < channels))
