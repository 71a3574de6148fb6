"""Sums of products with constant weights: convolutions, linear layers, embeddings."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from .attention import Deferred, follow, followed, multiply
from .common import Codes


def _note_zero(builder: Any, weight: np.ndarray) -> None:
    if not weight.any():
        builder.graph.notes.append(f"{builder.where}: all weights are zero, so it carries no dependency")


def _convolution(
    builder: Any,
    call: Any,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Codes:
    if isinstance(weight, Codes):
        raise NotImplementedError("a convolution whose weights depend on the image or the condition")
    size = call.outputs[0].size[2:]
    batch, channels, *spatial = x.array.shape
    taps = []
    inputs_last = (0, 1) if transposed else (1, 0)
    kernel = weight.permute(*range(2, weight.ndim), *inputs_last).contiguous().numpy()  # (*kernel size, in, out)
    _note_zero(builder, kernel)
    for tap in itertools.product(*(range(k) for k in kernel.shape[:-2])):
        site_map = _tap_sites(size, spatial, tap, stride, padding, dilation, transposed)
        offsets = np.arange(batch)[:, None] * math.prod(spatial)  # rows of the image may lie in the batch axis
        site_map = np.where(site_map < 0, -1, site_map + offsets).reshape(-1)
        dense = _dense(kernel[tap], groups, transposed)
        taps.append((site_map, dense))
    matrix = np.ascontiguousarray(np.moveaxis(x.array, 1, 0)).reshape(channels, -1)
    codes = builder.contract(matrix, taps, None if bias is None else bias.numpy())
    return Codes(np.moveaxis(codes.reshape(-1, batch, *size), 0, 1), x.dtype)


def _tap_sites(
    size: Sequence[int],
    spatial: Sequence[int],
    tap: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
) -> np.ndarray:
    """For each output position the input position that this tap reads, or -1."""
    site = np.zeros((1,) * len(size), dtype=np.int64)
    valid = np.ones((1,) * len(size), dtype=bool)
    for axis, (outs, ins) in enumerate(zip(size, spatial, strict=True)):
        at = np.arange(outs)
        if transposed:
            scaled = at + padding[axis] - tap[axis] * dilation[axis]
            at, rest = np.divmod(scaled, stride[axis])
            inside = (rest == 0) & (at >= 0) & (at < ins)
        else:
            at = at * stride[axis] - padding[axis] + tap[axis] * dilation[axis]
            inside = (at >= 0) & (at < ins)
        shape = [-1 if i == axis else 1 for i in range(len(size))]
        site = site * ins + np.where(inside, at, 0).reshape(shape)
        valid = valid & inside.reshape(shape)
    return np.asarray(np.where(valid, site, -1)).reshape(-1)


def _dense(tap: np.ndarray, groups: int, transposed: bool) -> np.ndarray:
    """One tap's weight as (Cin, Cout); grouped weights become block-diagonal.

    tap: (Cin / groups, Cout), or transposed (Cin, Cout / groups).
    """
    if groups == 1:
        return tap
    ins, outs = (tap.shape[0] // groups, tap.shape[1]) if transposed else (tap.shape[0], tap.shape[1] // groups)
    dense = np.zeros((groups * ins, groups * outs))
    for g in range(groups):
        block = tap[g * ins : (g + 1) * ins] if transposed else tap[:, g * outs : (g + 1) * outs]
        dense[g * ins : (g + 1) * ins, g * outs : (g + 1) * outs] = block
    return dense


def linear(builder: Any, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """codes (rows, K) @ weight (K, O) + bias (O,)."""
    _note_zero(builder, weight)
    return np.asarray(builder.contract(np.ascontiguousarray(x.T), [(None, weight)], bias)).T


def _constant_factor(a: Any, b: Any) -> bool:
    return isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor)


def _mm(builder: Any, call: Any, a: Any, b: Any) -> Any:
    if not _constant_factor(a, b) or isinstance(a, Deferred) or isinstance(b, Deferred):
        return _first(multiply(builder, call, _batched(a), _batched(b)))
    if isinstance(a, Codes):
        return Codes(linear(builder, a.array, b.numpy(), None), a.dtype)
    return Codes(linear(builder, b.array.T, a.numpy().T, None).T, b.dtype)


def _batched(x: Any) -> Any:
    """A matrix as a batch of one."""
    if isinstance(x, Codes):
        return Codes(x.array[None], x.dtype)
    return replace(x, shape=(1, *x.shape)) if isinstance(x, Deferred) else x[None]


def _first(x: Any) -> Any:
    return replace(x, shape=x.shape[1:]) if isinstance(x, Deferred) else Codes(x.array[0], x.dtype)


def _addmm(builder: Any, call: Any, bias: Any, a: Any, b: Any, beta: Any = 1, alpha: Any = 1) -> Any:
    if beta == 1 and alpha == 1 and isinstance(bias, torch.Tensor) and bias.ndim == 1 and isinstance(b, torch.Tensor):
        return Codes(linear(builder, followed(builder, a).array, b.numpy(), bias.numpy()), a.dtype)
    return _scaled_sum(builder, call, bias, _mm(builder, call, a, b), beta, alpha)


def _scaled_sum(builder: Any, call: Any, added: Any, product: Any, beta: Any, alpha: Any) -> Any:
    """beta * added + alpha * product."""
    if isinstance(product, Deferred):
        if not isinstance(added, torch.Tensor):
            product = followed(builder, product)
        else:
            scaled = follow(builder, call, "aten.mul", [product, float(alpha)], {})
            return scaled if beta == 0 else follow(builder, call, "aten.add", [scaled, added * beta], {})
    codes = product.array
    if alpha != 1:
        codes = builder.pointwise("aten.mul.Tensor", [codes, alpha])
    if beta == 0:
        return Codes(codes, call.outputs[0].dtype)
    term = added.array if isinstance(added, Codes) else added
    if beta != 1:
        term = builder.pointwise("aten.mul.Tensor", [term, beta]) if isinstance(added, Codes) else term * beta
    return Codes(builder.pointwise("aten.add.Tensor", [codes, term]), call.outputs[0].dtype)


def _bmm(builder: Any, call: Any, a: Any, b: Any) -> Any:
    """One product per entry of the first axis."""
    if not _constant_factor(a, b):
        return multiply(builder, call, a, b)
    a, b = followed(builder, a), followed(builder, b)
    parts = []
    for i in range(call.outputs[0].size[0]):
        left = Codes(a.array[i], a.dtype) if isinstance(a, Codes) else a[i]
        right = Codes(b.array[i], b.dtype) if isinstance(b, Codes) else b[i]
        parts.append(_mm(builder, call, left, right).array)
    return Codes(np.stack(parts), call.outputs[0].dtype)


def _mv(builder: Any, call: Any, a: Any, b: Any) -> Codes:
    if isinstance(a, Codes) and isinstance(b, torch.Tensor):
        return Codes(linear(builder, a.array, b.numpy()[:, None], None)[:, 0], a.dtype)
    raise NotImplementedError("a product of a matrix and a vector that both depend on the image")


def embed(builder: Any, table: torch.Tensor, levels: Codes) -> Codes:
    """table[levels]: a contraction of the levels' one-hot code."""
    rows = table.reshape(table.shape[0], -1).to(torch.float64).numpy()
    numbers = torch.arange(len(rows), dtype=torch.float64)
    axes = builder.site_axes(levels.array)
    order = [a for a in range(levels.ndim) if a not in axes] + sorted(axes)
    shape = [levels.array.shape[a] for a in order]
    channels = int(np.prod(shape[: levels.ndim - len(axes)], dtype=np.int64))
    matrix = np.ascontiguousarray(levels.array.transpose(order)).reshape(channels, -1)
    parts = []
    for channel in range(channels):
        hot = builder.pointwise("aten.eq.Tensor", [matrix[channel][None], numbers[:, None]])
        parts.append(builder.contract(np.ascontiguousarray(hot), [(None, rows)], None))
    codes = np.stack(parts)  # (channels, embedding, sites)
    codes = np.moveaxis(codes, 1, -1).reshape(*shape, rows.shape[1]).transpose([*np.argsort(order), levels.ndim])
    return Codes(codes.reshape(*levels.array.shape, *table.shape[1:]), table.dtype)


def _embedding(builder: Any, call: Any, table: Any, levels: Any, *_: Any) -> Codes:
    if isinstance(table, Codes):
        raise NotImplementedError("an embedding whose rows depend on the image or the condition")
    return embed(builder, table, levels)


RULES: dict[str, Callable[..., Any]] = {
    "aten.convolution": _convolution,
    "aten._convolution": lambda builder, call, *args: _convolution(builder, call, *args[:9]),
    "aten.mm": _mm,
    "aten.addmm": _addmm,
    "aten.bmm": _bmm,
    "aten.baddbmm": lambda builder, call, added, a, b, beta=1, alpha=1: _scaled_sum(
        builder, call, added, _bmm(builder, call, a, b), beta, alpha
    ),
    "aten.mv": _mv,
    "aten.embedding": _embedding,
}
