"""PixelCNN: what each number sees, by the paper's masks; the naive sampler's integers; what is refused."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from comparators import assert_same_integers
from test_cached_equals_naive import check, check_float32, randomised
from torch import Tensor

import pixelfast
from pixelfast.backends.registry import ORDER
from pixelfast.errors import PixelfastError, ShapeError
from pixelfast.models import PixelCNN
from pixelfast.models.causal_conv import MaskedConv2d, channel_mask

SMALL: dict[str, Any] = {"levels": 4, "hidden": 4, "blocks": 2, "head_hidden": 5}


def network(shape: tuple[int, int, int], **changes: Any) -> PixelCNN:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return randomised(PixelCNN(shape, **(SMALL | changes)))


@pytest.mark.parametrize(
    ("shape", "changes"),
    [
        ((1, 5, 9), {}),
        ((3, 4, 3), {}),
        ((3, 3, 5), {"channel_groups": "interleaved"}),
        ((2, 1, 7), {"hidden": 3}),
        ((1, 9, 4), {"levels": 2}),
        ((3, 4, 5), {"levels": 2}),
        ((1, 1, 1), {"blocks": 0}),
    ],
)
def test_cached_is_naive(shape, changes):
    check(network(shape, **changes), samples=2)


@pytest.mark.parametrize("backend", ORDER)
@pytest.mark.parametrize(("shape", "levels"), [((1, 9, 12), 2), ((3, 6, 5), 4)])
def test_float32(shape, levels, backend):
    check_float32(network(shape, levels=levels, hidden=12), backend)


def before(wide: int, y: int, x: int, row: int, column: int) -> bool:
    """Whether pixel (row, column) is in the part of a wide x wide kernel at (y, x) that comes before (y, x)."""
    near = y - wide // 2 <= row <= y and abs(column - x) <= wide // 2
    return near and (row < y or column < x)


def sees(shape: tuple[int, int, int], blocks: int) -> Tensor:
    """bool (numbers, numbers): what each number depends on by section 3.4 and table 1 of the paper, one at a time."""
    channels, height, width = shape
    places = list(product(range(height), range(width), range(channels)))
    # A feature is known by its place and the channel that it belongs to.
    feature = {
        (y, x, c): {
            (row, column, channel)
            for row, column, channel in places
            if before(7, y, x, row, column) or ((row, column) == (y, x) and channel < c)
        }
        for y, x, c in places
    }
    for _ in range(blocks):
        feature = {
            (y, x, c): set().union(
                *(
                    seen
                    for (row, column, channel), seen in feature.items()
                    if before(3, y, x, row, column) or ((row, column) == (y, x) and channel <= c)
                )
            )
            for y, x, c in places
        }
    return torch.tensor([[number in feature[place] for number in places] for place in places])


@pytest.mark.parametrize("order", ["contiguous", "interleaved"])
@pytest.mark.parametrize(("shape", "blocks"), [((3, 5, 4), 1), ((1, 4, 9), 2), ((2, 9, 3), 0)])
def test_every_number_sees_what_the_paper_s_masks_let_through(shape, blocks, order):
    # Wide, because some units of a random network are switched off everywhere.
    model = network(shape, blocks=blocks, hidden=25, head_hidden=25, channel_groups=order).double()
    x = torch.randn(16, *shape, dtype=torch.float64).requires_grad_()
    logits = model(x).permute(0, 3, 4, 2, 1).flatten(1, 3)
    rows = [torch.autograd.grad(one.sum(), x, retain_graph=True)[0].abs().amax(0) for one in logits.unbind(1)]
    assert torch.equal(torch.stack([row.permute(1, 2, 0).flatten() != 0 for row in rows]), sees(shape, blocks))


def test_causality_is_checked_by_the_engine_too():
    model = network((3, 4, 3))
    arguments = {"shape": model.shape, "likelihood": model.likelihood, "input": model.input}
    assert pixelfast.check_causality(model, **arguments).causal
    model.blocks[0].near.mask[:, :, -1, 1] = True
    assert not pixelfast.check_causality(model, **arguments).causal


def test_a_masked_convolution_by_its_definition():
    mask = channel_mask(4, 2, 2, own=False)
    layer = MaskedConv2d(2, 4, (5, 3), mask).double()
    x = torch.randn(2, 2, 6, 5, dtype=torch.float64)
    got = layer(x)
    for y, column, out in product(range(6), range(5), range(4)):
        expected = layer.bias[out].expand(2).clone()
        for row, side, source in product(range(y - 2, y + 1), range(column - 1, column + 2), range(2)):
            live = row < y or side < column or (side == column and bool(mask[out, source]))
            if live and row >= 0 and 0 <= side < 5:
                expected += layer.weight[out, source, row - y + 2, side - column + 1] * x[:, source, row, side]
        torch.testing.assert_close(got[:, out, y, column], expected)


@pytest.mark.parametrize("kernel_size", [(7, 7), (1, 3)])
def test_in_training_a_masked_convolution_is_the_same(kernel_size):
    torch.manual_seed(0)
    layer = MaskedConv2d(3, 6, kernel_size, channel_mask(6, 3, 3, own=True)).double()
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    results = []
    for training in (True, False):
        out = layer.train(training)(x)
        results.append([out, *torch.autograd.grad(out.square().sum(), [x, *layer.parameters()])])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_one_image_per_seed_and_id():
    sampler = pixelfast.compile(network((3, 5, 4)))
    images = sampler.sample(6, seed=3)
    for batch in (1, 4):
        assert_same_integers(sampler.sample(6, seed=3, batch_size=batch), images)
    assert_same_integers(sampler.sample(2, seed=3, sample_ids=[5, 1]), images[[5, 1]])


def test_completion_keeps_what_is_given():
    sampler = pixelfast.compile(network((3, 6, 4)))
    known = torch.randint(4, (1, 3, 6, 4))
    mask = torch.zeros(1, 1, 6, 1, dtype=torch.bool)
    mask[:, :, :3] = True
    images = sampler.sample(4, known=known, mask=mask)
    assert bool((images[:, :, :3] == known[:, :, :3]).all()) and len({i.numpy().tobytes() for i in images}) > 1


def test_save_and_load(tmp_path):
    model = network((3, 4, 5), channel_groups="interleaved")
    pixelfast.save(model, tmp_path / "model.safetensors")
    other = pixelfast.load(tmp_path / "model.safetensors").eval()
    assert other.config == model.config
    x = torch.rand(1, 3, 4, 5) * 2 - 1
    assert torch.equal(other(x), model(x))


@pytest.mark.parametrize(
    ("error", "text", "changes"),
    [
        (ShapeError, "shape must be", {"shape": (3, 4)}),
        (PixelfastError, "hidden must be from 3", {"shape": (3, 4, 4), "hidden": 2}),
        (PixelfastError, "head_hidden must be from 3", {"shape": (3, 4, 4), "head_hidden": 1}),
        (PixelfastError, "levels must be from 2", {"levels": 1}),
        (PixelfastError, "channel_groups must be one of contiguous, interleaved", {"channel_groups": "thirds"}),
    ],
)
def test_bad_arguments(error, text, changes):
    with pytest.raises(error, match=text):
        PixelCNN(**changes)


def test_bad_inputs():
    for x in (torch.zeros(1, 1, 4, 4), torch.zeros(1, 3, 4, 4, dtype=torch.int64)):
        with pytest.raises(ShapeError):
            network((3, 4, 4))(x)
