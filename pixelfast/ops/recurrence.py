"""The one registered operation behind `row_lstm` and `diagonal_lstm`: an LSTM whose state is a line of cells.

    o, f, i, g = sigmoid, sigmoid, sigmoid, tanh of gates[t] + bias + convolution of the line of hidden states h[t - 1]
    c[t] = f * c[t - 1] + i * g
    h[t] = o * tanh(c[t])

Only the steps are a loop. The gradients of all steps' weights are one matrix product at the end.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelfast.errors import ShapeError

from .masked_conv_core import FLOATS, autocasts

GATES = 4
"""Their order along the channels is o, f, i, g."""


def lstm(
    gates: Tensor, weight: Tensor, bias: Tensor | None, hidden: Tensor | None, cell: Tensor | None, before: int
) -> Tensor:
    """Checks and calls the operation.

    Args:
        gates: (N, 4 C, T, L), what the steps' lines are given from outside.
        weight: (4 C, C, taps); tap j of position l reads position l + j - before of the line before, or zero.
        bias: (4 C,) or (1,), or None.
        hidden, cell: the line before the first, (C,) or (C, L), or None for zeros.

    Returns:
        (N, C, T, L), in the dtype of the gates.
    """
    if autocasts(gates):
        weight = weight.to(gates.dtype)
        bias, hidden, cell = (None if t is None else t.to(gates.dtype) for t in (bias, hidden, cell))
    _check(gates, weight, bias, hidden, cell)
    features, length = weight.shape[1], gates.shape[3]
    if bias is not None:
        bias = bias.expand(GATES * features)
    hidden, cell = (None if t is None else _line(t, length) for t in (hidden, cell))
    return torch.ops.pixelfast.lstm(gates, weight, bias, hidden, cell, before)[0]


def _line(state: Tensor, length: int) -> Tensor:
    return (state[:, None] if state.ndim == 1 else state).expand(-1, length)


def _check(gates: Tensor, weight: Tensor, bias: Tensor | None, hidden: Tensor | None, cell: Tensor | None) -> None:
    if gates.ndim != 4 or gates.dtype not in FLOATS:
        raise ShapeError(
            f"the gates have dtype {gates.dtype} and shape {tuple(gates.shape)}; they must be floats (N, 4 C, H, W)"
        )
    if 0 in gates.shape[1:]:
        raise ShapeError(f"the gates have shape {tuple(gates.shape)}; only the number of images may be 0")
    if weight.ndim != 3 or weight.shape[0] != GATES * weight.shape[1]:
        raise ShapeError(f"the weight has shape {tuple(weight.shape)}; it must be (4 C, C, taps)")
    features = weight.shape[1]
    if gates.shape[1] != GATES * features:
        raise ShapeError(f"the gates have {gates.shape[1]} channels; the weight is for {GATES * features}")
    if bias is not None and tuple(bias.shape) not in ((1,), (GATES * features,)):
        raise ShapeError(f"the bias has shape {tuple(bias.shape)}; it must be (1,) or ({GATES * features},)")
    for name, state in (("hidden", hidden), ("cell", cell)):
        if state is not None and tuple(state.shape) not in ((features,), (features, gates.shape[3])):
            raise ShapeError(
                f"{name} has shape {tuple(state.shape)}; it must be ({features},) or "
                f"({features}, {gates.shape[3]}), one state per position of a line"
            )
    for tensor in (weight, bias, hidden, cell):
        if tensor is not None and (tensor.dtype != gates.dtype or tensor.device != gates.device):
            raise ShapeError(
                f"the gates are {gates.dtype} on {gates.device} and another argument is {tensor.dtype} on "
                f"{tensor.device}; they must be alike"
            )


def _windows(padded: Tensor, taps: int) -> Tensor:
    """(..., L + taps - 1, C) -> (..., L, taps * C), a view: what each position's taps read lies side by side."""
    *rest, length, features = padded.shape
    size = (*rest, length - taps + 1, taps * features)
    return padded.as_strided(size, padded.stride(), padded.storage_offset())


def _matrix(weight: Tensor) -> Tensor:
    """(4 C, C, taps) -> (taps * C, 4 C)."""
    return weight.permute(2, 1, 0).reshape(-1, weight.shape[0])


def _compute_type(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


# Not torch.library.custom_op: the first call of such an operation imports the whole of torch's compiler, seconds that
# everybody who compiles a model here would wait for.
torch.library.define(
    "pixelfast::lstm",
    "(Tensor gates, Tensor weight, Tensor? bias, Tensor? hidden, Tensor? cell, int before) -> (Tensor, Tensor, Tensor)",
)
torch.library.define(
    "pixelfast::lstm_backward",
    "(Tensor upstream, Tensor active, Tensor cells, Tensor weight, Tensor? hidden, int before) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
)


@torch.library.impl("pixelfast::lstm", "default")
def _lstm(
    gates: Tensor, weight: Tensor, bias: Tensor | None, hidden: Tensor | None, cell: Tensor | None, before: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Also returns what the backward pass needs: gates (T, N, L, 4 C) after their functions, cells (T + 1, N, L, C)."""
    kind = _compute_type(gates.dtype)
    images, _, steps, length = gates.shape
    _, features, taps = weight.shape
    active = torch.empty((steps, images, length, GATES * features), dtype=kind, device=gates.device)
    active.copy_(gates.permute(2, 0, 3, 1))
    if bias is not None:
        active += bias.to(kind)
    matrix = _matrix(weight.to(kind)).contiguous()
    states = active.new_zeros(steps + 1, images, length + taps - 1, features)
    inside = states[:, :, before : before + length]
    cells = active.new_zeros(steps + 1, images, length, features)
    if hidden is not None:
        inside[0] = hidden.T
    if cell is not None:
        cells[0] = cell.T
    windows = _windows(states, taps)
    for t in range(steps):
        line = active[t]
        line.view(-1, GATES * features).addmm_(windows[t].reshape(-1, taps * features), matrix)
        line[..., : 3 * features].sigmoid_()
        line[..., 3 * features :].tanh_()
        o, f, i, g = line.split(features, dim=-1)
        torch.mul(f, cells[t], out=cells[t + 1]).addcmul_(i, g)
        inside[t + 1] = o * torch.tanh(cells[t + 1])
    result = torch.empty((images, features, steps, length), dtype=gates.dtype, device=gates.device)
    result.copy_(inside[1:].permute(1, 3, 0, 2))
    return result, active, cells


@torch.library.register_fake("pixelfast::lstm")
def _(
    gates: Tensor, weight: Tensor, bias: Tensor | None, hidden: Tensor | None, cell: Tensor | None, before: int
) -> tuple[Tensor, Tensor, Tensor]:
    images, channels, steps, length = gates.shape
    features = weight.shape[1]
    kind = _compute_type(gates.dtype)
    return (
        gates.new_empty(images, features, steps, length),
        gates.new_empty(steps, images, length, channels, dtype=kind),
        gates.new_empty(steps + 1, images, length, features, dtype=kind),
    )


@torch.library.impl("pixelfast::lstm_backward", "default")
def _lstm_backward(
    upstream: Tensor, active: Tensor, cells: Tensor, weight: Tensor, hidden: Tensor | None, before: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of gates (N, 4 C, T, L), weight, and the first line's hidden and cell, (C, L)."""
    kind = active.dtype
    steps, images, length, _ = active.shape
    _, features, taps = weight.shape
    matrix = _matrix(weight.to(kind)).T.contiguous()
    of_states = upstream.to(kind).permute(2, 0, 3, 1)
    of_gates = torch.empty_like(active)
    of_line = active.new_zeros(images, length, features)
    of_cell = torch.zeros_like(of_line)
    squashed = torch.tanh(cells[1:])
    for t in reversed(range(steps)):
        o, f, i, g = active[t].split(features, dim=-1)
        of_o, of_f, of_i, of_g = of_gates[t].split(features, dim=-1)
        of_state = of_states[t] + of_line
        of_cell = of_cell + of_state * o * (1 - squashed[t].square())
        of_o.copy_(of_state * squashed[t] * o * (1 - o))
        of_f.copy_(of_cell * cells[t] * f * (1 - f))
        of_i.copy_(of_cell * g * i * (1 - i))
        of_g.copy_(of_cell * i * (1 - g.square()))
        of_cell = of_cell * f
        of_windows = (of_gates[t].view(-1, GATES * features) @ matrix).view(images, length, taps, features)
        padded = active.new_zeros(images, length + taps - 1, features)
        for tap in range(taps):
            padded[:, tap : tap + length] += of_windows[:, :, tap]
        of_line = padded[:, before : before + length]
    states = active.new_zeros(steps, images, length + taps - 1, features)
    states[1:, :, before : before + length] = active[:-1, ..., :features] * squashed[:-1]
    if hidden is not None:
        states[0, :, before : before + length] = hidden.T
    read = _windows(states, taps).reshape(-1, taps * features)
    of_weight = (read.T @ of_gates.view(-1, GATES * features)).view(taps, features, -1).permute(2, 1, 0)
    kinds = upstream.dtype
    return (
        of_gates.permute(1, 3, 0, 2).to(kinds).contiguous(),
        of_weight.to(kinds).contiguous(),
        of_line.sum(0).T.to(kinds).contiguous(),
        of_cell.sum(0).T.to(kinds).contiguous(),
    )


@torch.library.register_fake("pixelfast::lstm_backward")
def _(
    upstream: Tensor, active: Tensor, cells: Tensor, weight: Tensor, hidden: Tensor | None, before: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    steps, images, length, channels = active.shape
    features = weight.shape[1]
    line = upstream.new_empty(features, length)
    return upstream.new_empty(images, channels, steps, length), torch.empty_like(weight), line, torch.empty_like(line)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    _, weight, bias, hidden, cell, ctx.before = inputs
    _, active, cells = output
    ctx.has = bias is not None, hidden is not None, cell is not None
    ctx.save_for_backward(active, cells, weight, hidden)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, upstream: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if upstream is None:
        return (None,) * 6
    active, cells, weight, hidden = ctx.saved_tensors
    of_gates, of_weight, of_hidden, of_cell = torch.ops.pixelfast.lstm_backward(
        upstream, active, cells, weight, hidden, ctx.before
    )
    has_bias, has_hidden, has_cell = ctx.has
    of_bias = of_gates.sum((0, 2, 3)) if has_bias else None
    return of_gates, of_weight, of_bias, of_hidden if has_hidden else None, of_cell if has_cell else None, None


def _refuse(ctx: Any, *upstream: Tensor) -> tuple[None, ...]:
    raise NotImplementedError("row_lstm and diagonal_lstm are differentiable once; use their references for more")


torch.library.register_autograd("pixelfast::lstm", _differentiate, setup_context=_save)
torch.library.register_autograd("pixelfast::lstm_backward", _refuse)


def lstm_reference(
    gates: Tensor, weight: Tensor, bias: Tensor | None, hidden: Tensor | None, cell: Tensor | None, before: int
) -> Tensor:
    """`lstm` in plain torch, line after line."""
    images, _, steps, length = gates.shape
    features, taps = weight.shape[1:]
    h, c = (
        gates.new_zeros(images, features, length) if t is None else _line(t, length).expand(images, -1, -1)
        for t in (hidden, cell)
    )
    lines = []
    for t in range(steps):
        total = gates[:, :, t] + F.conv1d(F.pad(h, (before, taps - 1 - before)), weight)
        if bias is not None:
            total = total + bias[:, None]
        o, f, i, g = total.chunk(GATES, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        lines.append(h)
    return torch.stack(lines, dim=2)
