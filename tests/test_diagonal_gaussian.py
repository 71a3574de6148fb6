"""Real numbers: their density, their noise against the normal distribution, and that they go through the engine."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from backends import compile_or_skip
from comparators import assert_same_integers, sha256
from gallery import IDIOMS
from scipy import stats

import pixelfast
from pixelfast import _C, Categorical, DiagonalGaussian, PixelfastError, ShapeError, rng
from pixelfast.backends.registry import ORDER, backend_class
from pixelfast.inputs import input_code
from pixelfast.likelihoods import PixelState
from pixelfast.likelihoods.diagonal_gaussian import normal

GAUSSIAN = DiagonalGaussian()
DRAWS = 400_000
PASS = 1e-4
LATENTS = [name for name, idiom in IDIOMS.items() if idiom.likelihood == GAUSSIAN]


def compiled(name, backend="reference", dtype=torch.float64):
    idiom = IDIOMS[name]
    return compile_or_skip(idiom.build(), backend, condition=idiom.conditions(1), dtype=dtype, **idiom.arguments())


def noise(images, channels=1, seed=0):
    """(images, channels, 1, 1, 2)."""
    return rng.uniforms(seed, range(images), range(channels), 2).view(images, channels, 1, 1, 2)


# -- the density ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
def test_log_prob_is_the_density(dtype, within):
    generator = torch.Generator().manual_seed(3)
    params = torch.randn(3, 4, 2, 5, generator=generator, dtype=torch.float64)
    x = torch.randn(3, 2, 2, 5, generator=generator)
    expected = stats.norm.logpdf(x.double(), params[:, :2], params[:, 2:].exp())
    found = GAUSSIAN.log_prob(params.to(dtype), x)
    assert found.dtype == dtype and found.shape == x.shape
    np.testing.assert_allclose(found, expected, rtol=within, atol=within)
    assert GAUSSIAN.loss(params.to(dtype), x).item() == pytest.approx(-expected.sum() / 3, rel=within)


def test_half_precision_params_are_scored_in_float32():
    params, x = torch.tensor([0.25, -1.0]).view(1, 2, 1, 1), torch.full((1, 1, 1, 1), 0.1)
    low = GAUSSIAN.log_prob(params.bfloat16(), x)
    assert low.dtype == torch.float32 and torch.equal(low, GAUSSIAN.log_prob(params, x))


def test_gradients_against_finite_differences():
    generator = torch.Generator().manual_seed(1)
    params = torch.randn(2, 4, 1, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    x = torch.randn(2, 2, 1, 2, generator=generator)
    assert torch.autograd.gradcheck(lambda p: GAUSSIAN.log_prob(p, x), params)


def test_layout():
    assert (GAUSSIAN.parameters(3), GAUSSIAN.draws(3), GAUSSIAN.levels) == (6, 2, 0)
    assert GAUSSIAN.needs(3) == [[0, 3], [1, 4], [2, 5]]
    assert GAUSSIAN == DiagonalGaussian() and repr(GAUSSIAN) == "DiagonalGaussian()"
    for shape, dtype in [((1, 3, 2, 2), None), ((1, 4, 2, 3), None), ((4, 2, 2), None), ((1, 4, 2, 2), torch.int32)]:
        with pytest.raises(ShapeError, match=r"takes floating point \(N, 4, 2, 2\)"):
            GAUSSIAN.flatten(torch.zeros(shape, dtype=dtype), (2, 2, 2))


def test_what_is_no_image_of_real_numbers_is_refused():
    params, good = torch.zeros(2, 2, 2, 2), torch.zeros(2, 1, 2, 2)
    for bad, message in [
        (good.long(), "floating point"),
        (good[0], "floating point"),
        (good * math.nan, "finite"),
        (good.double() + 1e39, "beyond float32"),
        (good[:1], "params are of 2 images but x of 1"),
    ]:
        with pytest.raises(ShapeError, match=message):
            GAUSSIAN.log_prob(params, bad)


def test_a_density_has_neither_pmf_nor_bits():
    with pytest.raises(PixelfastError, match="has no pmf"):
        GAUSSIAN.pmf(torch.zeros(1, 2, 1, 1))
    sampler = compiled("gaussian_latents")
    with pytest.raises(PixelfastError, match="no bits per dimension"):
        sampler.bits_per_dim(torch.zeros(1, 2, 4, 5))


def test_real_input_goes_with_real_numbers_only():
    with pytest.raises(ShapeError, match="input is 'signed'; the likelihood is of real numbers"):
        input_code("signed", GAUSSIAN.levels, 1)
    with pytest.raises(ShapeError, match="input is a Tensor; the likelihood is of real numbers"):
        input_code(torch.zeros(3), GAUSSIAN.levels, 1)
    with pytest.raises(ShapeError, match="input is 'real'; the likelihood is of 4 levels"):
        input_code("real", Categorical(4).levels, 1)


# -- the distribution ----------------------------------------------------------------------------------------


def p_of_normal(numbers):
    """Kolmogorov and Smirnov's p-value against the standard normal distribution."""
    return stats.kstest(np.asarray(numbers), "norm").pvalue


def drawn(mean, log_scale, temperature=1.0, spoil=lambda u: u):
    params = torch.tensor([mean, log_scale]).view(1, 2, 1, 1).expand(DRAWS, -1, 1, 1)
    return GAUSSIAN.sample(params, spoil(noise(DRAWS)), temperature).flatten().double()


@pytest.mark.parametrize(("mean", "log_scale"), [(0.0, 0.0), (-3.5, -2.0), (100.0, 3.0)])
def test_draws_are_normal(mean, log_scale):
    assert p_of_normal((drawn(mean, log_scale) - mean) / math.exp(log_scale)) > PASS


@pytest.mark.parametrize("temperature", [0.3, 2.0])
def test_temperature_multiplies_the_scale(temperature):
    numbers = drawn(1.5, -0.5, temperature)
    assert p_of_normal((numbers - 1.5) / (temperature * math.exp(-0.5))) > PASS
    assert p_of_normal((numbers - 1.5) / math.exp(-0.5)) < PASS


def test_temperature_zero_is_the_mean():
    assert torch.equal(drawn(0.1, 2.0, 0.0), torch.full((DRAWS,), 0.1).double())


@pytest.mark.parametrize(
    "flaw",
    [
        lambda u: 0.98 * u + 0.01,  # tails cut off
        lambda u: torch.stack([u[..., 0], u[..., 0]], dim=-1),  # one uniform used twice
        lambda u: torch.stack([u[..., 0], 0.98 * u[..., 1]], dim=-1),  # not the whole turn
    ],
)
def test_flawed_noise_fails(flaw):
    assert p_of_normal(drawn(0.0, 0.0, spoil=flaw)) < PASS


def test_numbers_of_a_pixel_are_independent():
    params = torch.zeros(DRAWS, 4, 1, 1)
    first, second = GAUSSIAN.sample(params, noise(DRAWS, 2))[:, :, 0, 0].double().unbind(1)
    assert p_of_normal((first + second) / math.sqrt(2)) > PASS
    assert p_of_normal((first + first) / math.sqrt(2)) < PASS


def test_the_ends_of_the_uniforms_give_finite_noise():
    low, high = 2.0**-33, 1 - 2.0**-33
    ends = torch.tensor([[a, b] for a in (low, 0.5, high) for b in (low, 0.25, 0.5, 0.75, high)], dtype=torch.float64)
    assert bool(normal(ends).isfinite().all())
    assert float(normal(ends).abs().max()) == pytest.approx(math.sqrt(66 * math.log(2)), rel=1e-12)


def test_numbers_are_rounded_to_float32_before_they_are_read():
    params = torch.tensor([[0.1, -1.0]], dtype=torch.float64)
    value = GAUSSIAN.draw(0, params, PixelState.start(1, 1), noise(1)[:, 0, 0, 0])
    assert value.dtype == torch.float64 and torch.equal(value, value.float().double())


@pytest.mark.parametrize("params", [(math.nan, 0.0), (0.0, math.nan), (math.inf, 0.0), (0.0, math.inf), (0.0, 100.0)])
def test_params_that_give_no_finite_number_are_refused(params):
    flat = torch.tensor(params).view(1, 2, 1, 1)
    with pytest.raises(PixelfastError, match="params contain NaN"):
        GAUSSIAN.sample(flat, noise(1))


def test_the_extension_draws_the_same_normal_numbers():
    """A program of two parameters that depend on nothing, against numpy: cosine and logarithm are the engine's own."""
    model = Constant(0.0, 0.0)
    sampler = pixelfast.compile(model, (1, 100, 100), GAUSSIAN, "real", backend="cpu")
    numbers = sampler.sample(20, seed=11).flatten().double()
    uniforms = rng.uniforms(11, range(20), range(10_000), 2).numpy().reshape(-1, 2)
    expected = np.sqrt(-2 * np.log(uniforms[:, 0])) * np.cos(2 * np.pi * uniforms[:, 1])
    np.testing.assert_allclose(numbers, expected, rtol=2.0**-23, atol=1e-15)
    assert p_of_normal(numbers) > PASS


class Constant(torch.nn.Module):
    def __init__(self, mean, log_scale):
        super().__init__()
        self.params = torch.nn.Parameter(torch.tensor([mean, log_scale]))

    def forward(self, x):
        return self.params[:, None, None].expand(len(x), 2, *x.shape[2:])


# -- through the engine --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LATENTS)
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_float64_is_the_naive_sampler(name, temperature):
    idiom = IDIOMS[name]
    images = compiled(name).sample(3, seed=4, temperature=temperature, condition=idiom.conditions(3))
    naive = pixelfast.naive_sample(
        idiom.build(), 3, seed=4, temperature=temperature, condition=idiom.conditions(3), dtype=torch.float64,
        **idiom.arguments(),
    )  # fmt: skip
    assert images.dtype == torch.float32
    assert_same_integers(images, naive)


@pytest.mark.parametrize("backend", ORDER)
def test_batches_and_ids_change_no_bit(backend):
    sampler = compiled("gaussian_latents_in_turn", backend, torch.float64 if backend == "reference" else torch.float32)
    whole = sampler.sample(5, seed=3)
    assert sha256(sampler.sample(5, seed=3, batch_size=2)) == sha256(whole)
    assert sha256(sampler.sample(2, seed=3, sample_ids=[4, 1])) == sha256(whole[[4, 1]])
    assert not torch.equal(sampler.sample(5, seed=4), whole)


@pytest.mark.parametrize("isa", _C.available_isas())
def test_instruction_sets_draw_nearly_the_same(isa):
    sampler = compiled("gaussian_latents", "cpu", torch.float32)
    sampler.backend = backend_class("cpu")(sampler.program, sampler.likelihood, torch.float32, isa=isa)
    torch.testing.assert_close(sampler.sample(3), compiled("gaussian_latents").sample(3), rtol=0, atol=1e-4)


@pytest.mark.parametrize("backend", ORDER)
def test_given_numbers_are_kept_and_read(backend):
    sampler = compiled("gaussian_latents", backend, torch.float32)
    whole = sampler.sample(2, seed=1)
    mask = torch.zeros(4, 5, dtype=torch.bool)
    mask[:2] = True
    again = sampler.sample(2, seed=1, known=whole, mask=mask)
    assert torch.equal(again, whole)
    other = sampler.sample(2, seed=1, known=torch.full((), -7.25), mask=mask)
    assert bool((other[:, :, :2] == -7.25).all()) and not torch.equal(other[:, :, 2:], whole[:, :, 2:])
    with pytest.raises(ShapeError, match="finite"):
        sampler.sample(2, known=torch.full((), math.nan), mask=mask)
    with pytest.raises(ShapeError, match="floating point"):
        sampler.sample(2, known=torch.zeros(1, 2, 4, 5, dtype=torch.int64), mask=mask)


def test_log_prob_is_the_likelihood_of_the_parameters():
    sampler, idiom = compiled("gaussian_latents"), IDIOMS["gaussian_latents"]
    x = idiom.images(3)
    params = idiom.forward(idiom.build().double(), x, None, torch.float64)
    torch.testing.assert_close(sampler.log_prob(x), GAUSSIAN.log_prob(params, x).sum((1, 2, 3)), rtol=1e-10, atol=1e-10)
    with pytest.raises(ShapeError, match="it takes floats"):
        sampler.params(x.long())


def test_unrounded_values_are_not_to_be_had():
    with pytest.raises(PixelfastError, match="mode='reference'"):
        compiled("gaussian_latents").sample(1, mode="reference")
    with pytest.raises(PixelfastError, match="mode='reference'"):
        pixelfast.naive_sample(
            Constant(0.0, 0.0), 1, shape=(1, 2, 2), likelihood=GAUSSIAN, input="real", mode="reference"
        )


@pytest.mark.parametrize("backend", ORDER)
def test_parameters_that_are_not_numbers_are_named(backend):
    class Growing(torch.nn.Module):
        def forward(self, x):
            above = torch.nn.functional.pad(x, (0, 0, 1, 0))[:, :, :-1]
            return torch.cat([above, 60 * (above + 1)], dim=1)

    sampler = compile_or_skip(
        Growing(), backend, shape=(1, 9, 3), likelihood=GAUSSIAN, input="real", dtype=torch.float32
    )
    with pytest.raises(PixelfastError, match=r"row [1-8], column"):
        sampler.sample(2)


def test_a_leak_is_found():
    class Leaking(torch.nn.Module):
        def forward(self, x):
            return torch.cat([x, x], dim=1)

    report = pixelfast.check_causality(Leaking(), (1, 3, 3), GAUSSIAN, "real")
    assert not report.causal and report.reads == (0, 0, 0)
