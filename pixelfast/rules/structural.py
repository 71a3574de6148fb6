"""Operations that only move elements: run on codes instead of numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from .common import Codes, as_codes


def _run(builder: Any, call: Any, *args: Any, indices: bool = False, **kwargs: Any) -> Any:
    """The operation itself, on a tensor of codes. float64 holds codes exactly, for operations that take no integers.

    `indices`: integer constants are indices and stay what they are.
    """

    def argument(a: Any, kind: torch.dtype) -> Any:
        if isinstance(a, Codes):
            return torch.from_numpy(np.ascontiguousarray(a.array)).to(kind)
        if isinstance(a, torch.Tensor) and (a.is_floating_point() or not indices):
            return torch.from_numpy(np.ascontiguousarray(as_codes(builder, a))).to(kind)
        if isinstance(a, (list, tuple)):
            return type(a)(argument(item, kind) for item in a)
        return a

    native = torch.int32 if builder.space.dtype == np.int32 else torch.int64
    for kind in (native, torch.float64):
        try:
            result = call.op(*(argument(a, kind) for a in args), **{k: argument(v, kind) for k, v in kwargs.items()})
            break
        except RuntimeError:
            if kind is torch.float64:
                raise
    items = result if isinstance(result, (list, tuple)) else [result]
    return [Codes(item.to(native).numpy(), _kind(args)) for item in items]


def _kind(args: Sequence[Any]) -> torch.dtype:
    for a in args:
        for item in a if isinstance(a, (list, tuple)) else (a,):
            if isinstance(item, Codes):
                return item.dtype
    return torch.float64


def _cat(builder: Any, call: Any, tensors: Sequence[Any], dim: int = 0) -> Codes:
    arrays = [as_codes(builder, t) for t in tensors]
    arrays = [a for a in arrays if a.shape != (0,)]
    return Codes(np.concatenate(arrays, axis=dim), _kind([list(tensors)]))


def _stack(builder: Any, call: Any, tensors: Sequence[Any], dim: int = 0) -> Codes:
    return Codes(np.stack([as_codes(builder, t) for t in tensors], axis=dim), _kind([list(tensors)]))


def _pad(builder: Any, call: Any, x: Codes, pad: Sequence[int], value: float = 0.0) -> Codes:
    fill = int(as_codes(builder, float(value))) if value else 0
    tensor = torch.from_numpy(np.ascontiguousarray(x.array))
    return Codes(torch.constant_pad_nd(tensor, list(pad), fill).numpy(), x.dtype)


def _copy(builder: Any, call: Any, target: Any, source: Any, *_: Any) -> Any:
    """Into a buffer of integers or truth values numbers are cast."""
    if isinstance(source, Codes):
        return _to_copy(builder, call, source, call.outputs[0].dtype)
    return source


def _fill(builder: Any, call: Any, target: Codes, value: Any) -> Codes:
    return Codes(np.broadcast_to(as_codes(builder, value), target.array.shape), target.dtype)


def _zero(builder: Any, call: Any, target: Codes) -> Codes:
    return Codes(np.zeros_like(target.array), target.dtype)


def _clone(builder: Any, call: Any, x: Codes, **_: Any) -> Codes:
    return x


def _to_copy(builder: Any, call: Any, x: Codes, dtype: torch.dtype | None = None, **_: Any) -> Codes:
    """Casts between float types are dropped; to integers truncates; to bool asks whether a number is not zero."""
    if dtype is None or dtype == x.dtype or not x.dtype.is_floating_point:
        if dtype == torch.bool and x.dtype != torch.bool:
            return Codes(builder.pointwise("aten.ne.Scalar", [x.array, 0]), torch.bool)
        return Codes(x.array, dtype or x.dtype)
    if dtype.is_floating_point:
        return Codes(x.array, dtype)
    if dtype == torch.bool:
        return Codes(builder.pointwise("aten.ne.Scalar", [x.array, 0]), dtype)
    return Codes(builder.pointwise("aten.trunc.default", [x.array]), dtype)


def _triangle(builder: Any, call: Any, x: Codes, diagonal: int = 0) -> Codes:
    keep = getattr(np, call.name.split(".")[1].rstrip("_"))(np.ones(x.array.shape, dtype=bool), diagonal)
    return Codes(np.where(keep, x.array, 0), x.dtype)


def _constant_index(*indices: Any) -> None:
    for index in indices:
        if isinstance(index, Codes):
            raise NotImplementedError("an index that depends on the image or the condition")


def _index(builder: Any, call: Any, x: Any, indices: Sequence[Any]) -> Any:
    """x[i, j, ...]. Indexing a constant by image levels is an embedding."""
    if isinstance(x, torch.Tensor):
        dynamic = [i for i in indices if isinstance(i, Codes)]
        if len(dynamic) == 1 and isinstance(indices[0], Codes) and all(i is None for i in indices[1:]):
            from .contraction import embed

            counted = builder.pointwise("aten.remainder.Scalar", [indices[0].array, len(x)])  # -1 is the last row
            return embed(builder, x, Codes(counted, indices[0].dtype))
        _constant_index(*indices)
    _constant_index(*indices)
    return _run(builder, call, x, list(indices), indices=True)


def _index_put(builder: Any, call: Any, x: Any, indices: Sequence[Any], values: Any, accumulate: bool = False) -> Codes:
    _constant_index(*indices)
    if accumulate:
        raise NotImplementedError("index_put with accumulate=True")
    codes = torch.from_numpy(np.array(as_codes(builder, x)))
    new = torch.from_numpy(np.ascontiguousarray(as_codes(builder, values)))
    return Codes(torch.ops.aten.index_put(codes, list(indices), new.to(codes.dtype)).numpy(), _kind([[x, values]]))


def _with_index(builder: Any, call: Any, x: Any, dim: int, index: Any, *rest: Any, **kwargs: Any) -> Any:
    _constant_index(index)
    return _run(builder, call, x, dim, index, *rest, indices=True, **kwargs)


def _scatter(builder: Any, call: Any, x: Any, dim: int, index: Any, source: Any, **kwargs: Any) -> Any:
    """scatter(zeros, dim, levels, value) is a one-hot code."""
    if not isinstance(index, Codes):
        if isinstance(source, (int, float)):
            source = torch.full(tuple(index.shape), float(source), dtype=torch.float64)
        codes = torch.from_numpy(np.array(as_codes(builder, x)))
        new = torch.from_numpy(np.ascontiguousarray(as_codes(builder, source))).to(codes.dtype)
        return Codes(codes.scatter(dim, index, new).numpy(), _kind([[x, source]]))
    if isinstance(x, Codes) or isinstance(source, Codes) or kwargs.get("reduce") or bool(x.any()):
        raise NotImplementedError("a scatter other than a one-hot code of levels into zeros")
    value = source if isinstance(source, (int, float)) else source.flatten()[0].item()
    if isinstance(source, torch.Tensor) and bool((source != value).any()):
        raise NotImplementedError("a scatter other than a one-hot code of levels into zeros")
    dim %= x.ndim
    if index.array.shape[dim] != 1 or any(
        a != b for i, (a, b) in enumerate(zip(index.array.shape, x.shape, strict=True)) if i != dim
    ):
        raise NotImplementedError("a scatter other than a one-hot code of levels into zeros")
    levels = torch.arange(x.shape[dim], dtype=torch.float64).reshape([-1 if i == dim else 1 for i in range(x.ndim)])
    hot = builder.pointwise("aten.eq.Tensor", [index.array, levels])
    if value != 1:
        hot = builder.pointwise("aten.mul.Tensor", [hot, float(value)])
    return Codes(hot, x.dtype)


_MOVES = (
    "roll flip repeat pixel_shuffle pixel_unshuffle channel_shuffle upsample_nearest1d upsample_nearest2d "
    "_upsample_nearest_exact2d reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d im2col "
    "slice_scatter select_scatter diag_embed view_copy slice_copy permute_copy expand_copy narrow_copy "
    "split_with_sizes_copy unfold_copy rot90"
).split()

RULES: dict[str, Callable[..., Any]] = {
    **{f"aten.{name}": _run for name in _MOVES},
    "aten.cat": _cat,
    "aten.stack": _stack,
    "aten.constant_pad_nd": _pad,
    "aten.copy_": _copy,
    "aten.fill": _fill,
    "aten.fill_": _fill,
    "aten.zero_": _zero,
    "aten.zero": _zero,
    "aten.clone": _clone,
    "aten.contiguous": _clone,
    "aten.lift_fresh_copy": _clone,
    "aten._unsafe_view": lambda builder, call, x, size: Codes(x.array.reshape(size), x.dtype),
    "aten._reshape_copy": lambda builder, call, x, size: Codes(x.array.reshape(size), x.dtype),
    "aten._to_copy": _to_copy,
    "aten.tril": _triangle,
    "aten.triu": _triangle,
    "aten.index": _index,
    "aten._unsafe_index": _index,
    "aten.index_put": _index_put,
    "aten._index_put_impl": _index_put,
    "aten.index_select": _with_index,
    "aten.gather": _with_index,
    "aten.scatter": _scatter,
}
