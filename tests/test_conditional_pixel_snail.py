"""PixelSNAIL over codes: an independent forward, the naive sampler's integers, its condition, what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from backends import compile_or_skip
from comparators import assert_agree_in_float64, assert_error_ratio, assert_same_integers
from test_cached_equals_naive import randomised
from torch import Tensor

import pixelfast
from pixelfast.backends.registry import ORDER
from pixelfast.errors import PixelfastError, ShapeError
from pixelfast.models import ConditionalPixelSNAIL
from pixelfast.models.conditional_pixel_snail import StrictConv2d

SMALL: dict[str, Any] = {
    "levels": 5,
    "features": 8,
    "hidden": 6,
    "parts": 2,
    "blocks": 1,
    "kernel_size": 3,
    "heads": 2,
    "condition_hidden": 4,
    "condition_blocks": 1,
}
BOTTOM: dict[str, Any] = {"heads": 0, "condition_shape": (1, 2, 3)}


def snail(shape: tuple[int, int, int], **changes: Any) -> ConditionalPixelSNAIL:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return randomised(ConditionalPixelSNAIL(shape, **(SMALL | changes)))


def codes_for(model: ConditionalPixelSNAIL, n: int) -> Tensor:
    return torch.randint(model.likelihood.levels, (n, *model.shape), generator=torch.Generator().manual_seed(2))


def condition_for(model: ConditionalPixelSNAIL, n: int) -> Tensor | None:
    if model.condition_shape is None:
        return None
    generator = torch.Generator().manual_seed(4)
    return torch.randint(model.condition_levels, (n, *model.condition_shape), generator=generator)


def logits(model: ConditionalPixelSNAIL, codes: Tensor, condition: Tensor | None, dtype: torch.dtype) -> Tensor:
    with torch.no_grad():
        return model.likelihood.flatten(model.to(dtype)(codes.long(), condition), model.shape)


CASES: list[tuple[tuple[int, int, int], dict[str, Any]]] = [
    ((1, 5, 7), {}),
    ((1, 4, 3), {"kernel_size": 5, "head_blocks": 1}),
    ((1, 4, 6), BOTTOM),
    ((1, 6, 3), {"heads": 4, "condition_shape": (1, 2, 3), "condition_levels": 3}),
    ((1, 1, 6), {"blocks": 0}),
    ((1, 1, 1), {}),
]


@pytest.mark.parametrize(("shape", "changes"), CASES)
def test_cached_is_naive(shape, changes):
    model = snail(shape, **changes)
    condition = condition_for(model, 2)
    sampler = pixelfast.compile(model, backend="reference", dtype=torch.float64)
    fast = sampler.sample(2, seed=3, condition=condition)
    assert_same_integers(fast, pixelfast.naive_sample(model, 2, seed=3, condition=condition, dtype=torch.float64))
    assert_agree_in_float64(sampler.params(fast, condition), logits(model, fast, condition, torch.float64))


@pytest.mark.parametrize("backend", ORDER)
@pytest.mark.parametrize(("shape", "changes"), [((1, 7, 9), {"features": 16}), ((1, 10, 6), BOTTOM)])
def test_float32(shape, changes, backend):
    model = snail(shape, **changes)
    codes, condition = codes_for(model, 2), condition_for(model, 2)
    got = compile_or_skip(model, backend).params(codes, condition)
    own = logits(model, codes, condition, torch.float32)
    assert_error_ratio(got, own, logits(model, codes, condition, torch.float64))


def test_one_map_per_seed_and_id():
    model = snail((1, 6, 9), condition_shape=(1, 2, 3))
    sampler, condition = pixelfast.compile(model), condition_for(model, 5)
    maps = sampler.sample(5, seed=3, condition=condition)
    for batch in (1, 2, 5):
        assert_same_integers(sampler.sample(5, seed=3, condition=condition, batch_size=batch), maps)
    order = [4, 1]
    assert_same_integers(sampler.sample(2, seed=3, condition=condition[order], sample_ids=order), maps[order])
    assert not torch.equal(sampler.sample(5, seed=3, condition=condition.flip(0)), maps)


def test_the_last_position_sees_every_code_and_none_sees_one_after_it():
    model = snail((1, 4, 5), heads=2).double()
    codes = codes_for(model, 1)
    base = logits(model, codes, None, torch.float64)[0].flatten(1)
    for number in range(20):
        changed = codes.clone()
        changed.flatten()[number] = (codes.flatten()[number] + 1) % 5
        moved = (logits(model, changed, None, torch.float64)[0].flatten(1) != base).any(0)
        assert not moved[: number + 1].any() and bool(moved[-1]) == (number < 19)


def test_the_condition_is_read_at_its_place():
    """With one residual block and no attention only the four codes below a code of the condition may change."""
    nearest = {"parts": 1, "condition_blocks": 0, "condition_kernel_size": 1}
    model = snail((1, 8, 12), heads=0, condition_shape=(1, 4, 6), **nearest)
    codes, condition = codes_for(model, 1), condition_for(model, 1)
    base = logits(model, codes, condition, torch.float64)
    condition[0, 0, 1, 4] = (condition[0, 0, 1, 4] + 1) % 5
    moved = (logits(model, codes, condition, torch.float64) != base).any(1)[0].nonzero().tolist()
    assert moved == [[2, 8], [2, 9], [3, 8], [3, 9]]


def conv(x: Tensor, layer: Any, live: Any = None) -> Tensor:
    """A weight-normalised convolution whose every output is one sum over the places that `live` lists."""
    v, g, bias = layer.weight_v, layer.weight_g, layer.bias
    rows, columns = v.shape[2:]
    live = [(0, 0, 0, 0)] if live is None else live
    norm = torch.stack([v[:, :, r, c] for r, c, _, _ in live], dim=-1).square().sum((1, 2)).sqrt()
    n, _, height, width = x.shape
    out = bias[None, :, None, None].repeat(n, 1, height, width)
    for r, c, down, right in live:
        for y in range(height):
            for z in range(width):
                if 0 <= y + down < height and 0 <= z + right < width:
                    direction = v[:, :, r, c] / norm[:, None]
                    out[:, :, y, z] += x[:, :, y + down, z + right] @ direction.T * g
    assert rows * columns >= len(live)
    return out


def strict(k: int) -> list[tuple[int, int, int, int]]:
    """Taps (row, column of the kernel, how far down, how far right) of a k x k kernel that ends before the pixel."""
    taps = [(r, c, r - (k - 1), c - k // 2) for r in range(k) for c in range(k)]
    return [tap for tap in taps if tap[2] < 0 or tap[3] < 0]


def same(k: int) -> list[tuple[int, int, int, int]]:
    return [(r, c, r - k // 2, c - k // 2) for r in range(k) for c in range(k)]


def block(x: Tensor, part: Any, taps: Any, aux: Tensor | None = None, added: Tensor | None = None) -> Tensor:
    h = conv(F.elu(x), part.conv_in, taps)
    if aux is not None:
        h = h + conv(F.elu(aux), part.skip)
    h = conv(F.elu(h), part.conv_out, taps)
    if added is not None:
        h = h + conv(added, part.condition)
    a, b = h.chunk(2, 1)
    return x + a / (1 + torch.exp(-b))


def attended(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    channels, height, width = query.shape[1:]
    size = channels // heads
    q, k, v = (x.flatten(2) for x in (query, key, value))
    out = torch.zeros_like(q)
    for head in range(heads):
        of = slice(head * size, (head + 1) * size)
        for i in range(1, height * width):
            scores = torch.einsum("nc,ncj->nj", q[:, of, i], k[:, of, :i]) / math.sqrt(size)
            out[:, of, i] = torch.einsum("nj,ncj->nc", scores.softmax(1), v[:, of, :i])
    return out.view_as(query)


def forward(model: ConditionalPixelSNAIL, codes: Tensor, condition: Tensor | None) -> Tensor:
    """From the description of the network, one sum per output."""
    k, (_, height, width) = model.config["kernel_size"], model.shape
    levels = model.likelihood.levels
    x = torch.stack([(codes[:, 0] == level).double() for level in range(levels)], dim=1)
    above = [(r, c, r - k // 2, c - k // 2) for r in range(k // 2) for c in range(k)]
    left = [(r, c, r - k // 2, c - k // 2) for r in range(k // 2 + 1) for c in range(k // 2)]
    h, other = conv(x, model.stem_above, above), conv(x, model.stem_left, left)
    # The published stems are shifted after the bias: nothing of them, not even that, is in the first row or column.
    h[:, :, 0], other[:, :, :, 0] = 0, 0
    h = h + other
    rows = torch.tensor([[y / height - 0.5] * width for y in range(height)], dtype=torch.float64)
    columns = torch.tensor([[z / width - 0.5 for z in range(width)]] * height, dtype=torch.float64)
    place = torch.stack((rows, columns)).expand(len(x), -1, -1, -1)
    given = None
    if condition is not None:
        network = model.condition_network
        known = torch.stack([(condition[:, 0] == level).double() for level in range(network.levels)], dim=1)
        given = conv(known, network.stem, same(3))
        for one in network.blocks:
            given = block(given, one, same(3))
        for axis, size in ((2, height), (3, width)):
            given = given.repeat_interleave(size // given.shape[axis], axis)
    for part in model.parts:
        start = h
        for one in part.blocks:
            h = block(h, one, strict(k), added=given)
        if part.heads:
            content = block(torch.cat((start, h, place), 1), part.content, None)
            question = block(torch.cat((h, place), 1), part.question, None)
            looked = attended(
                conv(question, part.query), conv(content, part.key), conv(content, part.value), part.heads
            )
            h = block(h, part.merge, None, aux=looked)
        else:
            h = conv(torch.cat((h, place), 1), part.mix)
    for one in model.head_blocks:
        h = block(h, one, None)
    return conv(F.elu(h), model.head)


@pytest.mark.parametrize(("shape", "changes"), CASES)
def test_an_independent_forward(shape, changes):
    model = snail(shape, **changes).double()
    codes, condition = codes_for(model, 2), condition_for(model, 2)
    with torch.no_grad():
        expected = forward(model, codes, condition)
    assert_agree_in_float64(logits(model, codes, condition, torch.float64), expected)


def test_masked_entries_count_for_nothing():
    layer = StrictConv2d(2, 3, 3)
    x = torch.randn(1, 2, 4, 4)
    expected = layer(x)
    with torch.no_grad():
        layer.weight_v[:, :, -1, 1:] = 7
    assert torch.equal(layer(x), expected)


def test_in_training_it_is_the_same_network():
    model = snail((1, 5, 4), dropout=0.0).double()
    codes = codes_for(model, 2)
    results = []
    for training in (True, False):
        out = model.train(training)(codes)
        loss = model.likelihood.loss(out, codes).mean()
        results.append([out.detach(), *torch.autograd.grad(loss, list(model.parameters()))])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_attention_is_dropped_in_training_only():
    model = snail((1, 4, 4), blocks=0, dropout=0.9)
    codes = codes_for(model, 1)
    assert torch.equal(model(codes), model(codes))
    model.train()
    assert not torch.equal(model(codes), model(codes))


def test_save_and_load(tmp_path):
    model = snail((1, 4, 6), **BOTTOM)
    pixelfast.save(model, tmp_path / "snail.safetensors")
    other = pixelfast.load(tmp_path / "snail.safetensors").eval()
    codes, condition = codes_for(model, 1), condition_for(model, 1)
    assert other.config == model.config and torch.equal(other(codes, condition), model(codes, condition))


@pytest.mark.parametrize(
    ("error", "text", "changes"),
    [
        (ShapeError, "maps of codes", {"shape": (3, 4, 4)}),
        (PixelfastError, "features // 2 = 4 are attended to, no multiple of 3", {"heads": 3}),
        (PixelfastError, "kernel_size must be odd", {"kernel_size": 4}),
        (ShapeError, "divide 4 and 4", {"condition_shape": (1, 3, 4)}),
        (PixelfastError, "condition_levels", {"condition_shape": (1, 2, 2), "condition_levels": 1}),
    ],
)
def test_bad_arguments(error, text, changes):
    with pytest.raises(error, match=text):
        ConditionalPixelSNAIL(**({"shape": (1, 4, 4)} | SMALL | changes))


def test_bad_inputs():
    model = snail((1, 4, 6), **BOTTOM)
    codes = codes_for(model, 2)
    for condition in (None, torch.zeros(2, 1, 2, 3), torch.zeros(1, 1, 2, 3, dtype=torch.int64)):
        with pytest.raises(ShapeError, match="the condition must be codes"):
            model(codes, condition)
    with pytest.raises(ShapeError, match="no condition"):
        snail((1, 4, 4))(codes, codes)
    with pytest.raises(ShapeError):
        model(codes.float(), condition_for(model, 2))
