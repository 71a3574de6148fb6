"""Likelihoods: probabilities against an independent oracle, gradients, layouts, temperature, errors."""

from __future__ import annotations

import itertools
import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch

from pixelfast import rng
from pixelfast.errors import PixelfastError, ShapeError
from pixelfast.likelihoods import Bernoulli, Categorical, DiscretizedLogisticMixture, PixelState
from pixelfast.ops.gumbel import choose, gumbel, logistic

LIKELIHOODS = [
    DiscretizedLogisticMixture(),
    DiscretizedLogisticMixture(mixtures=2, levels=5),
    DiscretizedLogisticMixture(mixtures=1, levels=2),
    Categorical(),
    Categorical(levels=3),
    Bernoulli(),
]


def random_params(likelihood, n, channels, height, width, dtype=torch.float32, seed=0, spread=1.0):
    """Parameters in the layout a network returns."""
    generator = torch.Generator().manual_seed(seed)
    shape = (n, likelihood.parameters(channels), height, width)
    if isinstance(likelihood, Categorical):
        shape = (n, likelihood.levels, channels, height, width)
    return spread * torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def random_images(likelihood, n, channels, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(likelihood.levels, (n, channels, height, width), generator=generator)


def noise(likelihood, n, channels, height, width, seed=0):
    draws = likelihood.draws(channels)
    words = rng.uniforms(seed, range(n), range(height * width * channels), draws)
    return words.view(n, height, width, channels, draws).permute(0, 3, 1, 2, 4)


def mixture_params(logits, means, log_scales, coefficients=None, dtype=torch.float64):
    """(1, P, 1, 1) from logits (M,) and (C, M) blocks, laid out by hand."""
    blocks = []
    for channel in range(len(means)):
        blocks += [*means[channel], *log_scales[channel]]
        blocks += [] if coefficients is None else [*coefficients[channel]]
    return torch.tensor([*logits, *blocks], dtype=dtype).view(1, -1, 1, 1)


# ---------------------------------------------------------------- the mixture's probabilities


def decimal_log_bin(mean, log_scale, level, levels):
    """ln of the mass of one bin, by the defining difference of two sigmoids at 60 digits."""
    with localcontext() as context:
        context.prec = 60
        scale = Decimal(max(log_scale, -7.0)).exp()
        half = Decimal(1) / Decimal(levels - 1)
        centred = Decimal(2 * level) / Decimal(levels - 1) - 1 - Decimal(mean)
        upper, lower = (centred + half) / scale, (centred - half) / scale

        def sigmoid(z):
            return 1 / (1 + (-z).exp())

        if level == 0:
            mass = sigmoid(upper)
        elif level == levels - 1:
            mass = sigmoid(-lower)
        elif lower + upper > 0:  # on the side where neither sigmoid is close to 1
            mass = sigmoid(-lower) - sigmoid(-upper)
        else:
            mass = sigmoid(upper) - sigmoid(lower)
        return float(mass.ln())


MEANS = (-1.3, -1.0, -0.2, 0.0, 0.501, 1.0, 1.25, 3.0)
LOG_SCALES = (-9.0, -7.0, -6.5, -5.0, -4.0, -2.0, 0.0, 1.5, 6.0)


@pytest.mark.parametrize("levels", [2, 3, 8, 256])
def test_log_prob_of_one_logistic_is_that_of_the_definition(levels):
    likelihood = DiscretizedLogisticMixture(mixtures=1, levels=levels)
    picked = sorted({0, 1, 2, levels // 3, levels // 2, levels - 2, levels - 1} & set(range(levels)))
    for mean, log_scale in itertools.product(MEANS, LOG_SCALES):
        expected = [decimal_log_bin(mean, log_scale, level, levels) for level in picked]
        params = mixture_params([0.3], [[mean]], [[log_scale]]).expand(-1, -1, 1, len(picked))
        x = torch.tensor(picked).view(1, 1, 1, -1)
        double, single = likelihood.log_prob(params, x), likelihood.log_prob(params.float(), x)
        assert double.flatten().tolist() == pytest.approx(expected, rel=1e-11, abs=1e-14)
        assert single.dtype == torch.float32
        assert single.flatten().tolist() == pytest.approx(expected, rel=2e-4, abs=1e-6)


def test_log_prob_in_the_tail_where_a_difference_of_sigmoids_fails():
    """Mean -0.2, log-scale -4: nats of bins where float32 sigmoids differ by nothing but rounding."""
    likelihood = DiscretizedLogisticMixture(mixtures=1)
    params = mixture_params([0.0], [[-0.2]], [[-4.0]], dtype=torch.float32).expand(-1, -1, 1, 5)
    x = torch.tensor([111, 131, 141, 151, 201]).view(1, 1, 1, 5)
    exact = [-4.737, -13.259, -17.541, -21.823, -43.234]
    assert likelihood.log_prob(params, x).flatten().tolist() == pytest.approx(exact, abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pmf_sums_to_one(dtype):
    likelihood = DiscretizedLogisticMixture(mixtures=1)
    grid = list(itertools.product(MEANS, (*LOG_SCALES, -100.0, 40.0, 200.0)))
    params = torch.tensor([[0.0, mean, log_scale] for mean, log_scale in grid], dtype=dtype)
    params = params.T.reshape(1, 3, 1, len(grid))
    pmf = likelihood.pmf(params)
    assert pmf.shape == (1, 256, 1, 1, len(grid))
    assert (pmf >= 0).all()
    assert (pmf.sum(1) - 1).abs().max() < 1e-5
    every_level = torch.arange(256).view(256, 1, 1, 1).expand(-1, -1, 1, len(grid))
    from_log_prob = likelihood.log_prob(params.expand(256, -1, -1, -1), every_level).exp()
    assert (from_log_prob.sum(0) - 1).abs().max() < 1e-5
    assert (from_log_prob - pmf[0]).abs().max() < 1e-5


def test_edge_bins_reach_to_infinity():
    likelihood = DiscretizedLogisticMixture(mixtures=1)
    below = likelihood.pmf(mixture_params([0.0], [[-5.0]], [[-7.0]]))
    above = likelihood.pmf(mixture_params([0.0], [[5.0]], [[-7.0]]))
    assert below[0, 0].item() == pytest.approx(1, abs=1e-12)
    assert above[0, 255].item() == pytest.approx(1, abs=1e-12)


def test_log_scale_has_a_floor():
    likelihood = DiscretizedLogisticMixture(mixtures=1)
    x = torch.full((1, 1, 1, 1), 100)
    at_floor = likelihood.log_prob(mixture_params([0.0], [[-0.2157]], [[-7.0]]), x)
    below = mixture_params([0.0], [[-0.2157]], [[-30.0]]).requires_grad_()
    log_prob = likelihood.log_prob(below, x)
    assert log_prob.item() == at_floor.item()
    log_prob.sum().backward()
    assert below.grad[0, 2].item() == 0
    centre = likelihood.log_prob(mixture_params([0.0], [[100 / 127.5 - 1]], [[-30.0]]), x)
    assert centre.exp().item() == pytest.approx(0.973, abs=5e-4)


def colour_oracle(logits, means, log_scales, coefficients, rgb, levels):
    """ln p(r), ln p(r, g), ln p(r, g, b), component by component in plain Python."""
    weights = np.exp(logits - np.max(logits))
    weights /= weights.sum()
    signed = [2 * v / (levels - 1) - 1 for v in rgb]
    tanh = np.tanh(coefficients)
    totals = np.zeros(3)
    for k, weight in enumerate(weights):
        centres = [
            means[0][k],
            means[1][k] + tanh[0][k] * signed[0],
            means[2][k] + tanh[1][k] * signed[0] + tanh[2][k] * signed[1],
        ]
        mass = weight
        for channel in range(3):
            mass *= math.exp(
                decimal_log_bin(centres[channel], log_scales[channel][k], int(rgb[channel]), levels)
            )
            totals[channel] += mass
    return np.log(totals)


@pytest.mark.parametrize("levels", [4, 256])
def test_colour_log_prob_is_the_chain_rule_of_the_mixture(levels):
    generator = np.random.default_rng(5)
    likelihood = DiscretizedLogisticMixture(mixtures=3, levels=levels)
    for _ in range(20):
        logits = generator.normal(size=3)
        means, coefficients = generator.uniform(-1, 1, (3, 3)), generator.normal(size=(3, 3))
        log_scales = generator.uniform(-3, 0, (3, 3))
        rgb = generator.integers(levels, size=3)
        joint = colour_oracle(logits, means, log_scales, coefficients, rgb, levels)
        params = mixture_params(logits, means, log_scales, coefficients)
        x = torch.tensor(rgb).view(1, 3, 1, 1)
        log_prob = likelihood.log_prob(params, x).flatten()
        assert log_prob.cumsum(0).tolist() == pytest.approx(joint.tolist(), rel=1e-10)
        assert likelihood.loss(params, x).item() == pytest.approx(-joint[2], rel=1e-10)
        pmf = likelihood.pmf(params, x)[0, :, :, 0, 0]
        assert pmf[rgb, range(3)].log().tolist() == pytest.approx(log_prob.tolist(), rel=1e-9)
        assert pmf.sum(0).tolist() == pytest.approx([1, 1, 1], abs=1e-12)


# ---------------------------------------------------------------- the other probabilities


@pytest.mark.parametrize("channels", [1, 3])
def test_categorical_log_prob_and_pmf(channels):
    likelihood = Categorical(levels=5)
    params = random_params(likelihood, 2, channels, 3, 4, torch.float64, spread=3)
    x = random_images(likelihood, 2, channels, 3, 4)
    log_prob, pmf = likelihood.log_prob(params, x), likelihood.pmf(params)
    exponentials = np.exp(params.numpy())
    expected = exponentials / exponentials.sum(1, keepdims=True)
    assert np.allclose(pmf, expected, rtol=1e-13, atol=0)
    for n, c, i, j in itertools.product(range(2), range(channels), range(3), range(4)):
        assert log_prob[n, c, i, j].item() == pytest.approx(math.log(expected[n, x[n, c, i, j], c, i, j]))


def test_bernoulli_log_prob_and_pmf():
    logits = torch.tensor([-800.0, -30.0, -1.0, 0.0, 2.0, 800.0], dtype=torch.float64)
    params = logits.view(1, 1, 1, 6)
    ones = torch.ones(1, 1, 1, 6, dtype=torch.uint8)
    of_one = [-800, math.log(1 / (1 + math.exp(30))), math.log(1 / (1 + math.e)), math.log(0.5)]
    of_one += [-math.log1p(math.exp(-2)), 0]
    assert Bernoulli().log_prob(params, ones).flatten().tolist() == pytest.approx(of_one, rel=1e-12)
    of_zero = Bernoulli().log_prob(params, 1 - ones).flatten()
    assert (of_zero - Bernoulli().log_prob(-params, ones).flatten()).abs().max() == 0
    assert (Bernoulli().pmf(params).sum(1) - 1).abs().max() < 1e-15
    assert Bernoulli().pmf(params)[0, 1].flatten().tolist() == pytest.approx(np.exp(of_one).tolist())


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_loss_is_nats_per_image(likelihood, channels):
    params = random_params(likelihood, 3, channels, 2, 5)
    x = random_images(likelihood, 3, channels, 2, 5)
    log_prob = likelihood.log_prob(params, x)
    assert log_prob.shape == x.shape
    assert log_prob.dtype == torch.float32
    loss = likelihood.loss(params, x)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(-log_prob.double().sum().item() / 3, rel=1e-5)


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_params_are_scored_in_float32(likelihood, dtype):
    params = random_params(likelihood, 2, 1, 3, 3).to(dtype)
    x = random_images(likelihood, 2, 1, 3, 3)
    assert torch.equal(likelihood.log_prob(params, x), likelihood.log_prob(params.float(), x))
    assert torch.equal(likelihood.loss(params, x), likelihood.loss(params.float(), x))


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("likelihood", [lik for lik in LIKELIHOODS if lik.levels < 256], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_against_finite_differences(likelihood, channels):
    params = random_params(likelihood, 2, channels, 1, 2, torch.float64).requires_grad_()
    x = random_images(likelihood, 2, channels, 1, 2)
    assert torch.autograd.gradcheck(lambda p: likelihood.log_prob(p, x), params)
    assert torch.autograd.gradcheck(lambda p: likelihood.loss(p, x), params)


EXTREME_MEANS = (-1e4, -50.0, -1.0, 0.0, 1.0, 50.0, 1e4)
EXTREME_LOG_SCALES = (-1e10, -50.0, -7.0, -3.0, 0.0, 20.0, 60.0, 90.0, 200.0, 1e10)


@pytest.mark.parametrize("levels", [2, 4, 256])
@pytest.mark.parametrize("measure", ["loss", "log_prob"])
def test_float32_mixture_is_finite_with_finite_gradients(levels, measure):
    likelihood = DiscretizedLogisticMixture(mixtures=2, levels=levels)
    grid = list(itertools.product(EXTREME_MEANS, EXTREME_LOG_SCALES, (-1e4, 0.0, 1e4)))
    columns = [[logit, 0.0, *[mean, 0.1, log_scale, 0.2, logit, 0.3] * 3] for mean, log_scale, logit in grid]
    params = torch.tensor(columns, dtype=torch.float32).T.reshape(1, 20, 1, len(grid))
    for value in {0, 1, levels // 2, levels - 1}:
        leaf = params.clone().requires_grad_()
        x = torch.full((1, 3, 1, len(grid)), value)
        result = getattr(likelihood, measure)(leaf, x)
        assert torch.isfinite(result).all()
        result.sum().backward()
        assert torch.isfinite(leaf.grad).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_component_of_probability_zero_leaves_finite_gradients(channels):
    likelihood = DiscretizedLogisticMixture(mixtures=3)
    params = random_params(likelihood, 2, channels, 2, 2)
    params[:, 1] = -math.inf
    params.requires_grad_()
    x = random_images(likelihood, 2, channels, 2, 2)
    loss = likelihood.loss(params, x)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(params.grad).all()
    assert (params.grad[:, 1] == 0).all()


@pytest.mark.parametrize("likelihood", [Categorical(levels=3), Bernoulli()], ids=str)
def test_large_logits_leave_finite_gradients(likelihood):
    params = (1e4 * random_params(likelihood, 4, 3, 2, 2).sign()).requires_grad_()
    loss = likelihood.loss(params, random_images(likelihood, 4, 3, 2, 2))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(params.grad).all()


# ---------------------------------------------------------------- layouts


def test_parameters_draws_and_needs():
    mixture = DiscretizedLogisticMixture(mixtures=4)
    assert (mixture.levels, mixture.parameters(3), mixture.parameters(1)) == (256, 40, 12)
    assert (mixture.draws(3), mixture.draws(1)) == (5, 5)
    assert mixture.needs(3) == [list(range(40))] * 3
    assert mixture.needs(1) == [list(range(12))]
    categorical = Categorical(levels=3)
    assert (categorical.parameters(2), categorical.draws(2)) == (6, 3)
    assert categorical.needs(2) == [[0, 1, 2], [3, 4, 5]]
    assert (Bernoulli().levels, Bernoulli().parameters(2), Bernoulli().draws(2)) == (2, 2, 1)
    assert Bernoulli().needs(2) == [[0], [1]]


def test_likelihoods_compare_and_hash_by_value():
    assert Categorical(levels=4) == Categorical(levels=4) != Categorical(levels=5)
    assert len({Bernoulli(), Bernoulli(), DiscretizedLogisticMixture()}) == 2
    assert repr(DiscretizedLogisticMixture()) == "DiscretizedLogisticMixture(mixtures=10, levels=256)"
    assert repr(Bernoulli()) == "Bernoulli()"


def test_flatten_of_categorical_is_channel_major():
    likelihood = Categorical(levels=3)
    params = random_params(likelihood, 2, 2, 4, 5)
    flat = likelihood.flatten(params, (2, 4, 5))
    assert flat.shape == (2, 6, 4, 5)
    for channel, level in itertools.product(range(2), range(3)):
        assert torch.equal(flat[:, channel * 3 + level], params[:, level, channel])


def test_flatten_of_one_channel_categorical_takes_both_layouts_and_copies_nothing():
    likelihood = Categorical(levels=3)
    params = random_params(likelihood, 2, 1, 4, 5)
    for given in (params, params.squeeze(2)):
        flat = likelihood.flatten(given, (1, 4, 5))
        assert torch.equal(flat, params.squeeze(2))
        assert flat.data_ptr() == params.data_ptr()
    x = random_images(likelihood, 2, 1, 4, 5)
    assert torch.equal(likelihood.log_prob(params, x), likelihood.log_prob(params.squeeze(2), x))
    assert torch.equal(likelihood.pmf(params), likelihood.pmf(params.squeeze(2)))


@pytest.mark.parametrize("likelihood", [DiscretizedLogisticMixture(), Bernoulli()], ids=str)
def test_flatten_of_flat_layouts_is_the_identity(likelihood):
    params = random_params(likelihood, 2, 3, 4, 5)
    assert likelihood.flatten(params, (3, 4, 5)) is params


@pytest.mark.parametrize(
    ("likelihood", "shape", "given", "accepted"),
    [
        (DiscretizedLogisticMixture(), (3, 2, 2), (1, 30, 2, 2), "(N, 100, 2, 2)"),
        (DiscretizedLogisticMixture(), (1, 2, 2), (1, 100, 2, 2), "(N, 30, 2, 2)"),
        (DiscretizedLogisticMixture(), (3, 2, 2), (1, 100, 2, 3), "(N, 100, 2, 2)"),
        (DiscretizedLogisticMixture(), (3, 2, 2), (100, 2, 2), "(N, 100, 2, 2)"),
        (DiscretizedLogisticMixture(), (2, 2, 2), (1, 100, 2, 2), "1 or 3 channels"),
        (Categorical(4), (3, 2, 2), (1, 12, 2, 2), "(N, 4, 3, 2, 2)"),
        (Categorical(4), (3, 2, 2), (1, 3, 4, 2, 2), "(N, 4, 3, 2, 2)"),
        (Categorical(4), (1, 2, 2), (1, 5, 2, 2), "(N, 4, 1, 2, 2) or (N, 4, 2, 2)"),
        (Bernoulli(), (1, 2, 2), (1, 2, 2), "(N, 1, 2, 2)"),
        (Bernoulli(), (3, 2, 2), (1, 1, 2, 2), "(N, 3, 2, 2)"),
    ],
)
def test_other_layouts_are_refused_by_name(likelihood, shape, given, accepted):
    for call in (
        lambda: likelihood.flatten(torch.zeros(given), shape),
        lambda: likelihood.log_prob(torch.zeros(given), torch.zeros((1, *shape), dtype=torch.uint8)),
        lambda: likelihood.loss(torch.zeros(given), torch.zeros((1, *shape), dtype=torch.uint8)),
    ):
        with pytest.raises(ShapeError) as caught:
            call()
        assert accepted in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
def test_integer_params_are_refused(likelihood):
    params = random_params(likelihood, 1, 1, 2, 2).long()
    with pytest.raises(ShapeError, match="int64"):
        likelihood.flatten(params, (1, 2, 2))


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
@pytest.mark.parametrize("given", [(4,), (2, 7, 2, 2), (2, 2), (2, 2, 2, 2, 2, 2), (1, 11, 3, 2, 2)])
def test_pmf_refuses_other_layouts(likelihood, given):
    if likelihood == Bernoulli() and len(given) == 4:
        given = (2, 2)
    with pytest.raises(ShapeError):
        likelihood.pmf(torch.zeros(given))


def test_pmf_of_colour_needs_the_image():
    likelihood = DiscretizedLogisticMixture()
    with pytest.raises(ShapeError, match="x is needed"):
        likelihood.pmf(torch.zeros(1, 100, 2, 2))


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
def test_bad_images_are_refused(likelihood):
    params = random_params(likelihood, 2, 1, 2, 2)
    good = torch.zeros(2, 1, 2, 2, dtype=torch.int64)
    likelihood.log_prob(params, good)
    for bad, message in [
        (good.float(), "float32"),
        (good.bool(), "bool"),
        (good[0], "integers \\(N, C, H, W\\)"),
        (good - 1, f"from 0 to {likelihood.levels - 1}"),
        (good + likelihood.levels, f"from 0 to {likelihood.levels - 1}"),
        (good[:1], "params are of 2 images but x of 1"),
    ]:
        with pytest.raises(ShapeError, match=message):
            likelihood.log_prob(params, bad)
        with pytest.raises(ShapeError, match=message):
            likelihood.loss(params, bad)


def test_impossible_likelihoods_are_refused():
    for make in (
        lambda: Categorical(levels=1),
        lambda: DiscretizedLogisticMixture(levels=0),
        lambda: DiscretizedLogisticMixture(mixtures=0),
    ):
        with pytest.raises(PixelfastError, match="must be at least"):
            make()


# ---------------------------------------------------------------- noise


def test_noise_is_finite_and_accurate_at_both_ends():
    low, high = 2.0**-33, 1 - 2.0**-33
    uniforms = torch.tensor([low, high], dtype=torch.float64)
    with localcontext() as context:
        context.prec = 50
        logs = [Decimal(u).ln() for u in (low, high)]
        expected_gumbel = [float(-(-log).ln()) for log in logs]
        expected_logistic = [float(logs[0] - logs[1]), float(logs[1] - logs[0])]
    assert gumbel(uniforms).tolist() == pytest.approx(expected_gumbel, rel=1e-15)
    assert logistic(uniforms).tolist() == pytest.approx(expected_logistic, rel=1e-15)
    assert expected_logistic[1] == pytest.approx(22.87, abs=0.01)


def test_ties_go_to_the_lowest_index():
    uniforms = torch.full((1, 4), 0.37, dtype=torch.float64)
    logits = torch.tensor([[-1.0, 2.0, 2.0, 2.0]], dtype=torch.float64)
    assert choose(logits, uniforms, 1.0).item() == 1
    assert choose(logits, uniforms, 0.0).item() == 1


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0, 100.0])
def test_a_logit_of_minus_infinity_is_never_chosen(temperature):
    low, high = 2.0**-33, 1 - 2.0**-33
    everything = torch.tensor(list(itertools.product([low, 0.5, high], repeat=4)), dtype=torch.float64)
    logits = torch.tensor([-math.inf, 3.0, -math.inf, -50.0], dtype=torch.float64)
    chosen = choose(logits.expand(len(everything), -1), everything, temperature)
    assert set(chosen.tolist()) <= {1, 3}
    params = logits.view(1, 4, 1, 1).expand(len(everything), -1, 1, 1)
    sampled = Categorical(levels=4).sample(params, everything.view(-1, 1, 1, 1, 4), temperature)
    assert torch.equal(sampled.flatten(), chosen)


# ---------------------------------------------------------------- sampling


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["exact", "reference"])
def test_sample_is_draw_number_by_number(likelihood, channels, mode):
    n, height, width = 3, 2, 2
    params = random_params(likelihood, n, channels, height, width)
    uniforms = noise(likelihood, n, channels, height, width)
    images = likelihood.sample(params, uniforms, 0.9, mode)
    assert images.dtype == torch.int64
    assert images.shape == (n, channels, height, width)
    assert ((images >= 0) & (images < likelihood.levels)).all()
    flat = likelihood.flatten(params, (channels, height, width))
    for image, i, j in itertools.product(range(n), range(height), range(width)):
        pixel = PixelState.start(1, channels)
        for channel, needed in enumerate(likelihood.needs(channels)):
            own, u = flat[image : image + 1, needed, i, j], uniforms[image : image + 1, channel, i, j]
            value = likelihood.draw(channel, own, pixel, u, 0.9, mode)
            assert value.dtype == torch.float64
            assert value.shape == (1,)
            assert mode == "reference" or value.item() == round(value.item())
            pixel.values[:, channel] = value
            assert images[image, channel, i, j] == round(value.item())


def test_a_pixel_of_an_image_does_not_depend_on_the_others():
    likelihood = DiscretizedLogisticMixture(mixtures=3)
    params = random_params(likelihood, 4, 3, 2, 3)
    uniforms = noise(likelihood, 4, 3, 2, 3)
    images = likelihood.sample(params, uniforms)
    assert torch.equal(likelihood.sample(params[2:3], uniforms[2:3]), images[2:3])
    part = likelihood.sample(params[:, :, 1:, 1:2], uniforms[:, :, 1:, 1:2])
    assert torch.equal(part, images[:, :, 1:, 1:2])


def test_temperature_divides_logits():
    params = random_params(Categorical(levels=6), 5, 3, 2, 2, torch.float64)
    uniforms = noise(Categorical(levels=6), 5, 3, 2, 2)
    for temperature in (0.25, 1.0, 4.0):
        scaled = Categorical(levels=6).sample(params / temperature, uniforms)
        assert torch.equal(Categorical(levels=6).sample(params, uniforms, temperature), scaled)
        scaled = Bernoulli().sample(params[:, 0] / temperature, uniforms[..., :1])
        assert torch.equal(Bernoulli().sample(params[:, 0], uniforms[..., :1], temperature), scaled)


@pytest.mark.parametrize("mode", ["exact", "reference"])
def test_temperature_scales_scales_after_their_floor(mode):
    likelihood = DiscretizedLogisticMixture(mixtures=2)
    uniforms = noise(likelihood, 50, 1, 1, 1)
    temperature = 3.0
    cold = mixture_params([1.0, 2.0], [[-0.1, 0.4]], [[-30.0, -2.0]]).expand(50, -1, 1, 1)
    warm = mixture_params(
        [1 / temperature, 2 / temperature],
        [[-0.1, 0.4]],
        [[-7.0 + math.log(temperature), -2.0 + math.log(temperature)]],
    ).expand(50, -1, 1, 1)
    hot = likelihood.sample(cold, uniforms, temperature, mode)
    assert torch.equal(hot, likelihood.sample(warm, uniforms, 1.0, mode))
    assert not torch.equal(hot, likelihood.sample(cold, uniforms, 1.0, mode))


def test_variance_grows_with_temperature():
    likelihood = DiscretizedLogisticMixture(mixtures=1)
    params = mixture_params([0.0], [[0.0]], [[-3.0]]).expand(4000, -1, 1, 1)
    uniforms = noise(likelihood, 4000, 1, 1, 1)
    deviations = [likelihood.sample(params, uniforms, t).double().std().item() for t in (0, 0.5, 1, 1.5)]
    assert deviations[0] == 0
    assert deviations == sorted(deviations)
    # A logistic of scale s has standard deviation pi s / sqrt 3; a level is 1 / 127.5.
    expected = 127.5 * math.exp(-3) * math.pi / math.sqrt(3)
    assert deviations[2] == pytest.approx(expected, rel=0.05)
    assert deviations[1] == pytest.approx(expected / 2, rel=0.05)


def test_temperature_zero_is_the_mode_whatever_the_noise():
    for seed in range(3):
        categorical = Categorical(levels=6)
        params = random_params(categorical, 5, 3, 2, 2)
        images = categorical.sample(params, noise(categorical, 5, 3, 2, 2, seed), 0)
        assert torch.equal(images, params.argmax(1))

        params = torch.tensor([-3.0, 0.0, 0.1]).view(1, 3, 1, 1)
        images = Bernoulli().sample(params, noise(Bernoulli(), 1, 3, 1, 1, seed), 0)
        assert images.flatten().tolist() == [0, 0, 1]

        mixture = DiscretizedLogisticMixture(mixtures=3)
        params = mixture_params(
            [0.5, 0.5, -1.0],
            [[0.2, 0.9, 0.9], [0.1, 0.9, 0.9], [-2.0, 0.9, 0.9]],
            [[5.0, -7.0, -7.0]] * 3,
            [[1.0, 0.0, 0.0], [2.0, 0.0, 0.0], [-0.5, 0.0, 0.0]],
        )
        red = round(1.2 * 127.5)
        green = round((1.1 + math.tanh(1.0) * (red / 127.5 - 1)) * 127.5)
        images = mixture.sample(params, noise(mixture, 1, 3, 1, 1, seed), 0)
        assert images.flatten().tolist() == [red, green, 0]


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
def test_bad_sampling_arguments_are_refused(likelihood):
    params, uniforms = random_params(likelihood, 2, 1, 2, 2), noise(likelihood, 2, 1, 2, 2)
    for temperature in (-1, -1e-9, math.nan, math.inf):
        with pytest.raises(PixelfastError, match="temperature is"):
            likelihood.sample(params, uniforms, temperature)
    with pytest.raises(PixelfastError, match="mode is 'fast'; it must be one of 'exact', 'reference'"):
        likelihood.sample(params, uniforms, 1.0, "fast")
    for bad, message in [
        (uniforms.float(), "float64"),
        (uniforms[..., 0], "N, C, H, W, D"),
        (torch.cat([uniforms, uniforms], -1), "draws per number"),
        (uniforms * 0, "strictly between 0 and 1"),
        (uniforms * 0 + 1, "strictly between 0 and 1"),
        (uniforms * math.nan, "strictly between 0 and 1"),
        (uniforms[:1], "params are of 2 images but uniforms of 1"),
        (uniforms[:, :, :1], "params have dtype"),
    ]:
        with pytest.raises(ShapeError, match=message):
            likelihood.sample(params, bad)


# ---------------------------------------------------------------- the published sampler


def published_sampler(params, uniforms, mixtures, channels):
    """One pixel as the PixelCNN++ paper's code draws it: real numbers in [-1, 1], in plain Python."""
    choice = [-math.log(-math.log(min(max(u, 1e-5), 1 - 1e-5))) for u in uniforms[0][:mixtures]]
    k = max(range(mixtures), key=lambda i: params[i] + choice[i])
    width = 3 if channels == 3 else 2
    block = [params[mixtures + c * width * mixtures :][: width * mixtures] for c in range(channels)]
    values = []
    for c in range(channels):
        u = min(max(uniforms[c][mixtures], 1e-5), 1 - 1e-5)
        scale = math.exp(max(block[c][mixtures + k], -7.0))
        value = block[c][k] + scale * (math.log(u) - math.log(1 - u))
        if c == 1:
            value += math.tanh(block[0][2 * mixtures + k]) * values[0]
        if c == 2:
            value += math.tanh(block[1][2 * mixtures + k]) * values[0]
            value += math.tanh(block[2][2 * mixtures + k]) * values[1]
        values.append(min(max(value, -1.0), 1.0))
    return values


@pytest.mark.parametrize("channels", [1, 3])
def test_reference_mode_is_the_published_sampler(channels):
    likelihood = DiscretizedLogisticMixture(mixtures=4)
    n = 200
    flat = random_params(likelihood, n, channels, 1, 1, torch.float64).view(n, -1)
    uniforms = noise(likelihood, n, channels, 1, 1).reshape(n, channels, 5)
    uniforms[0, :, :] = 2.0**-33
    uniforms[1, :, -1] = 1 - 2.0**-33
    pixel = PixelState.start(n, channels)
    for channel in range(channels):
        pixel.values[:, channel] = likelihood.draw(
            channel, flat, pixel, uniforms[:, channel], mode="reference"
        )
    expected = [published_sampler(flat[i].tolist(), uniforms[i].tolist(), 4, channels) for i in range(n)]
    assert (pixel.values / 127.5 - 1 - torch.tensor(expected, dtype=torch.float64)).abs().max() < 1e-12
    whole = likelihood.sample(flat.view(n, -1, 1, 1), uniforms.view(n, channels, 1, 1, 5), mode="reference")
    assert torch.equal(whole.view(n, channels), pixel.values.round().long())
    exact = likelihood.sample(flat.view(n, -1, 1, 1), uniforms.view(n, channels, 1, 1, 5))
    # Rounding late changes nothing where no channel follows.
    assert torch.equal(whole, exact) == (channels == 1)


def test_reference_mode_keeps_the_component_after_a_given_channel():
    """The published sampler has no posterior: given red is fed on, and the component chosen at red stays."""
    likelihood = DiscretizedLogisticMixture(mixtures=4)
    n = 200
    flat = random_params(likelihood, n, 3, 1, 1, torch.float64).view(n, -1)
    uniforms = noise(likelihood, n, 3, 1, 1).reshape(n, 3, 5)

    def components(mode):
        pixel = PixelState.start(n, 3)
        likelihood.draw(0, flat, pixel, uniforms[:, 0], mode=mode)
        chosen = pixel.component
        pixel.values[:, 0], pixel.known[:, 0] = 200, True
        likelihood.draw(1, flat, pixel, uniforms[:, 1], mode=mode)
        return chosen, pixel.component

    assert torch.equal(*components("reference"))
    assert not torch.equal(*components("exact"))


# ---------------------------------------------------------------- parameters that are not numbers


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
@pytest.mark.parametrize("mode", ["exact", "reference"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nan_params_are_not_turned_into_an_image(likelihood, mode, temperature):
    params, uniforms = random_params(likelihood, 3, 3, 1, 1), noise(likelihood, 3, 3, 1, 1)
    params[1, 0] = math.nan
    with pytest.raises(PixelfastError, match="params contain NaN"):
        likelihood.sample(params, uniforms, temperature, mode)
    own = likelihood.flatten(params, (3, 1, 1))[:, likelihood.needs(3)[0], 0, 0]
    pixel = PixelState.start(3, 3)
    drawn = likelihood.draw(0, own, pixel, uniforms[:, 0, 0, 0], temperature, mode)
    assert drawn.isnan().tolist() == [False, True, False]


def test_nothing_to_choose_from_is_not_a_choice():
    uniforms = torch.full((3, 2), 0.4, dtype=torch.float64)
    logits = torch.tensor([[-math.inf, -math.inf], [math.nan, 0.0], [-math.inf, 0.0]], dtype=torch.float64)
    assert choose(logits, uniforms, 1.0).tolist() == [-1, -1, 1]
