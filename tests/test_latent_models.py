"""VAE, PixelVAE and hierarchical PixelVAE: their bounds against other ways to compute them, and what they refuse."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from latent_models import CASES, PIXELS, SMALL, randomised, small, some_images
from torch.distributions import Normal, kl_divergence

import pixelfast
from pixelfast.errors import PixelfastError, ShapeError
from pixelfast.models import VAE, HierarchicalPixelVAE, PixelVAE, registry
from pixelfast.models.latents import LOG_SCALE_LIMIT, Bound, UnitGaussian, drawn_from, limited
from pixelfast.models.latents import kl_divergence as divergence

every_case = pytest.mark.parametrize("name", CASES)


def gaussian(params: torch.Tensor) -> Normal:
    mean, log_scale = params.chunk(2, dim=1)
    return Normal(mean, log_scale.exp())


# -- latents -------------------------------------------------------------------------------------------------


def test_divergence_is_that_of_torch():
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(3, 4, 2, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    expected = kl_divergence(gaussian(one), gaussian(other)).flatten(1).sum(1)
    torch.testing.assert_close(divergence(one, other), expected)
    assert divergence(one, one).abs().max() < 1e-12


def test_latents_are_drawn_with_gradients():
    params = torch.tensor([0.5, -1.0]).view(1, 2, 1, 1).expand(50_000, -1, 1, 1).requires_grad_()
    torch.manual_seed(0)
    drawn = drawn_from(params, training=True)
    assert float(drawn.detach().mean()) == pytest.approx(0.5, abs=0.01)
    assert float(drawn.detach().std()) == pytest.approx(math.exp(-1), abs=0.01)
    (gradient,) = torch.autograd.grad(drawn.square().mean(), params)
    # Of mean^2 + scale^2.
    assert gradient.sum(0).flatten().tolist() == pytest.approx([1.0, 2 * math.exp(-2)], abs=0.02)


def test_noise_of_an_evaluation_is_the_same_at_every_call():
    params = torch.zeros(5, 2, 1, 1)
    assert torch.equal(drawn_from(params, training=False), drawn_from(params, training=False))
    assert not torch.equal(drawn_from(params, training=True), drawn_from(params, training=True))


def test_log_scales_stay_within_bounds():
    params = torch.tensor([1e4, -1e4, 0.01]).view(3, 1, 1, 1).repeat(1, 2, 1, 1)
    mean, log_scale = limited(params).chunk(2, dim=1)
    assert torch.equal(mean, params[:, :1])
    assert log_scale.flatten().tolist() == pytest.approx([LOG_SCALE_LIMIT, -LOG_SCALE_LIMIT, 0.01], rel=1e-3)


def test_a_bound_is_the_sum_of_its_parts():
    bound = Bound(torch.tensor([1.0, 2.0]), {"a": torch.tensor([0.5, 0.25]), "b": torch.tensor([4.0, 8.0])})
    assert bound.total.tolist() == [5.5, 10.25]


def test_the_unit_prior_has_no_parameters_that_are_not_zero():
    prior = UnitGaussian((2, 3, 4))
    assert torch.equal(prior(torch.ones(5, 2, 3, 4)), torch.zeros(5, 4, 3, 4))


# -- bounds --------------------------------------------------------------------------------------------------


def grid_of_latents() -> tuple[torch.Tensor, torch.Tensor]:
    """Latents (N, 1, 1, 1) on a fine grid, and the prior's logarithm of the mass of each."""
    z = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    return z.view(-1, 1, 1, 1), Normal(0.0, 1.0).log_prob(z) + math.log(float(z[1] - z[0]))


def log_likelihood(model: PixelVAE | VAE, images: torch.Tensor) -> torch.Tensor:
    """log p of every image by summing over a grid of its one latent."""
    z, log_mass = grid_of_latents()
    found = []
    for image in images.split(1):
        x = (2.0 * image.double() - 1).expand(len(z), -1, -1, -1)
        log_prob = model.likelihood.log_prob(model.pixels(x, z), image.expand(len(z), -1, -1, -1))
        found.append(torch.logsumexp(log_prob.sum((1, 2, 3)) + log_mass, 0))
    return torch.stack(found)


def all_images(height: int, width: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product((0, 1), repeat=height * width))).view(-1, 1, height, width)


def tiny(kind: str) -> PixelVAE | VAE:
    torch.manual_seed(3)
    if kind == "vae":
        return randomised(VAE((1, 2, 3), latents=1, network="mlp", hidden=4)).double()
    form = "bias" if kind == "bias" else "features"
    made = PixelVAE((1, 2, 3), latents=1, network="mlp", hidden=4, features=3, pixel_hidden=4, form=form)
    return randomised(made).double()


@pytest.mark.parametrize("kind", ["vae", "features", "bias"])
@torch.no_grad()
def test_the_bound_is_one(kind):
    """Summed over latents the images' probabilities are a distribution, and the mean bound lies below each."""
    model, images = tiny(kind), all_images(2, 3)
    exact = log_likelihood(model, images)
    assert float(exact.exp().sum()) == pytest.approx(1, abs=1e-9)
    model.train()
    torch.manual_seed(0)
    bound = torch.stack([model.bound(images).total for _ in range(400)])
    error = bound.std(0) / math.sqrt(len(bound))
    assert bool((bound.mean(0) > -exact - 4 * error).all())
    # The posterior is not the true one, so the bound is not tight; nor is it far off in so small a model.
    assert 0.01 < float((bound.mean(0) + exact).mean()) < 3


@torch.no_grad()
def test_the_bound_of_a_posterior_that_is_the_prior():
    """With latents that pixels do not read, and a posterior equal to the prior, the bound is the likelihood itself."""
    model = tiny("vae")
    for parameter in [*model.encoder.parameters(), *model.pixels.decoder.layers[0].parameters()]:
        parameter.zero_()
    images = all_images(2, 3)
    bound = model.bound(images)
    assert bound.kl["latents"].abs().max() == 0
    torch.testing.assert_close(bound.total, -log_likelihood(model, images), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_the_divergence_of_a_map_is_position_by_position():
    """Of the two-level model: each position's Gaussian given what was drawn before it, one after another."""
    model = small("two levels").double()
    images = some_images(model, 2)
    low, high = model._posteriors(images)
    drawn, above = drawn_from(low, False), drawn_from(high, False)
    expected = torch.zeros(2, dtype=torch.float64)
    _, height, width = model.latent_networks[0].shape
    for y, x in itertools.product(range(height), range(width)):
        seen = drawn.clone()
        seen.flatten(2)[:, :, y * width + x :] = 99.0  # what comes later
        prior = model.latent_networks[0](seen, above)[:, :, y, x]
        expected += divergence(low[:, :, y, x], prior)
    found = model.bound(images).kl
    assert list(found) == ["latents_2", "latents_1"]
    torch.testing.assert_close(found["latents_1"], expected)
    torch.testing.assert_close(found["latents_2"], divergence(high, torch.zeros_like(high)))


@every_case
@torch.no_grad()
def test_the_loss_is_the_mean_bound(name):
    model = small(name)
    images = some_images(model, 3)
    bound = model.bound(images)
    assert bound.distortion.shape == (3,) and all(part.shape == (3,) for part in bound.kl.values())
    assert list(bound.kl) == [stage.name for stage in model.stages[:-1]]
    assert float(model.loss(images)) == pytest.approx(float(bound.total.mean()), rel=1e-5)


@every_case
def test_every_weight_learns(name):
    model = small(name).train()
    torch.manual_seed(0)
    model.loss(some_images(model, 2)).backward()
    # The last vertical gate reads no condition that anything looks at.
    idle = {"pixels.blocks.1.condition_vertical.weight"} if "bias" in name else set()
    assert {n for n, p in model.named_parameters() if p.grad is None or not bool(p.grad.any())} == idle


@pytest.mark.parametrize("weight", [0.0, 0.5])
@torch.no_grad()
def test_kl_weight(weight):
    images = torch.randint(2, (3, 1, 8, 12))
    model = randomised(VAE((1, 8, 12), kl_weight=weight, **SMALL))
    bound = model.bound(images)
    assert float(model.loss(images)) == pytest.approx(
        float((bound.distortion + weight * bound.kl["latents"]).mean()), rel=1e-5
    )
    if not weight:
        # A plain autoencoder: nothing is drawn, in training neither.
        assert float(model.loss(images)) == float(model.train().loss(images))


def test_free_nats_are_not_charged_in_training():
    torch.manual_seed(0)
    sizes = {"hidden": 5, "latents": (2, 3), "halvings": (1,), **PIXELS}
    model = randomised(HierarchicalPixelVAE((1, 6, 8), free_nats=50.0, **sizes))
    images = some_images(model, 3)
    torch.manual_seed(0)
    loss = model.train().loss(images)
    loss.backward()
    assert all(p.grad is None or not bool(p.grad.any()) for p in model.latent_networks.parameters())
    torch.manual_seed(0)
    with torch.no_grad():
        bound = model.bound(images)
        assert loss.item() == pytest.approx(bound.distortion.mean().item() + 100, rel=1e-5)
        assert float(model.eval().loss(images)) < loss.item() - 50


# -- construction --------------------------------------------------------------------------------------------


@every_case
def test_saved_and_loaded(name, tmp_path: Path):
    model = small(name)
    pixelfast.save(model, tmp_path / "model.safetensors")
    loaded = pixelfast.load(tmp_path / "model.safetensors")
    assert type(loaded) is type(model) and loaded.config == model.config
    images = some_images(model, 2)
    assert torch.equal(loaded(images), model(images))
    assert registry.create(registry.name_of(model), **model.config).config == model.config


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: VAE((1, 10, 12)), ShapeError, "height and width must be multiples of 4, not 10x12"),
        (lambda: VAE(likelihood="gaussian"), PixelfastError, "likelihood must be one of bernoulli, mixture"),
        (lambda: VAE(levels=4), PixelfastError, "likelihood='bernoulli' is for 2 levels, not 4"),
        (lambda: VAE((2, 8, 8), "mixture", 8), PixelfastError, "for 1 or 3 channels, not 2"),
        (lambda: VAE(network="lstm"), PixelfastError, "network must be one of convolutional, mlp"),
        (lambda: VAE(kl_weight=-1.0), PixelfastError, "kl_weight must be a number from 0 to 1000"),
        (lambda: VAE(latents=0), PixelfastError, "latents must be from 1"),
        (lambda: PixelVAE(form="bias", layers=0), PixelfastError, "layers must be at least 1"),
        (lambda: PixelVAE(form="film"), PixelfastError, "form must be one of features, bias"),
        (lambda: HierarchicalPixelVAE(latents=(4,)), PixelfastError, "it must have one fewer"),
        (lambda: HierarchicalPixelVAE(latents=4), PixelfastError, "latents must be a sequence of integers"),
        (lambda: HierarchicalPixelVAE(latents=(4, 4, 4), halvings=(2, 1)), ShapeError, "multiples of 2, not 7x7"),
    ],
)
def test_impossible_models_are_refused(make, error, message):
    with pytest.raises(error, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_other_inputs_are_refused():
    model = small("vae")
    with pytest.raises(ShapeError, match="int64 levels"):
        model.loss(torch.zeros(1, 1, 8, 12))
    with pytest.raises(ShapeError, match=r"the latents must be \(2, 3, 1, 1\)"):
        model.pixels(torch.zeros(2, 1, 8, 12), torch.zeros(2, 4, 1, 1))


def test_without_layers_pixels_do_not_see_each_other():
    model = small("pixel vae, no layers")
    z = torch.randn(1, 3, 1, 1)
    one, other = (model.pixels(x, z) for x in (torch.ones(1, 1, 12, 8), -torch.ones(1, 1, 12, 8)))
    assert torch.equal(one, other)
    layered = small("pixel vae")
    one, other = (layered.pixels(x, z) for x in (torch.ones(1, 1, 4, 8), -torch.ones(1, 1, 4, 8)))
    assert not torch.equal(one, other)


@pytest.mark.parametrize("form", ["features", "bias"])
def test_latents_reach_every_pixel(form):
    torch.manual_seed(0)
    model = randomised(PixelVAE((1, 8, 12), form=form, hidden=16, latents=3, **PIXELS)).double()
    x = torch.zeros(1, 1, 8, 12, dtype=torch.float64)
    z = torch.randn(1, 3, 1, 1, dtype=torch.float64)
    assert bool((model.pixels(x, z) != model.pixels(x, z + 0.5)).all())
