"""Dropout whose mask is a function of a seed, so that nothing of it is kept for the backward pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10


def draw_seed(device: torch.device) -> Tensor:
    """int64 () from torch's generator of the device: a seed for `dropout_factors`."""
    return torch.randint(0, 1 << 62, (), device=device)


def dropout_threshold(probability: float) -> int:
    """Words below it drop their feature."""
    return min(round(probability * 2**32), _WORD)


def dropout_words(seed: Tensor, shape: Sequence[int]) -> Tensor:
    """The noise of concatenated features: 32-bit words in int64 (N, 2, C, H, W), for x of `shape` (N, C, H, W).

    Philox4x32-10 under the seed, of the counter (image, row * W + column, channel // 2, 0); word
    2 * (channel % 2) + half is that of feature half * C + channel.
    """
    images, channels, height, width = shape

    def axis(size: int, place: int) -> Tensor:
        return torch.arange(size, device=seed.device).view([-1 if i == place else 1 for i in range(3)])

    pairs = (channels + 1) // 2
    zero = torch.zeros(images, pairs, height * width, dtype=torch.int64, device=seed.device)
    counter = [zero + axis(images, 0), zero + axis(height * width, 2), zero + axis(pairs, 1), zero]
    keys = [seed & _WORD, (seed >> 32) & _WORD]
    for _ in range(_ROUNDS):
        # Products of 64 bits wrap around; their halves are right all the same.
        first, second = _MULTIPLIERS[0] * counter[0], _MULTIPLIERS[1] * counter[2]
        counter = [
            ((second >> 32) & _WORD) ^ counter[1] ^ keys[0],
            second & _WORD,
            ((first >> 32) & _WORD) ^ counter[3] ^ keys[1],
            first & _WORD,
        ]
        keys = [(key + step) & _WORD for key, step in zip(keys, _WEYL, strict=True)]
    words = torch.stack(counter, dim=2).unflatten(2, (2, 2))  # (N, pairs, channel of the pair, half, H * W)
    return words.permute(0, 3, 1, 2, 4).flatten(2, 3)[:, :, :channels].unflatten(3, (height, width))


def dropout_factors(seed: Tensor, shape: Sequence[int], probability: float, dtype: torch.dtype) -> Tensor:
    """What the features (N, 2C, H, W) of x of `shape` are multiplied by: 0 or 1 / (1 - probability)."""
    words = dropout_words(seed, shape).flatten(1, 2)
    return (words >= dropout_threshold(probability)).to(dtype) / (1 - probability)
