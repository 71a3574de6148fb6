"""A gated block as the convolutions it is made of, by any implementation of them (see `masked_conv_core`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Conv = Callable[..., Tensor]
ConvBackward = Callable[..., tuple[Tensor, Tensor, Tensor]]

POINT = [0, 0, 0, 0]
"""Padding of a 1x1 kernel."""


def gates(v: Tensor, h: Tensor) -> bool:
    """Whether v is read through its gate."""
    return v.shape[1] == 2 * h.shape[1]


def reaches(weight: Tensor, dilation: int) -> tuple[list[int], list[int]]:
    """Padding of the vertical and of the horizontal kernel; weight: (2 F, F, k // 2 + 1, k)."""
    reach = dilation * (weight.shape[2] - 1)
    return [reach, reach, reach, 0], [reach, 0, 0, 0]


def forward(
    conv: Conv,
    v: Tensor,
    h: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    v_condition: Tensor | None,
    h_condition: Tensor | None,
    dilation: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """above, left and out."""
    kind, (vertical, horizontal) = "tanh" if gates(v, h) else "none", reaches(weights[0], dilation)
    dilations = [dilation, dilation]
    above = conv(v, weights[0], biases[0], v_condition, None, None, kind, vertical, dilations, 0.0)
    link = conv(above, weights[2], biases[2], None, None, None, "none", POINT, [1, 1], 0.0)
    left = conv(h, weights[1], biases[1], None, link, None, "none", horizontal, dilations, 0.0)
    return above, left, conv(left, weights[3], biases[3], h_condition, h, None, "tanh", POINT, [1, 1], 0.0)


def backward(
    conv_backward: ConvBackward,
    above_gradient: Tensor | None,
    out_gradient: Tensor,
    v: Tensor,
    h: Tensor,
    above: Tensor,
    left: Tensor,
    weights: Sequence[Tensor],
    v_condition: Tensor | None,
    h_condition: Tensor | None,
    dilation: int,
    needs: Sequence[bool],
) -> tuple[Tensor, ...]:
    """Gradients of v, h, left, the weights and the biases; those that are not needed may be empty."""
    kind, (vertical, horizontal) = "tanh" if gates(v, h) else "none", reaches(weights[0], dilation)
    of_weights, of_biases = needs[3:7], needs[7:]

    def back(
        i: int, upstream: Tensor, x: Tensor, condition: Tensor | None, kind: str, padding: list[int], reads: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        dilations = [1, 1] if padding is POINT else [dilation, dilation]
        wanted = [reads, of_weights[i], of_biases[i]]
        return conv_backward(upstream, x, weights[i], condition, None, kind, padding, dilations, 0.0, wanted)

    of_left, mix, mix_bias = back(3, out_gradient, left, h_condition, "tanh", POINT, True)
    of_h, side, side_bias = back(1, of_left, h, None, "none", horizontal, needs[1])
    if needs[1]:
        of_h = of_h + out_gradient
    of_above, link, link_bias = back(2, of_left, above, None, "none", POINT, True)
    if above_gradient is not None:
        of_above = of_above + above_gradient
    of_v, upper, upper_bias = back(0, of_above, v, v_condition, kind, vertical, needs[0])
    if not needs[2]:
        of_left = left.new_empty(0)
    return of_v, of_h, of_left, upper, side, link, mix, upper_bias, side_bias, link_bias, mix_bias


def composed(
    masked_conv: Callable[..., Tensor],
    gated_conv: Callable[..., Tensor],
    v: Tensor,
    h: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    v_condition: Tensor | None,
    h_condition: Tensor | None,
    dilation: int,
) -> tuple[Tensor, Tensor]:
    """above and out, from differentiable functions like `masked_conv` and `gated_conv`."""
    vertical, horizontal = (tuple(padding) for padding in reaches(weights[0], dilation))
    settings = {"padding": vertical, "dilation": dilation}
    if gates(v, h):
        above = gated_conv(v, weights[0], biases[0], condition=v_condition, **settings)
    else:
        above = masked_conv(v, weights[0], biases[0], **settings)
    link = masked_conv(above, weights[2], biases[2])
    left = masked_conv(h, weights[1], biases[1], padding=horizontal, dilation=dilation, added=link)
    return above, gated_conv(left, weights[3], biases[3], condition=h_condition, added=h)


def empty_gradients(
    v: Tensor, h: Tensor, left: Tensor, weights: Sequence[Tensor], needs: Sequence[bool]
) -> tuple[Tensor, ...]:
    """Room for what `backward` returns; empty where nothing is needed."""
    biases = [weight.new_empty(weight.shape[0]) for weight in weights]
    dense = [weight.new_empty(weight.shape) for weight in weights]
    likes = [torch.empty_like(v), torch.empty_like(h), torch.empty_like(left), *dense, *biases]
    return tuple(like if needed else h.new_empty(0) for like, needed in zip(likes, needs, strict=True))
