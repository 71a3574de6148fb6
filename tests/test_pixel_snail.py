"""PixelSNAIL: the naive sampler's integers, its own parameters, its attention written out position by position."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from comparators import assert_agree_in_float64
from test_cached_equals_naive import check, check_float32, randomised
from torch import Tensor

import pixelfast
from pixelfast.backends.registry import ORDER
from pixelfast.errors import PixelfastError, ShapeError
from pixelfast.models import PixelSNAIL
from pixelfast.models.causal_attention import causal_attention, positions_of

SMALL: dict[str, Any] = {"attentions": 2, "blocks": 1, "filters": 6, "key_width": 3, "mixtures": 2}


def snail(shape: tuple[int, int, int], **changes: Any) -> PixelSNAIL:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return randomised(PixelSNAIL(shape, **(SMALL | changes)))


@pytest.mark.parametrize(
    ("shape", "changes"),
    [
        ((1, 5, 7), {"classes": 3}),
        ((3, 4, 3), {}),
        ((3, 3, 4), {"activation": "concat_elu", "classes": 3}),
        ((1, 1, 1), {}),
        ((1, 1, 6), {"blocks": 0}),
    ],
)
def test_cached_is_naive(shape, changes):
    check(snail(shape, **changes), samples=2)


@pytest.mark.parametrize("backend", ORDER)
@pytest.mark.parametrize("shape", [(1, 5, 7), (3, 4, 3)])
def test_float32(shape, backend):
    check_float32(snail(shape), backend)


def test_float32_at_a_larger_size():
    """More positions than a reduction is unrolled over."""
    check_float32(snail((1, 19, 17)), "cpu")


def attended_slowly(query: Tensor, key: Tensor, value: Tensor, epsilon: float) -> Tensor:
    """One position at a time, from the definition."""
    n, width, rows, columns = query.shape
    flat = [x.flatten(2) for x in (query, key, value)]
    out = torch.zeros_like(value).flatten(2)
    for image in range(n):
        for i in range(1, rows * columns):
            scores = [float(flat[0][image, :, i] @ flat[1][image, :, j]) / math.sqrt(width) for j in range(i)]
            powers = [math.exp(score - max(scores)) for score in scores]
            for j, power in enumerate(powers):
                out[image, :, i] += power / (sum(powers) + epsilon) * flat[2][image, :, j]
    return out.view_as(value)


@pytest.mark.parametrize(("heads", "epsilon"), [(1, 1e-6), (1, 0.0), (3, 0.0)])
def test_attention_by_its_definition(heads, epsilon):
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(2, heads * width, 3, 4, generator=generator, dtype=torch.float64) for width in (4, 4, 2)
    )
    expected = [
        attended_slowly(*(x.unflatten(1, (heads, -1))[:, head] for x in (query, key, value)), epsilon)
        for head in range(heads)
    ]
    assert_agree_in_float64(causal_attention(query, key, value, heads, epsilon=epsilon), torch.cat(expected, dim=1))


def test_gradients_of_the_first_position_are_numbers():
    query, key, value = (torch.randn(1, 2, 2, 2, requires_grad=True) for _ in range(3))
    causal_attention(query, key, value).sum().backward()
    assert all(x.grad.isfinite().all() for x in (query, key, value))
    assert (value.grad.flatten(2)[..., -1] == 0).all()


def test_positions_are_the_published_ones():
    places = positions_of(torch.zeros(1, 3, 4, 2))
    assert places.shape == (1, 2, 4, 2)
    assert places[0, 0, :, 0].tolist() == [-0.5, -0.25, 0.0, 0.25]
    assert places[0, 1, 0].tolist() == [-0.5, 0.0]


def test_every_pixel_before_matters():
    """The whole past is seen through the attention, and nothing of the rest."""
    model = snail((1, 5, 6)).double()
    x = torch.randn(1, 1, 5, 6, dtype=torch.float64, requires_grad=True)
    row, column = 3, 2
    (gradient,) = torch.autograd.grad(model(x)[0, :, row, column].sum(), x)
    seen = gradient.flatten() != 0
    assert seen.tolist() == [i < row * 6 + column for i in range(30)]


def test_save_and_load(tmp_path):
    model = snail((3, 4, 5), classes=2)
    pixelfast.save(model, tmp_path / "snail.safetensors")
    other = pixelfast.load(tmp_path / "snail.safetensors")
    x, label = torch.rand(1, 3, 4, 5) * 2 - 1, torch.tensor([1])
    assert torch.equal(other.eval()(x, label), model(x, label))


@pytest.mark.parametrize(
    ("error", "text", "changes"),
    [
        (ShapeError, "1 or 3 channels, not 2", {"shape": (2, 4, 4)}),
        (PixelfastError, "activation", {"activation": "relu"}),
        (PixelfastError, "key_width", {"key_width": 0}),
        (PixelfastError, "attentions", {"attentions": 1.5}),
    ],
)
def test_bad_arguments(error, text, changes):
    with pytest.raises(error, match=text):
        PixelSNAIL(**changes)
