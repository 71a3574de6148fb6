"""Sampling of mixtures as one operation: against draws number by number, layouts, and what torch asks of it."""

from __future__ import annotations

import math

import pytest
import torch

from pixelfast.errors import PixelfastError, ShapeError
from pixelfast.likelihoods import DiscretizedLogisticMixture
from pixelfast.likelihoods.base import PixelState
from pixelfast.ops import mixture_sample, mixture_sample_reference
from pixelfast.ops.mixture_loss_reference import planes_per_component


def case(channels, mixtures, shape, dtype=torch.float32, spread=1.0, seed=0):
    """Parameters and uniforms as the noise generator makes them; `shape` is N, H, W."""
    generator = torch.Generator().manual_seed(seed)
    n, height, width = shape
    planes = planes_per_component(channels) * mixtures
    params = spread * torch.randn(n, planes, height, width, generator=generator, dtype=torch.float64)
    words = torch.randint(2**32, (n, channels, height, width, mixtures + 1), generator=generator)
    return params.to(dtype), (words.double() + 0.5) * 2.0**-32


def drawn_one_by_one(params, uniforms, levels, temperature):
    """Every number by `DiscretizedLogisticMixture.draw`, pixel by pixel."""
    n, channels, height, width, draws = uniforms.shape
    likelihood = DiscretizedLogisticMixture(mixtures=draws - 1, levels=levels)
    images = torch.zeros(n, channels, height, width, dtype=torch.int64)
    for row in range(height):
        for column in range(width):
            pixel = PixelState.start(n, channels)
            for c in range(channels):
                noise = uniforms[:, c, row, column]
                pixel.values[:, c] = likelihood.draw(c, params[:, :, row, column], pixel, noise, temperature)
            images[:, :, row, column] = pixel.values.long()
    return images


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0, 3])
@pytest.mark.parametrize("levels", [2, 256])
@pytest.mark.parametrize("mixtures", [1, 10])
@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_the_likelihoods_sampling(channels, mixtures, levels, temperature):
    params, uniforms = case(channels, mixtures, (3, 5, 4))
    sampled = mixture_sample(params, uniforms, levels=levels, temperature=temperature)
    assert torch.equal(sampled, drawn_one_by_one(params, uniforms, levels, temperature))
    likelihood = DiscretizedLogisticMixture(mixtures=mixtures, levels=levels)
    assert torch.equal(sampled, likelihood.sample(params, uniforms, temperature))
    assert sampled.dtype == torch.int64
    assert levels == 2 or sampled.unique().numel() > 10


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_types_are_widened(dtype):
    params, uniforms = case(3, 4, (2, 6, 5), dtype)
    assert torch.equal(mixture_sample(params, uniforms), mixture_sample(params.double(), uniforms))


def test_any_strides_give_the_same_numbers():
    params, uniforms = case(3, 3, (2, 7, 16))
    expected = mixture_sample(params, uniforms)
    larger = torch.zeros(3, 32, 9, 33)
    larger[1:, 1:-1, 1:-1, 1::2] = params
    for strided in (params.contiguous(memory_format=torch.channels_last), larger[1:, 1:-1, 1:-1, 1::2]):
        for noise in (uniforms, uniforms.permute(4, 2, 3, 1, 0).contiguous().permute(4, 3, 1, 2, 0)):
            got = mixture_sample(strided, noise)
            assert torch.equal(got, expected)
            assert got.is_contiguous()


def test_nan_gives_minus_one_where_it_counts():
    clean, uniforms = case(3, 2, (2, 3, 4))
    expected = mixture_sample(clean, uniforms)
    channels_spoilt = {0: 0, 1: 0, **dict.fromkeys((2, 3, 4, 5), 0), **dict.fromkeys((8, 9, 10, 11), 1)}
    for plane, first in channels_spoilt.items():
        params = clean.clone()
        # Of both components, unless it is a logit: any NaN among those leaves no choice.
        params[1, plane if plane < 2 else [plane - plane % 2, plane - plane % 2 + 1], 2, 3] = math.nan
        got = mixture_sample(params, uniforms)
        spoilt = torch.zeros_like(got, dtype=torch.bool)
        spoilt[1, first:, 2, 3] = True
        assert torch.equal(got, torch.where(spoilt, -1, expected)), plane


def test_components_of_no_weight_are_never_chosen():
    params, uniforms = case(1, 3, (2, 16, 16))
    params[:, 3:6] = torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1)
    params[:, 6:] = -7
    params[:, 1] = -math.inf
    assert set(mixture_sample(params, uniforms).flatten().tolist()).isdisjoint(range(64, 192))
    params[0, :3, 0, 0] = -math.inf
    assert mixture_sample(params, uniforms).eq(-1).nonzero().tolist() == [[0, 0, 0, 0]]


def test_250_repeats_are_identical():
    params, uniforms = case(3, 4, (2, 5, 7))
    first = mixture_sample(params, uniforms)
    assert all(torch.equal(mixture_sample(params, uniforms), first) for _ in range(250))


def test_opcheck():
    params, uniforms = case(3, 2, (2, 3, 5))
    for argument in (params, params.contiguous(memory_format=torch.channels_last)):
        torch.library.opcheck(torch.ops.pixelfast.mixture_sample, (argument, uniforms, 256, 0.5))


def test_torch_compile_without_graph_breaks():
    params, uniforms = case(3, 2, (2, 3, 5))

    def sample(params, uniforms):
        return mixture_sample(2 * params, uniforms, temperature=0.5) + 1

    compiled = torch.compile(sample, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(params, uniforms), sample(params, uniforms))


def test_meta_and_empty():
    params, uniforms = case(3, 2, (2, 3, 5))
    sampled = mixture_sample(params.to("meta"), uniforms.to("meta"))
    assert (sampled.shape, sampled.dtype, sampled.device.type) == ((2, 3, 3, 5), torch.int64, "meta")
    assert mixture_sample(*case(1, 2, (0, 3, 5))).shape == (0, 1, 3, 5)
    assert mixture_sample_reference(*case(1, 2, (1, 1, 1))).shape == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"uniforms": torch.rand(2, 3, 3, 5, 3)}, ShapeError, "uniforms have dtype torch.float32"),
        ({"uniforms": torch.rand(2, 2, 3, 5, 3).double()}, ShapeError, "of 1 or 3 channels"),
        ({"uniforms": torch.rand(2, 3, 3, 5, 4).double()}, ShapeError, "4 draws per number; 2 mixtures take 3"),
        ({"params": torch.zeros(2, 21, 3, 5)}, ShapeError, r"for uniforms of shape .*\(2, 10 \* mixtures, 3, 5\)"),
        ({"params": torch.zeros(2, 20, 3, 5).long()}, ShapeError, "params have dtype torch.int64"),
        ({"params": torch.zeros(2, 20, 3, 5, device="meta")}, ShapeError, "on one device"),
        ({"levels": 1}, ShapeError, "levels is 1"),
        ({"temperature": -0.5}, PixelfastError, "temperature is -0.5"),
        ({"temperature": math.nan}, PixelfastError, "temperature is nan"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(changes, error, message):
    params, uniforms = case(3, 2, (2, 3, 5))
    with pytest.raises(error, match=message):
        mixture_sample(**{"params": params, "uniforms": uniforms, **changes})
