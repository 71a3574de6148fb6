"""Arrays of images in the layouts people save them in, as (N, C, H, W) without a copy."""

from __future__ import annotations

import numpy as np

from pixelfast.errors import ShapeError

_CHANNELS = (1, 3)


def as_images(array: np.ndarray, where: object) -> np.ndarray:
    """A view (N, C, H, W) of uint8 (N, H, W), (N, H, W, C) or (N, C, H, W), where C is 1 or 3.

    Raises ShapeError for anything else, and where both the second and the last dimension could be C.
    """
    accepted = "uint8 (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1 or 3 is read"
    if array.dtype != np.uint8 or array.ndim not in (3, 4):
        raise ShapeError(f"{where} holds {array.dtype} {array.shape}; {accepted}")
    if 0 in array.shape:
        raise ShapeError(f"{where} holds {array.shape}, no images; {accepted}, without a 0")
    if array.ndim == 3:
        return array[:, None]
    first, last = array.shape[1] in _CHANNELS, array.shape[3] in _CHANNELS
    if first and last:
        raise ShapeError(
            f"{where} holds {array.shape}, where the channels could be the second or the last dimension; "
            "save it as (N, H, W) or with a height and width other than 1 and 3"
        )
    if first:
        return array
    if last:
        return array.transpose(0, 3, 1, 2)
    raise ShapeError(f"{where} holds {array.dtype} {array.shape}; {accepted}")
