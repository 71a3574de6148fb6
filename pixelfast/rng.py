"""Counter-based noise: every random word is a pure function of (seed, sample id, number, draw, stream).

The generator is Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3"
(SC 2011). One 128-bit counter gives four 32-bit words:

    key      = (seed's low 32 bits, seed's high 32 bits)
    counter  = (sample id, number, draw // 4, RNG_VERSION << 16 | stream)
    the word = output word draw % 4

where number = position * channels + channel in sampling order. No state is consumed, so images do not depend
on the batch they are drawn in, nor on the order in which noise is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pixelfast.errors import ShapeError

RNG_VERSION = 1
"""Version of the layout above. Changing a single word means a new version."""

PIXELS = 0
"""The stream that pixels are drawn from."""

STREAMS = {
    "pixels": PIXELS,
    "codes": 1,
    "top": 2,
    "bottom": 3,
    "latents": 4,
    **{f"latents_{level}": 4 + level for level in range(1, 9)},
}
"""The stream of every kind of stage of a model in stages, by name: no stage sees the noise of another."""

Integers = Sequence[int] | range | npt.NDArray[Any] | torch.Tensor

_ROUNDS = 10
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF
_LOW = np.uint64(_MASK)
_SHIFT = np.uint64(32)


def philox4x32(counter: npt.NDArray[np.uint32], key: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Philox4x32-10 of every counter.

    Args:
        counter: uint32 (..., 4).
        key: uint32 (2,).

    Returns:
        uint32 (..., 4), the four output words of each counter.

    Raises:
        ShapeError: another shape or dtype.
    """
    if counter.dtype != np.uint32 or counter.ndim < 1 or counter.shape[-1] != 4:
        raise ShapeError(f"philox4x32 got a counter of {counter.dtype} {counter.shape}; it takes uint32 (..., 4)")
    if key.dtype != np.uint32 or key.shape != (2,):
        raise ShapeError(f"philox4x32 got a key of {key.dtype} {key.shape}; it takes uint32 (2,)")
    c0, c1, c2, c3 = (counter[..., i].astype(np.uint64) for i in range(4))
    return np.stack(_philox(c0, c1, c2, c3, int(key[0]), int(key[1])), axis=-1).astype(np.uint32)


def words(
    seed: int, sample_ids: Integers, numbers: Integers, draws: int, stream: int = PIXELS
) -> npt.NDArray[np.uint32]:
    """The first `draws` random words of each (sample, number).

    Args:
        seed: 0 <= seed < 2**64.
        sample_ids: which images, each 0 <= id < 2**32, in any order.
        numbers: which numbers of an image, each 0 <= number < 2**32, in any order.
        draws: words per number, at least 1.
        stream: 0 <= stream < 2**16; stages of a pipeline use different streams.

    Returns:
        uint32 (len(sample_ids), len(numbers), draws).

    Raises:
        ShapeError: an argument is not an integer or out of its range.
    """
    seed = _checked_int("seed", seed, 0, 2**64 - 1)
    stream = _checked_int("stream", stream, 0, 2**16 - 1)
    draws = _checked_int("draws", draws, 1, 2**34)
    ids = _checked_array("sample_ids", sample_ids)[:, None, None]
    positions = _checked_array("numbers", numbers)[None, :, None]
    blocks = np.arange(-(-draws // 4), dtype=np.uint64)[None, None, :]
    tag = np.full((1, 1, 1), RNG_VERSION << 16 | stream, dtype=np.uint64)
    # The four counter words stay separate and broadcast: the first rounds run on small arrays.
    out = _philox(ids, positions, blocks, tag, seed & _MASK, seed >> 32)
    result = np.empty((ids.shape[0], positions.shape[1], blocks.shape[2], 4), dtype=np.uint32)
    for word, values in enumerate(out):
        result[..., word] = values
    return result.reshape(ids.shape[0], positions.shape[1], 4 * blocks.shape[2])[:, :, :draws]


def uniforms(seed: int, sample_ids: Integers, numbers: Integers, draws: int, stream: int = PIXELS) -> torch.Tensor:
    """The words of `words` as uniforms u = (word + 0.5) * 2**-32.

    Both u and 1 - u are exact in float64, and neither is ever 0 or 1.

    Returns:
        float64 tensor (len(sample_ids), len(numbers), draws) on the CPU.

    Raises:
        ShapeError: as `words`.
    """
    result = words(seed, sample_ids, numbers, draws, stream).astype(np.float64)
    result += 0.5
    result *= 2.0**-32
    return torch.from_numpy(result)


def _philox(
    c0: npt.NDArray[np.uint64],
    c1: npt.NDArray[np.uint64],
    c2: npt.NDArray[np.uint64],
    c3: npt.NDArray[np.uint64],
    k0: int,
    k1: int,
) -> tuple[npt.NDArray[np.uint64], ...]:
    """Ten rounds on counter words of mutually broadcastable shapes, each word below 2**32 in a uint64."""
    for _ in range(_ROUNDS):
        product0 = c0 * _MULTIPLIERS[0]
        product1 = c2 * _MULTIPLIERS[1]
        c0 = (product1 >> _SHIFT) ^ c1 ^ np.uint64(k0)
        c2 = (product0 >> _SHIFT) ^ c3 ^ np.uint64(k1)
        c1 = product1 & _LOW
        c3 = product0 & _LOW
        k0 = (k0 + _KEY_STEPS[0]) & _MASK
        k1 = (k1 + _KEY_STEPS[1]) & _MASK
    return c0, c1, c2, c3


def _checked_int(name: str, value: int, lowest: int, highest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise ShapeError(f"{name} is {value!r}; it must be an integer")
    if not lowest <= value <= highest:
        raise ShapeError(f"{name} is {value}; it must be from {lowest} to {highest}")
    return int(value)


def _checked_array(name: str, values: Integers) -> npt.NDArray[np.uint64]:
    array = values.cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    if array.size == 0:
        return np.empty(0, dtype=np.uint64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ShapeError(
            f"{name} has dtype {array.dtype} and shape {array.shape}; "
            f"it must be a one-dimensional list of integers from 0 to {_MASK}"
        )
    if int(array.min()) < 0 or int(array.max()) > _MASK:
        raise ShapeError(f"{name} has values from {array.min()} to {array.max()}; they must be from 0 to {_MASK}")
    return array.astype(np.uint64)
