"""Causal convolutions of activated inputs, and their gradients, on a GPU.

An implicit matrix product: one program computes some outputs at some positions, tap by tap; a tap is an offset of the
position, and what it finds outside the image is zero. The activation is computed where the input is read, so it exists
in registers only. Tiles are (channels, positions): both memory formats are then read along their adjacent numbers.

A unit is a channel, or a feature of a gate: concatenated units make two features of it, gates read two channels for it.
Sums are float32; the weight's gradient is summed over parts of the positions, and these in order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .activations import concat_elu, concat_elu_slopes, gate_factors
from .masked_conv_tiles import conv_gradient_tile, conv_tile, splits, weight_gradient_tile

NO_STRIDES = (0, 0, 0, 0)


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    condition: Tensor | None,
    added: Tensor | None,
    kept: Tensor | None,
    scale: float,
    kind: str,
    padding: list[int],
    dilation: int,
    out: Tensor,
) -> None:
    """out <- bias + added + the convolution. `kept`: see `kept_features`, with `scale` of what is kept."""
    images, _, height, width = x.shape
    outputs, features, rows, columns = weight.shape
    positions = images * height * width
    tile = conv_tile(outputs, x.element_size() == 2)
    if positions == 0:
        return
    with torch.cuda.device_of(x):
        conv_kernel[(triton.cdiv(positions, tile.positions), triton.cdiv(outputs, tile.outputs))](
            x, condition, kept, weight.permute(2, 3, 0, 1).contiguous(), bias, added, out,
            positions, height, width, _units(kind, features), outputs,
            rows * columns, columns, padding[2], padding[0], dilation, scale,
            *x.stride(), *_strides(condition, x), *_strides(kept), *_strides(added), *out.stride(),
            KIND=kind, PRECISION=_precision(x), WIDE=_wide(x, condition, added, out),
            OUTPUTS=tile.outputs, POSITIONS=tile.positions, INPUTS=tile.inputs,
            num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip


def conv_input_gradient(
    upstream: Tensor,
    x: Tensor,
    weight: Tensor,
    condition: Tensor | None,
    kept: Tensor | None,
    scale: float,
    kind: str,
    padding: list[int],
    dilation: int,
    gradient: Tensor,
) -> None:
    """gradient <- that of x."""
    images, _, height, width = x.shape
    outputs, features, rows, columns = weight.shape
    positions, units = images * height * width, _units(kind, features)
    tile = conv_gradient_tile(units, x.element_size() == 2)
    if positions == 0:
        return
    with torch.cuda.device_of(x):
        conv_input_gradient_kernel[(triton.cdiv(positions, tile.positions), triton.cdiv(units, tile.outputs))](
            upstream, x, condition, kept, weight.permute(2, 3, 1, 0).contiguous(), gradient,
            positions, height, width, units, outputs,
            rows * columns, columns, padding[2], padding[0], dilation, scale,
            *upstream.stride(), *x.stride(), *_strides(condition, x), *_strides(kept), *gradient.stride(),
            KIND=kind, PRECISION=_precision(x), WIDE=_wide(x, condition, upstream),
            UNITS=tile.outputs, POSITIONS=tile.positions, INPUTS=tile.inputs,
            num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip


def conv_weight_gradient(
    upstream: Tensor,
    x: Tensor,
    shape: torch.Size,
    condition: Tensor | None,
    kept: Tensor | None,
    scale: float,
    kind: str,
    padding: list[int],
    dilation: int,
) -> Tensor:
    """The gradient of the weight of `shape` (out, features, rows, columns), in the dtype of x."""
    images, _, height, width = x.shape
    outputs, features, rows, columns = shape
    positions, units, taps = images * height * width, _units(kind, features), rows * columns
    tile = weight_gradient_tile(outputs, x.element_size() == 2)
    blocks = triton.cdiv(outputs, tile.outputs) * triton.cdiv(units, tile.inputs)
    parts = splits(blocks * taps, positions)
    sums = torch.empty((parts, rows, columns, outputs, features), dtype=torch.float32, device=x.device)
    # A whole number of steps; the last part may have fewer positions.
    share = triton.cdiv(triton.cdiv(positions, parts), tile.positions) * tile.positions
    with torch.cuda.device_of(x):
        conv_weight_gradient_kernel[(blocks, taps, parts)](
            upstream, x, condition, kept, sums,
            positions, share, height, width, units, outputs,
            columns, padding[2], padding[0], dilation, scale,
            *upstream.stride(), *x.stride(), *_strides(condition, x), *_strides(kept),
            KIND=kind, PRECISION=_precision(x), WIDE=_wide(x, condition, upstream),
            OUTPUTS=tile.outputs, POSITIONS=tile.positions, INPUTS=tile.inputs,
            num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
    return sums.sum(dim=0).permute(2, 3, 0, 1).to(x.dtype, memory_format=torch.contiguous_format)


def _units(kind: str, features: int) -> int:
    return features // 2 if kind == "concat_elu" else features


def _strides(tensor: Tensor | None, like: Tensor | None = None) -> tuple[int, ...]:
    """Of `tensor`, broadcast to `like`."""
    if tensor is None:
        return NO_STRIDES
    return (tensor if like is None else tensor.expand_as(like)).stride()


def _wide(*tensors: Tensor | None) -> bool:
    """Whether some offset takes 64 bits."""
    reaches = (
        sum((size - 1) * stride for size, stride in zip(t.shape, t.stride(), strict=True))
        for t in tensors
        if t is not None
    )
    return max(reaches) >= 1 << 31


def _precision(x: Tensor) -> str:
    """Of float32 products, as torch's own convolutions on the GPU take it from its settings."""
    return "tf32" if x.is_cuda and torch.backends.cudnn.allow_tf32 else "ieee"


@triton.jit
def conv_kernel(
    x, condition, kept, weight, bias, added, out,
    positions, height, width, units, outputs,
    taps, columns, top, left, dilation, scale,
    x_image, x_plane, x_row, x_column,
    condition_image, condition_plane, condition_row, condition_column,
    kept_image, kept_plane, kept_row, kept_column,
    added_image, added_plane, added_row, added_column,
    out_image, out_plane, out_row, out_column,
    KIND: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
    OUTPUTS: tl.constexpr, POSITIONS: tl.constexpr, INPUTS: tl.constexpr,
):  # fmt: skip
    """weight: [tap][output][feature]. An argument that is None is left out."""
    position = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    output = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    features = units * 2 if KIND == "concat_elu" else units
    image, row, column = _place(position, height, width)
    sums = tl.zeros((OUTPUTS, POSITIONS), dtype=tl.float32)
    for tap in range(taps):
        y = row + (tap // columns) * dilation - top
        z = column + (tap % columns) * dilation - left
        inside = (position < positions) & (y >= 0) & (y < height) & (z >= 0) & (z < width)
        weights = weight + (tap * outputs + output)[:, None] * features
        for start in range(0, units, INPUTS):
            unit = start + tl.arange(0, INPUTS)
            first, second = _features(
                x, condition, kept, image, y, z, inside, unit, units, scale,
                x_image, x_plane, x_row, x_column,
                condition_image, condition_plane, condition_row, condition_column,
                kept_image, kept_plane, kept_row, kept_column, KIND, WIDE,
            )  # fmt: skip
            mask = (output < outputs)[:, None] & (unit < units)[None, :]
            factor = tl.load(weights + unit[None, :], mask=mask, other=0.0)
            sums = tl.dot(factor, first.to(factor.dtype), sums, input_precision=PRECISION)
            if KIND == "concat_elu":
                factor = tl.load(weights + units + unit[None, :], mask=mask, other=0.0)
                sums = tl.dot(factor, second.to(factor.dtype), sums, input_precision=PRECISION)
    mask = (output < outputs)[:, None] & (position < positions)[None, :]
    if bias is not None:
        sums += tl.load(bias + output, mask=output < outputs, other=0.0).to(tl.float32)[:, None]
    if added is not None:
        at = added + _offsets(image, row, column, output, added_image, added_plane, added_row, added_column, WIDE)
        sums += tl.load(at, mask=mask, other=0.0).to(tl.float32)
    at = out + _offsets(image, row, column, output, out_image, out_plane, out_row, out_column, WIDE)
    tl.store(at, sums.to(out.dtype.element_ty), mask=mask)


@triton.jit
def conv_input_gradient_kernel(
    upstream, x, condition, kept, weight, gradient,
    positions, height, width, units, outputs,
    taps, columns, top, left, dilation, scale,
    upstream_image, upstream_plane, upstream_row, upstream_column,
    x_image, x_plane, x_row, x_column,
    condition_image, condition_plane, condition_row, condition_column,
    kept_image, kept_plane, kept_row, kept_column,
    gradient_image, gradient_plane, gradient_row, gradient_column,
    KIND: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
    UNITS: tl.constexpr, POSITIONS: tl.constexpr, INPUTS: tl.constexpr,
):  # fmt: skip
    """weight: [tap][feature][output]. The features' gradient in registers, then the activation's."""
    position = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    unit = tl.program_id(1) * UNITS + tl.arange(0, UNITS)
    features = units * 2 if KIND == "concat_elu" else units
    image, row, column = _place(position, height, width)
    first = tl.zeros((UNITS, POSITIONS), dtype=tl.float32)
    second = first
    for tap in range(taps):
        # The position whose sum read this one through the tap.
        y = row - ((tap // columns) * dilation - top)
        z = column - ((tap % columns) * dilation - left)
        inside = (position < positions) & (y >= 0) & (y < height) & (z >= 0) & (z < width)
        weights = weight + (tap * features + unit)[:, None] * outputs
        for start in range(0, outputs, INPUTS):
            output = start + tl.arange(0, INPUTS)
            at = upstream + _offsets(
                image, y, z, output, upstream_image, upstream_plane, upstream_row, upstream_column, WIDE,
            )  # fmt: skip
            given = tl.load(at, mask=(output < outputs)[:, None] & inside[None, :], other=0.0)
            mask = (unit < units)[:, None] & (output < outputs)[None, :]
            factor = tl.load(weights + output[None, :], mask=mask, other=0.0)
            first = tl.dot(factor, given, first, input_precision=PRECISION)
            if KIND == "concat_elu":
                factor = tl.load(weights + units * outputs + output[None, :], mask=mask, other=0.0)
                second = tl.dot(factor, given, second, input_precision=PRECISION)
    mask = (unit < units)[:, None] & (position < positions)[None, :]
    number = gradient.dtype.element_ty
    to = gradient + _offsets(
        image, row, column, unit, gradient_image, gradient_plane, gradient_row, gradient_column, WIDE,
    )  # fmt: skip
    if KIND == "none":
        tl.store(to, first.to(number), mask=mask)
    else:
        at = x + _offsets(image, row, column, unit, x_image, x_plane, x_row, x_column, WIDE)
        values = tl.load(at, mask=mask, other=0.0).to(tl.float32)
        if KIND == "concat_elu":
            if kept is not None:
                at = kept + _offsets(image, row, column, unit, kept_image, kept_plane, kept_row, kept_column, WIDE)
                bits = tl.load(at, mask=mask, other=0)
                first = tl.where((bits & 1) != 0, first * scale, 0.0)
                second = tl.where((bits & 2) != 0, second * scale, 0.0)
            slope, other_slope = concat_elu_slopes(values)
            tl.store(to, (first * slope - second * other_slope).to(number), mask=mask)
        else:
            others = tl.load(at + _further(units, x_plane, WIDE), mask=mask, other=0.0).to(tl.float32)
            if condition is not None:
                at = condition + _offsets(
                    image, row, column, unit,
                    condition_image, condition_plane, condition_row, condition_column, WIDE,
                )  # fmt: skip
                values += tl.load(at, mask=mask, other=0.0).to(tl.float32)
                others += tl.load(at + _further(units, condition_plane, WIDE), mask=mask, other=0.0).to(tl.float32)
            value, share, rest = gate_factors(values, others, KIND)
            by_value = first * share
            if KIND == "tanh":
                by_value *= 1.0 - value * value
            tl.store(to, by_value.to(number), mask=mask)
            to += _further(units, gradient_plane, WIDE)
            tl.store(to, (first * value * share * rest).to(number), mask=mask)


@triton.jit
def conv_weight_gradient_kernel(
    upstream, x, condition, kept, sums,
    positions, share, height, width, units, outputs,
    columns, top, left, dilation, scale,
    upstream_image, upstream_plane, upstream_row, upstream_column,
    x_image, x_plane, x_row, x_column,
    condition_image, condition_plane, condition_row, condition_column,
    kept_image, kept_plane, kept_row, kept_column,
    KIND: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
    OUTPUTS: tl.constexpr, POSITIONS: tl.constexpr, INPUTS: tl.constexpr,
):  # fmt: skip
    """sums[part][tap][output][feature] <- over the positions of the part, `share` of them."""
    blocks = (units + INPUTS - 1) // INPUTS
    output = (tl.program_id(0) // blocks) * OUTPUTS + tl.arange(0, OUTPUTS)
    unit = (tl.program_id(0) % blocks) * INPUTS + tl.arange(0, INPUTS)
    tap = tl.program_id(1)
    part = tl.program_id(2)
    features = units * 2 if KIND == "concat_elu" else units
    first = tl.zeros((OUTPUTS, INPUTS), dtype=tl.float32)
    second = first
    for start in range(part * share, tl.minimum(positions, (part + 1) * share), POSITIONS):
        position = start + tl.arange(0, POSITIONS)
        image, row, column = _place(position, height, width)
        at = upstream + _offsets(
            image, row, column, output, upstream_image, upstream_plane, upstream_row, upstream_column, WIDE,
        )  # fmt: skip
        given = tl.load(at, mask=(output < outputs)[:, None] & (position < positions)[None, :], other=0.0)
        y = row + (tap // columns) * dilation - top
        z = column + (tap % columns) * dilation - left
        inside = (position < positions) & (y >= 0) & (y < height) & (z >= 0) & (z < width)
        positive, negative = _features(
            x, condition, kept, image, y, z, inside, unit, units, scale,
            x_image, x_plane, x_row, x_column,
            condition_image, condition_plane, condition_row, condition_column,
            kept_image, kept_plane, kept_row, kept_column, KIND, WIDE,
        )  # fmt: skip
        first = tl.dot(given, tl.trans(positive.to(given.dtype)), first, input_precision=PRECISION)
        if KIND == "concat_elu":
            second = tl.dot(given, tl.trans(negative.to(given.dtype)), second, input_precision=PRECISION)
    mask = (output < outputs)[:, None] & (unit < units)[None, :]
    place = (part * tl.num_programs(1) + tap).to(tl.int64) * outputs + output[:, None]
    to = sums + place * features + unit[None, :]
    tl.store(to, first, mask=mask)
    if KIND == "concat_elu":
        tl.store(to + units, second, mask=mask)


@triton.jit
def _place(position, height, width):
    """Image, row and column of a position."""
    return position // (width * height), position // width % height, position % width


@triton.jit
def _offsets(
    image, row, column, plane, image_stride, plane_stride, row_stride, column_stride, WIDE: tl.constexpr
):  # fmt: skip
    """Of (planes, positions): 64 bits take twice the registers."""
    if WIDE:
        image, row, column, plane = image.to(tl.int64), row.to(tl.int64), column.to(tl.int64), plane.to(tl.int64)
    place = image * image_stride + row * row_stride + column * column_stride
    return place[None, :] + plane[:, None] * plane_stride


@triton.jit
def _further(planes, plane_stride, WIDE: tl.constexpr):
    """An offset of whole planes."""
    return tl.cast(planes, tl.int64) * plane_stride if WIDE else planes * plane_stride


@triton.jit
def _features(
    x, condition, kept, image, row, column, inside, unit, units, scale,
    x_image, x_plane, x_row, x_column,
    condition_image, condition_plane, condition_row, condition_column,
    kept_image, kept_plane, kept_row, kept_column,
    KIND: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """The features of units (units, positions), zero where not `inside`; the second only where a unit has two."""
    mask = (unit < units)[:, None] & inside[None, :]
    at = x + _offsets(image, row, column, unit, x_image, x_plane, x_row, x_column, WIDE)
    values = tl.load(at, mask=mask, other=0.0)
    if KIND == "none":
        return values, values
    else:
        values = values.to(tl.float32)
        if KIND == "concat_elu":
            first, second = concat_elu(values)
            if kept is not None:
                at = kept + _offsets(image, row, column, unit, kept_image, kept_plane, kept_row, kept_column, WIDE)
                bits = tl.load(at, mask=mask, other=0)
                first = tl.where((bits & 1) != 0, first * scale, 0.0)
                second = tl.where((bits & 2) != 0, second * scale, 0.0)
            return first, second
        else:
            others = tl.load(at + _further(units, x_plane, WIDE), mask=mask, other=0.0).to(tl.float32)
            if condition is not None:
                at = condition + _offsets(
                    image, row, column, unit,
                    condition_image, condition_plane, condition_row, condition_column, WIDE,
                )  # fmt: skip
                values += tl.load(at, mask=mask, other=0.0).to(tl.float32)
                others += tl.load(at + _further(units, condition_plane, WIDE), mask=mask, other=0.0).to(tl.float32)
            value, share, _ = gate_factors(values, others, KIND)
            return value * share, value
