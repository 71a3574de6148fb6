"""Sums, extremes and what is made of them, over channels and over windows of positions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ..builder import MAX_WINDOW
from .common import Codes, Opaque

Array = np.ndarray
NEGLIGIBLE = 1e3
"""A term of a softmax that a constant pushes so far below another one of its row is zero, in float64 too."""


def _axes(x: Codes, dims: Any) -> list[int]:
    if dims is None or (isinstance(dims, (list, tuple)) and not dims):
        return list(range(x.ndim))
    return [d % x.ndim for d in (dims if isinstance(dims, (list, tuple)) else [dims])]


def opaque(builder: Any, call: Any, codes: Array, axes: Sequence[int]) -> Opaque:
    """What a reduction over too many positions to unroll leaves behind."""
    if builder.site_axes(codes) <= {a % codes.ndim for a in axes}:
        return Opaque(str(call), "mixes all positions of the image", leak=True)
    return Opaque(str(call), f"reduces over more than {MAX_WINDOW} positions")


def _reduce(op: str) -> Callable[..., Any]:
    def rule(builder: Any, call: Any, x: Codes, dims: Any = None, keepdim: bool = False, **_: Any) -> Any:
        codes = builder.reduce(op, x.array, _axes(x, dims), keepdim)
        return opaque(builder, call, x.array, _axes(x, dims)) if codes is None else Codes(codes, x.dtype)

    return rule


def _mean(builder: Any, call: Any, x: Codes, dims: Any = None, keepdim: bool = False, **_: Any) -> Any:
    axes = _axes(x, dims)
    codes = builder.reduce("sum", x.array, axes, keepdim)
    if codes is None:
        return opaque(builder, call, x.array, axes)
    return Codes(
        builder.pointwise("aten.mul.Tensor", [codes, 1.0 / math.prod(x.array.shape[a] for a in axes)]), x.dtype
    )


def _extreme(op: str) -> Callable[..., Any]:
    def rule(builder: Any, call: Any, x: Codes, *rest: Any) -> Any:
        if rest and isinstance(rest[0], (Codes, torch.Tensor)):
            name = "aten.maximum.default" if op == "amax" else "aten.minimum.default"
            return Codes(
                builder.pointwise(name, [x.array, rest[0].array if isinstance(rest[0], Codes) else rest[0]]), x.dtype
            )
        dims, keepdim = (rest[0] if rest else None), (rest[1] if len(rest) > 1 else False)
        codes = builder.reduce(op, x.array, _axes(x, dims), keepdim)
        if codes is None:
            return opaque(builder, call, x.array, _axes(x, dims))
        return [Codes(codes, x.dtype), Opaque(str(call), "gives an index that depends on the image")]

    return rule


def _unfollowed(builder: Any, call: Any, x: Codes, *_: Any, **__: Any) -> Any:
    """Harmless as long as no output reads it, as with the range check of one_hot."""
    return [Opaque(str(call), "has no rule")] * len(call.outputs)


def _logical(op: str) -> Callable[..., Any]:
    def rule(builder: Any, call: Any, x: Codes, dims: Any = None, keepdim: bool = False) -> Any:
        truth = builder.pointwise("aten.ne.Scalar", [x.array, 0])
        codes = builder.reduce(op, truth, _axes(x, dims), keepdim)
        return opaque(builder, call, x.array, _axes(x, dims)) if codes is None else Codes(codes, torch.bool)

    return rule


def _softmax(builder: Any, call: Any, x: Codes, dim: int, *rest: Any) -> Any:
    parts = softmax_parts(builder, x.array, dim)
    if parts is None:
        return opaque(builder, call, x.array, [dim])
    _, raised, total = parts
    return Codes(np.where(raised == 0, 0, builder.pointwise("aten.div.Tensor", [raised, total])), x.dtype)


def _safe_softmax(builder: Any, call: Any, x: Codes, dim: int, *rest: Any) -> Any:
    """Zeros where every term is minus infinity."""
    result = _softmax(builder, call, x, dim)
    if not isinstance(result, Codes):
        return result
    empty = np.isneginf(builder.numbers(x.array)).all(axis=dim, keepdims=True)
    return Codes(np.where(empty, 0, result.array), x.dtype)


def _log_softmax(builder: Any, call: Any, x: Codes, dim: int, *rest: Any) -> Any:
    parts = softmax_parts(builder, x.array, dim)
    if parts is None:
        return opaque(builder, call, x.array, [dim])
    shifted, _, total = parts
    return Codes(
        builder.pointwise("aten.sub.Tensor", [shifted, builder.pointwise("aten.log.default", [total])]), x.dtype
    )


def softmax_parts(builder: Any, codes: Array, dim: int) -> tuple[Array, Array, Array] | None:
    """x - max, its exponential, and the sum of that.

    A constant so far below the row's other terms that it has no weight is not read: masks are made of such.
    """
    lowest = builder.numbers(codes) <= -NEGLIGIBLE
    lowest &= ~lowest.all(axis=dim, keepdims=True)
    top = builder.reduce("amax", codes, [dim], True)
    if top is None:
        return None
    shifted = builder.pointwise("aten.sub.Tensor", [codes, top])
    raised = np.where(lowest, 0, builder.pointwise("aten.exp.default", [shifted]))
    return shifted, raised, builder.reduce("sum", raised, [dim], True)


def _logsumexp(builder: Any, call: Any, x: Codes, dims: Sequence[int], keepdim: bool = False) -> Any:
    axes = _axes(x, dims)
    top = builder.reduce("amax", x.array, axes, True)
    if top is None:
        return opaque(builder, call, x.array, axes)
    raised = builder.pointwise("aten.exp.default", [builder.pointwise("aten.sub.Tensor", [x.array, top])])
    total = builder.pointwise("aten.log.default", [builder.reduce("sum", raised, axes, True)])
    codes = builder.pointwise("aten.add.Tensor", [total, top])
    return Codes(codes if keepdim else codes.reshape([s for i, s in enumerate(codes.shape) if i not in axes]), x.dtype)


def moments(builder: Any, codes: Array, axes: Sequence[int], correction: float = 0.0) -> tuple[Array, Array] | None:
    """Mean and variance over axes, kept."""
    count = math.prod(codes.shape[a] for a in axes)
    total = builder.reduce("sum", codes, axes, True)
    if total is None:
        return None
    mean = builder.pointwise("aten.mul.Tensor", [total, 1.0 / count])
    centred = builder.pointwise("aten.sub.Tensor", [codes, mean])
    squares = builder.reduce("sum", builder.pointwise("aten.mul.Tensor", [centred, centred]), axes, True)
    return mean, builder.pointwise("aten.mul.Tensor", [squares, 1.0 / max(count - correction, 0.0)])


def _variance(root: bool, with_mean: bool) -> Callable[..., Any]:
    def rule(builder: Any, call: Any, x: Codes, dims: Any = None, *, correction: Any = 1, keepdim: bool = False) -> Any:
        axes = _axes(x, dims)
        found = moments(builder, x.array, axes, 1.0 if correction is None else float(correction))
        if found is None:
            return opaque(builder, call, x.array, axes)
        mean, variance = found
        if root:
            variance = builder.pointwise("aten.sqrt.default", [variance])
        results = [variance, mean] if with_mean else [variance]
        if not keepdim:
            results = [r.reshape([s for i, s in enumerate(r.shape) if i not in axes]) for r in results]
        return [Codes(r, x.dtype) for r in results]

    return rule


def _norm(builder: Any, call: Any, x: Codes, ord: Any = 2, dims: Any = None, keepdim: bool = False, **_: Any) -> Any:
    if ord not in (None, 2, 2.0):
        raise NotImplementedError(f"a vector norm of order {ord}")
    total = builder.reduce("sum", builder.pointwise("aten.mul.Tensor", [x.array, x.array]), _axes(x, dims), keepdim)
    if total is None:
        return opaque(builder, call, x.array, _axes(x, dims))
    return Codes(builder.pointwise("aten.sqrt.default", [total]), x.dtype)


def _cumulative_sum(builder: Any, call: Any, x: Codes, dim: int, **_: Any) -> Codes:
    """One addition per position."""
    count = x.array.shape[dim]
    sums = [x.array.take([0], axis=dim)] if count else []
    for i in range(1, count):
        sums.append(builder.pointwise("aten.add.Tensor", [sums[-1], x.array.take([i], axis=dim)]))
    return Codes(np.concatenate(sums, axis=dim) if sums else x.array, x.dtype)


def _windows(
    x: Codes, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool, fill: int
) -> list[Array]:
    """The codes of each tap of a 2-D pooling window."""
    if ceil_mode:
        raise NotImplementedError("pooling with ceil_mode=True")
    kernel = _pair(kernel)
    stride, padding, dilation = _pair(stride or kernel), _pair(padding), _pair(dilation)
    pads = [(0, 0)] * (x.ndim - 2) + [(p, p) for p in padding]
    padded = np.pad(x.array, pads, constant_values=fill)
    size = [(padded.shape[i - 2] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(2)]
    return [
        padded[
            ...,
            i * dilation[0] : i * dilation[0] + (size[0] - 1) * stride[0] + 1 : stride[0],
            j * dilation[1] : j * dilation[1] + (size[1] - 1) * stride[1] + 1 : stride[1],
        ]
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]


def _pair(x: Any) -> tuple[int, int]:
    values = tuple(x) if isinstance(x, (list, tuple)) else (x,)
    return (values[0], values[0]) if len(values) == 1 else (values[0], values[1])


def _max_pool(
    builder: Any,
    call: Any,
    x: Codes,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Any:
    lowest = int(builder.constant(np.array(-math.inf)))
    taps = _windows(x, kernel, stride, padding, dilation, ceil_mode, lowest)
    codes = taps[0]
    for tap in taps[1:]:
        codes = builder.pointwise("aten.maximum.default", [codes, tap])
    return [Codes(codes, x.dtype), Opaque(str(call), "gives an index that depends on the image")]


def _avg_pool(
    builder: Any,
    call: Any,
    x: Codes,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> Any:
    taps = _windows(x, kernel, stride, padding, 1, ceil_mode, 0)
    codes = taps[0]
    for tap in taps[1:]:
        codes = builder.pointwise("aten.add.Tensor", [codes, tap])
    if divisor is None and not count_include_pad:
        inside = Codes(np.ones(x.array.shape[-2:], dtype=np.int64), x.dtype)
        counts = sum(_windows(inside, kernel, stride, padding, 1, ceil_mode, 0))
        scale: Any = torch.from_numpy(1.0 / np.asarray(counts, dtype=np.float64))
    else:
        scale = 1.0 / (divisor or len(taps))
    return Codes(builder.pointwise("aten.mul.Tensor", [codes, scale]), x.dtype)


RULES: dict[str, Callable[..., Any]] = {
    "aten.sum": _reduce("sum"),
    "aten.amax": _reduce("amax"),
    "aten.amin": _reduce("amin"),
    "aten.prod": _reduce("prod"),
    "aten.mean": _mean,
    "aten.max": _extreme("amax"),
    "aten.min": _extreme("amin"),
    "aten.aminmax": _unfollowed,
    "aten.argmax": _unfollowed,
    "aten.argmin": _unfollowed,
    "aten.any": _logical("amax"),
    "aten.all": _logical("amin"),
    "aten._softmax": _softmax,
    "aten._safe_softmax": _safe_softmax,
    "aten._log_softmax": _log_softmax,
    "aten.logsumexp": _logsumexp,
    "aten.var": _variance(False, False),
    "aten.std": _variance(True, False),
    "aten.var_mean": _variance(False, True),
    "aten.std_mean": _variance(True, True),
    "aten.cumsum": _cumulative_sum,
    "aten.linalg_vector_norm": _norm,
    "aten.norm": _norm,
    "aten.max_pool2d_with_indices": _max_pool,
    "aten.avg_pool2d": _avg_pool,
}
