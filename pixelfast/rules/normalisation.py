"""Normalisations in evaluation mode, and the gated linear unit: composites of simpler nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .common import Codes, Opaque
from .reduction import moments, opaque


def _along(vector: torch.Tensor, ndim: int, axis: int) -> torch.Tensor:
    return vector.reshape([-1 if i == axis else 1 for i in range(ndim)])


def _batch_norm(
    builder: Any, call: Any, x: Codes, weight: Any, bias: Any, mean: Any, variance: Any, *rest: Any, **_: Any
) -> Any:
    """With running statistics an affine map per channel; with batch statistics a leak between positions and images."""
    training = bool(rest[0]) if len(rest) == 3 else False
    eps = rest[-1]
    if training or mean is None or variance is None:
        return [Opaque(str(call), "mixes all positions of the image", leak=True)] * 3
    scale = torch.rsqrt(variance + eps)
    scale = scale if weight is None else scale * weight
    shift = (0.0 if bias is None else bias) - mean * scale
    codes = builder.pointwise("aten.mul.Tensor", [x.array, _along(scale, x.ndim, 1)])
    return Codes(builder.pointwise("aten.add.Tensor", [codes, _along(shift, x.ndim, 1)]), x.dtype)


def _normalised(builder: Any, codes: np.ndarray, axes: list[int], eps: float) -> np.ndarray | None:
    found = moments(builder, codes, axes)
    if found is None:
        return None
    mean, variance = found
    root = builder.pointwise("aten.rsqrt.default", [builder.pointwise("aten.add.Tensor", [variance, eps])])
    return np.asarray(builder.pointwise("aten.mul.Tensor", [builder.pointwise("aten.sub.Tensor", [codes, mean]), root]))


def _layer_norm(builder: Any, call: Any, x: Codes, shape: Any, weight: Any, bias: Any, eps: float) -> Any:
    axes = list(range(x.ndim - len(shape), x.ndim))
    codes = _normalised(builder, x.array, axes, eps)
    if codes is None:
        return opaque(builder, call, x.array, axes)
    if weight is not None:
        codes = builder.pointwise("aten.mul.Tensor", [codes, weight])
    if bias is not None:
        codes = builder.pointwise("aten.add.Tensor", [codes, bias])
    return Codes(codes, x.dtype)


def _group_norm(
    builder: Any, call: Any, x: Codes, weight: Any, bias: Any, n: int, c: int, hw: int, groups: int, eps: float
) -> Any:
    grouped = x.array.reshape(n, groups, c // groups, hw)
    codes = _normalised(builder, grouped, [2, 3], eps)
    if codes is None:
        return [opaque(builder, call, grouped, [2, 3])] * 3
    codes = codes.reshape(x.array.shape)
    if weight is not None:
        codes = builder.pointwise("aten.mul.Tensor", [codes, _along(weight, x.ndim, 1)])
    if bias is not None:
        codes = builder.pointwise("aten.add.Tensor", [codes, _along(bias, x.ndim, 1)])
    return Codes(codes, x.dtype)


def _glu(builder: Any, call: Any, x: Codes, dim: int = -1) -> Codes:
    first, second = np.split(x.array, 2, axis=dim)
    return Codes(
        builder.pointwise("aten.mul.Tensor", [first, builder.pointwise("aten.sigmoid.default", [second])]), x.dtype
    )


RULES: dict[str, Callable[..., Any]] = {
    "aten.native_batch_norm": _batch_norm,
    "aten.cudnn_batch_norm": _batch_norm,
    "aten._native_batch_norm_legit": _batch_norm,
    "aten._native_batch_norm_legit_no_training": _batch_norm,
    "aten._batch_norm_with_update": _batch_norm,
    "aten.native_layer_norm": _layer_norm,
    "aten.native_group_norm": _group_norm,
    "aten.glu": _glu,
}
