"""Sampling models with latents: stage by stage the naive sampler's numbers, one image per seed, the right distribution,
and completions whose latents fit what is given."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from chi_square import chi_square_p
from comparators import assert_agree_in_float64, assert_error_ratio, assert_same_integers, sha256
from latent_models import CASES, randomised, small, some_images
from test_latent_models import all_images, log_likelihood, tiny

import pixelfast
from pixelfast import rng
from pixelfast.completion import TURNS
from pixelfast.errors import PixelfastError
from pixelfast.models import VAE, GatedPixelCNN

every_case = pytest.mark.parametrize("name", CASES)
DRAWS = 10_000
PASS = 1e-4


def exact(name):
    return pixelfast.compile(small(name), backend="reference", dtype=torch.float64)


def conditions(stage, n):
    example = stage.network.condition_example
    if example is None:
        return None
    return torch.randn(n, *example.shape[1:], generator=torch.Generator().manual_seed(3))


def numbers(stage, n):
    """What a stage draws, at random: levels or real numbers."""
    generator = torch.Generator().manual_seed(4)
    shape = (n, *stage.network.shape)
    if stage.network.likelihood.continuous:
        return torch.randn(shape, generator=generator)
    return torch.randint(stage.network.likelihood.levels, shape, generator=generator)


def parameters(stage, x, condition, dtype):
    """The network's own forward."""
    network = copy.deepcopy(stage.network).to(dtype)
    code = x.to(dtype) if network.input == "real" else 2 * x.to(dtype) / (network.likelihood.levels - 1) - 1
    with torch.no_grad():
        return network(code) if condition is None else network(code, condition.to(dtype))


@every_case
def test_float64_is_the_naive_sampler(name):
    sampler, model = exact(name), small(name)
    images = sampler.sample(3, seed=6)
    assert_same_integers(images, pixelfast.naive_sample(model, 3, seed=6, dtype=torch.float64))
    assert len({sha256(image) for image in images}) == 3
    for stage in model.stages:
        x, condition = numbers(stage, 2), conditions(stage, 2)
        found = sampler.samplers[stage.name].params(x, condition)
        assert_agree_in_float64(found, parameters(stage, x, condition, torch.float64))


@every_case
def test_float32_errs_no_more_than_torch(name):
    model = small(name)
    sampler = pixelfast.compile(model, backend="cpu")
    for stage in model.stages:
        x, condition = numbers(stage, 2), conditions(stage, 2)
        own, truth = (parameters(stage, x, condition, dtype) for dtype in (torch.float32, torch.float64))
        assert_error_ratio(sampler.samplers[stage.name].params(x, condition), own, truth)


@every_case
def test_networks_are_causal(name):
    for stage in small(name).stages:
        assert pixelfast.check_causality(stage.network).causal


@every_case
def test_one_image_per_seed_and_id(name):
    sampler = pixelfast.compile(small(name), backend="cpu")
    images = sampler.sample(5, seed=9)
    for batch in (1, 2, 5, 16):
        assert torch.equal(sampler.sample(5, seed=9, batch_size=batch), images)
    assert torch.equal(sampler.sample(3, seed=9, sample_ids=[4, 0, 0]), images[[4, 0, 0]])
    assert not torch.equal(sampler.sample(5, seed=10), images)
    assert torch.equal(copy.deepcopy(sampler).sample(5, seed=9), images)


def test_threads_change_nothing():
    sampler = pixelfast.compile(small("two levels"), backend="cpu")
    given = {"known": some_images(small("two levels"), 1), "mask": torch.tensor([True] * 3 + [False] * 3)[:, None]}
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append((sampler.sample(3, seed=1), sampler.sample(3, seed=1, **given)))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


# -- stages --------------------------------------------------------------------------------------------------


def test_streams_are_what_seeds_mean():
    assert rng.STREAMS["latents"] == 4
    assert [rng.STREAMS[f"latents_{level}"] for level in range(1, 9)] == list(range(5, 13))
    assert len(set(rng.STREAMS.values())) == len(rng.STREAMS)


def test_a_seed_of_one_stage_changes_its_noise_alone():
    sampler = exact("three levels")
    assert list(sampler.samplers) == ["latents_3", "latents_2", "latents_1", "pixels"]
    base = sampler.draw(3, seed=1)
    below: list[str] = []
    for name in reversed(sampler.samplers):
        below.append(name)
        drawn = sampler.draw(3, seed=1, seeds={name: 2})
        assert [n for n in drawn if not torch.equal(drawn[n], base[n])] == below[::-1]
        # Its noise is that of the other seed, the noise of the others is as before.
        other = sampler.draw(3, seed=2, seeds={n: 1 for n in sampler.samplers if n != name})
        assert all(torch.equal(drawn[n], other[n]) for n in drawn)
    with pytest.raises(PixelfastError, match="the stages of this model are latents_3, latents_2, latents_1, pixels"):
        sampler.sample(1, seeds={"latents": 2})


def test_latents_are_the_prior_s_and_the_decoder_gets_them():
    sampler = exact("vae")
    latents = sampler.draw(4, seed=3)["latents"]
    uniforms = rng.uniforms(3, range(4), range(3), 2, rng.STREAMS["latents"]).numpy()
    expected = np.sqrt(-2 * np.log(uniforms[..., 0])) * np.cos(2 * np.pi * uniforms[..., 1])
    np.testing.assert_allclose(latents.flatten(1), expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["vae", "features", "bias"])
def test_images_follow_the_model_s_distribution(kind):
    """Against the likelihood of all 2**6 images, summed over a grid of the latent."""
    model = tiny(kind)
    with torch.no_grad():
        probabilities = log_likelihood(model, all_images(2, 3)).exp().numpy()
        probabilities /= probabilities.sum()
    images = pixelfast.compile(model.float(), backend="cpu").sample(DRAWS, seed=1)
    code = images.flatten(1).long() @ (2 ** torch.arange(5, -1, -1))
    counts = np.bincount(code.numpy(), minlength=64)
    assert chi_square_p(counts, probabilities) > PASS
    flat = np.full(64, 1 / 64)
    assert chi_square_p(counts, flat) < PASS


# -- completion ----------------------------------------------------------------------------------------------


@every_case
def test_completion_is_the_naive_sampler_s(name):
    model = small(name)
    known, mask = some_images(model, 1, seed=5), (torch.arange(model.shape[1]) < model.shape[1] // 2)[:, None]
    images = exact(name).sample(2, seed=2, known=known, mask=mask)
    given = mask.expand(2, *model.shape)
    assert torch.equal(images[given].long(), known.expand(2, -1, -1, -1)[given])
    naive = pixelfast.naive_sample(model, 2, seed=2, known=known, mask=mask, dtype=torch.float64)
    assert_same_integers(images, naive)
    assert torch.equal(exact(name).sample(1, seed=2, sample_ids=[1], known=known, mask=mask), images[1:])


def all_alike() -> VAE:
    """All pixels are white where the latent is positive and black where it is negative, nearly always, and the
    posterior knows."""
    model = VAE((1, 4, 4), latents=1, network="mlp", hidden=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        reading, saying = model.encoder.layers
        reading.weight.copy_(torch.tensor([[1.0], [-1.0]]) / 16)
        saying.weight[0] = torch.tensor([4.0, -4.0])
        saying.bias[1] = -2.0
        spreading, painting = model.pixels.decoder.layers
        spreading.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        painting.weight[:, 0], painting.weight[:, 1] = 9.0, -9.0
    return model.eval()


@pytest.mark.parametrize("level", [0, 1])
def test_latents_of_a_completion_fit_what_is_given(level):
    """Latents from the prior alone would be of the wrong sign for half of the images."""
    sampler = pixelfast.compile(all_alike())
    mask = torch.tensor([True, True, True, False])[:, None]
    completed = sampler.sample(64, seed=1, known=torch.tensor(level), mask=mask)
    assert float((completed[:, :, 3:] == level).float().mean()) > 0.95
    free = sampler.sample(64, seed=1)[:, :, 3:]
    assert 0.3 < float((free == level).float().mean()) < 0.7


def test_statistics_of_a_completion_count_every_turn():
    sampler = pixelfast.compile(small("vae"), backend="cpu")
    known, mask = torch.zeros((), dtype=torch.int64), torch.tensor(False)
    sampler.sample(2, known=known, mask=mask)
    stats = sampler.stats
    pixels = stats.stages["pixels"]
    assert stats.images == pixels.images == 2 and stats.decode_seconds > 0
    assert pixels.images_per_second == pytest.approx(2 / pixels.seconds)
    assert pixels.us_per_pixel == pytest.approx(1e6 * pixels.seconds / (2 * 8 * 12))
    assert TURNS > 0


def test_models_without_a_posterior_do_not_complete():
    class TwoStages:
        shape, levels = (1, 4, 4), 4
        stages = (pixelfast.stages.Stage("pixels", randomised(GatedPixelCNN((1, 4, 4), 4, 4, (1,)))),)

    given = {"known": torch.zeros((), dtype=torch.int64), "mask": torch.tensor(True)}
    with pytest.raises(PixelfastError, match="leave known, mask out"):
        pixelfast.compile(TwoStages()).sample(1, **given)
    with pytest.raises(PixelfastError, match="leave known, mask out"):
        pixelfast.naive_sample(TwoStages(), 1, **given)


def test_no_images():
    sampler = pixelfast.compile(small("vae"))
    assert sampler.sample(0).shape == (0, 1, 8, 12)
    known = torch.zeros((), dtype=torch.int64)
    assert sampler.sample(0, known=known, mask=torch.tensor(True)).shape == (0, 1, 8, 12)
