"""Where a training run's randomness comes from: every draw is a function of the seed and of its place in the run.

Nothing is consumed, so there is no generator state to save, and what is drawn for one part of a batch does not
depend on how many processes share the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np

from pixelfast.rng import philox4x32

VERSION = 1
"""Version of the numbering below; a snapshot of another version cannot be resumed."""


class Use(IntEnum):
    """What randomness is for."""

    WEIGHTS = 0
    ORDER = 1
    AUGMENTATION = 2
    DROPOUT = 3
    TEST = 4


def derived_seeds(seed: int, use: Use, places: Sequence[int], parts: Sequence[int]) -> list[int]:
    """Seeds for `torch.Generator.manual_seed`, each from 0 to 2**63 - 1, one for every place and part.

    seed: the run's, below 2**64. places: epochs, steps or images, parts: pieces of a batch, all below 2**32.
    Philox4x32 of counter (place, part, use, VERSION), so no two places share a seed but by chance.
    """
    counter = np.array([(place, part, use, VERSION) for place, part in zip(places, parts, strict=True)], np.uint32)
    key = np.array([seed & 0xFFFFFFFF, seed >> 32], dtype=np.uint32)
    words = philox4x32(counter.reshape(-1, 4), key)
    return [(int(high) << 32 | int(low)) >> 1 for low, high, *_ in words]


def derived_seed(seed: int, use: Use, place: int = 0, part: int = 0) -> int:
    """One of `derived_seeds`."""
    return derived_seeds(seed, use, [place], [part])[0]
