"""Where a training run's randomness comes from: every draw is a function of the seed and of its place in the run.

Nothing is consumed, so there is no generator state to save, and what is drawn for one part of a batch does not
depend on how many processes share the batch.
"""

from __future__ import annotations

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


def derived_seed(seed: int, use: Use, place: int = 0, part: int = 0) -> int:
    """The seed of one generator, 0 <= result < 2**63, for `torch.Generator.manual_seed`.

    seed: the run's, below 2**64. place: an epoch or step, part: a piece of a batch, both below 2**32. Philox4x32
    of counter (place, part, use, VERSION), so no two places share a seed but by chance.
    """
    counter = np.array([place, part, use, VERSION], dtype=np.uint32)
    key = np.array([seed & 0xFFFFFFFF, seed >> 32], dtype=np.uint32)
    low, high = (int(word) for word in philox4x32(counter, key)[:2])
    return (high << 32 | low) >> 1
