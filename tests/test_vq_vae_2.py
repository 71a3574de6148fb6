"""VQ-VAE-2: the autoencoder of two maps, its priors, sampling top, bottom and image in one call, and training."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from comparators import assert_same_integers
from torch import Tensor, nn
from training_runs import TINY, differences, losses, write_data

import pixelfast
from pixelfast import checkpoints, training
from pixelfast.cli.main import main
from pixelfast.errors import PixelfastError, ShapeError
from pixelfast.models import VQVAE2, VQVAE2WithPriors
from pixelfast.training import report, train
from pixelfast.training.code_figures import code_figures
from pixelfast.training.evaluate import network_input

SMALL: dict[str, Any] = {"hidden": 6, "residual_blocks": 1, "residual_hidden": 3, "codes": 7, "code_width": 5}
PRIOR: dict[str, Any] = {"features": 8, "hidden": 6, "parts": 1, "blocks": 1, "kernel_size": 3, "dropout": 0.0}
PRIORS: dict[str, Any] = {
    "top": {**PRIOR, "heads": 2},
    "bottom": {**PRIOR, "condition_hidden": 4, "condition_blocks": 1},
}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(5)


def scramble(model: nn.Module) -> Any:
    """Every number random, so that the codes of random images differ and depend on all of the network."""
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                tensor.add_(0.4 * torch.randn_like(tensor))
    return model.eval()


def with_priors(shape: tuple[int, int, int] = (1, 16, 8), **changes: Any) -> VQVAE2WithPriors:
    return scramble(VQVAE2WithPriors(shape, **(SMALL | PRIORS | {"halvings": 1} | changes)))


class TestAutoencoder:
    @pytest.mark.parametrize(("shape", "halvings"), [((1, 12, 8), 1), ((3, 8, 16), 2), ((2, 16, 32), 3)])
    def test_shapes(self, shape: tuple[int, int, int], halvings: int) -> None:
        model = VQVAE2(shape, levels=11, halvings=halvings, **SMALL)
        x = torch.rand(5, *shape) * 2 - 1
        codes = model.encode(x)
        height, width = shape[1] >> halvings, shape[2] >> halvings
        assert {name: tuple(one.shape) for name, one in codes.items()} == {
            "top": (5, 1, height // 2, width // 2),
            "bottom": (5, 1, height, width),
        }
        assert all(one.dtype == torch.int64 and 0 <= int(one.min()) and int(one.max()) < 7 for one in codes.values())
        assert model(x).shape == x.shape
        images = model.decode(**codes)
        assert images.shape == x.shape and images.dtype == torch.int64
        assert 0 <= int(images.min()) and int(images.max()) < 11

    def test_decoding_codes_is_the_reconstruction(self) -> None:
        model = scramble(VQVAE2((1, 12, 8), levels=4, halvings=1, **SMALL)).double()
        x = torch.rand(3, 1, 12, 8, dtype=torch.float64) * 2 - 1
        expected = (3 * (model(x).clamp(-1, 1) + 1) / 2).round().long()
        assert torch.equal(model.reconstruct(x), expected)

    def test_both_maps_are_read_and_the_bottom_knows_the_top(self) -> None:
        model = scramble(VQVAE2((1, 8, 8), halvings=1, **SMALL)).double()
        top, bottom = torch.zeros(1, 1, 2, 2, dtype=torch.int64), torch.zeros(1, 1, 4, 4, dtype=torch.int64)
        image = model.decode(top, bottom)
        assert not torch.equal(model.decode(top + 1, bottom), image)
        assert not torch.equal(model.decode(top, bottom + 1), image)
        features = torch.randn(1, 6, 4, 4, dtype=torch.float64)
        given = [model.decoder_top(model.quantizer_top.lookup(top[:, 0] + code)) for code in (0, 1)]
        one, other = (model._joined(part, features) for part in given)
        assert not torch.equal(one, other)

    def test_the_loss_is_squared_error_and_both_commitments(self) -> None:
        model = scramble(VQVAE2((1, 12, 8), halvings=1, commitment=0.5, **SMALL)).double()
        x = torch.rand(3, 1, 12, 8, dtype=torch.float64) * 2 - 1
        codes = model.encode(x)
        features = model.encoder_bottom(x)
        top = model.quantizer_top.lookup(codes["top"][:, 0])
        distances = [(model.to_top(model.encoder_top(features)) - top).square().mean()]
        joined = model.to_bottom(torch.cat((model.decoder_top(top), features), dim=1))
        distances.append((joined - model.quantizer_bottom.lookup(codes["bottom"][:, 0])).square().mean())
        torch.testing.assert_close(model.loss(x), F.mse_loss(model(x), x) + 0.5 * sum(distances))

    def test_bottom_codes_are_dropped_in_training_only(self) -> None:
        model = scramble(VQVAE2((1, 8, 8), halvings=1, bottom_dropout=0.999999, **SMALL)).double()
        x = torch.rand(3, 1, 8, 8, dtype=torch.float64) * 2 - 1
        top, bottom = model._quantised(x)
        alone = model._image(top.vectors, torch.zeros_like(bottom.vectors))
        torch.testing.assert_close(model.loss(x), F.mse_loss(model(x), x) + top.loss + bottom.loss)
        torch.testing.assert_close(model.train().loss(x), F.mse_loss(alone, x) + top.loss + bottom.loss)

    def test_gradients_reach_every_parameter(self) -> None:
        for codebook in ("ema", "gradient"):
            model = VQVAE2((1, 12, 8), halvings=1, codebook=codebook, **SMALL)
            model.loss(torch.rand(3, 1, 12, 8)).backward()
            assert all(p.grad is not None and bool(p.grad.any()) for p in model.parameters())

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"shape": (1, 12, 8)}, "multiples of 8, not 12x8"),
            ({"codes": 1}, "codes must be from 2"),
            ({"halvings": 0}, "halvings must be from 1"),
            ({"bottom_dropout": 1.0}, "bottom_dropout must be a number from 0"),
            ({"codebook": "moving"}, "codebook must be one of"),
        ],
    )
    def test_bad_arguments(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(PixelfastError, match=message):
            VQVAE2(**({"shape": (1, 16, 8)} | arguments))

    def test_bad_inputs(self) -> None:
        model = VQVAE2((1, 8, 8), halvings=1, **SMALL)
        for x in (torch.zeros(1, 2, 8, 8), torch.zeros(1, 1, 8, 8, dtype=torch.int64), torch.zeros(1, 1, 8, 6)):
            with pytest.raises(ShapeError):
                model(x)
        top, bottom = torch.zeros(1, 1, 2, 2, dtype=torch.int64), torch.zeros(1, 1, 4, 4, dtype=torch.int64)
        with pytest.raises(ShapeError, match="the bottom codes must be integers"):
            model.decode(top, top)
        with pytest.raises(ShapeError, match="the top codes must be integers"):
            model.decode(top.float(), bottom)


class TestSampling:
    @pytest.mark.parametrize("changes", [{}, {"bottom": {**PRIORS["bottom"], "heads": 2}}])
    def test_float64_cached_equals_naive(self, changes: dict[str, Any]) -> None:
        model = with_priors(**changes)
        sampler = pixelfast.compile(model, backend="reference", dtype=torch.float64)
        images = sampler.sample(3, seed=2, seeds={"bottom": 5})
        naive = pixelfast.naive_sample(model, 3, seed=2, seeds={"bottom": 5}, dtype=torch.float64)
        assert_same_integers(images, naive)
        drawn = sampler.draw(3, seed=2)
        assert_same_integers(sampler.decode(drawn), pixelfast.naive_sample(model, 3, seed=2, dtype=torch.float64))

    def test_one_image_per_seed_and_id(self) -> None:
        sampler = pixelfast.compile(with_priors((3, 8, 16)))
        images = sampler.sample(7, seed=9)
        assert images.shape == (7, 3, 8, 16) and images.dtype == torch.uint8
        assert len({image.numpy().tobytes() for image in images}) > 3
        for batch in (1, 2, 3, 16):
            assert torch.equal(sampler.sample(7, seed=9, batch_size=batch), images)
        order = [6, 2, 2, 0]
        assert torch.equal(sampler.sample(4, seed=9, sample_ids=order), images[order])
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(2)
            assert torch.equal(sampler.sample(7, seed=9), images)
        finally:
            torch.set_num_threads(threads)

    def test_seeds_vary_one_level_alone(self) -> None:
        sampler = pixelfast.compile(with_priors())
        base, other = (sampler.draw(4, seed=1, seeds={"top": top}) for top in (1, 3))
        assert not torch.equal(base["top"], other["top"])
        finer = sampler.draw(4, seed=1, seeds={"bottom": 3})
        assert torch.equal(base["top"], finer["top"]) and not torch.equal(base["bottom"], finer["bottom"])

    def test_stats_are_per_stage(self) -> None:
        sampler = pixelfast.compile(with_priors())
        sampler.sample(3)
        assert list(sampler.stats.stages) == ["top", "bottom"] and sampler.stats.decode_seconds > 0
        # Codes per map: each stage counts its own.
        codes = {name: one.seconds / one.us_per_pixel * 1e6 / 3 for name, one in sampler.stats.stages.items()}
        assert {name: round(number) for name, number in codes.items()} == {"top": 8, "bottom": 32}
        assert "then decoded to images (1, 16, 8)" in sampler.describe()

    def test_the_loss_is_bits_per_code(self) -> None:
        model = with_priors().double()
        x = torch.rand(4, 1, 16, 8, dtype=torch.float64) * 2 - 1
        codes = model.encode(x)
        nats = []
        for stage in model.stages:
            sampler = pixelfast.compile(stage.network, backend="reference", dtype=torch.float64)
            nats.append(float(-sampler.log_prob(codes[stage.name], stage.condition(codes, None)).mean()))
        assert model.loss(x).item() == pytest.approx(sum(nats) / math.log(2) / (8 + 32), rel=1e-6)
        bits = {name: one.item() for name, one in model.bits_per_code(codes).items()}
        assert bits["top"] == pytest.approx(nats[0] / math.log(2) / 8, rel=1e-6)
        assert bits["bottom"] == pytest.approx(nats[1] / math.log(2) / 32, rel=1e-6)

    def test_the_autoencoder_is_frozen(self) -> None:
        model = with_priors().train()
        before = {name: tensor.clone() for name, tensor in model.autoencoder.state_dict().items()}
        model.loss(torch.rand(4, 1, 16, 8)).backward()
        assert all(parameter.grad is None for parameter in model.autoencoder.parameters())
        assert all(p.grad is not None for p in [*model.top.parameters(), *model.bottom.parameters()])
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.autoencoder.state_dict().items())

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"top": 3}, "top must be arguments of its prior by name, not int"),
            ({"bottom": [1]}, "bottom must be arguments of its prior by name, not list"),
            ({"top": {"levels": 3}}, "top has 'levels'; its prior takes features, hidden"),
            ({"bottom": {"width": 3}}, "bottom has 'width'; its prior takes"),
            ({"top": {"features": 6, "heads": 2}}, "no multiple of 2 heads"),
        ],
    )
    def test_bad_arguments(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(PixelfastError, match=message):
            VQVAE2WithPriors((1, 16, 8), **(SMALL | {"halvings": 1} | changes))


@pytest.mark.parametrize("kind", ["autoencoder", "with_priors"])
def test_saved_and_loaded(tmp_path: Path, kind: str) -> None:
    model = with_priors(codebook="gradient") if kind == "with_priors" else VQVAE2((1, 16, 8), **SMALL)
    pixelfast.save(model, tmp_path / "model.safetensors")
    loaded = pixelfast.load(tmp_path / "model.safetensors")
    assert type(loaded) is type(model) and loaded.config == model.config and not loaded.training
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())


CODES = replace(
    TINY,
    name="two-maps",
    model="vq_vae_2",
    config={"shape": [1, 8, 8], **SMALL, "halvings": 1},
    micro_batch_size=1,
    log_every=1,
)
LEARNED = replace(TINY, name="two-priors", model="vq_vae_2_with_priors", config=PRIORS)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "blocks.npz")


class TestTraining:
    @pytest.fixture(autouse=True)
    def no_plots(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """They take longer than the runs."""
        monkeypatch.setattr(report, "can_plot", lambda: False)

    def test_both_in_turn(
        self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
    ) -> None:
        monkeypatch.chdir(tmp_path)
        recipe = replace(CODES, steps=40, learning_rate=1e-2, validate_every=20, sample_every=40, sample_images=3)
        result = train(recipe, data=data, out=tmp_path / "a", progress=False)
        errors = losses(tmp_path / "a", "squared_error")
        assert errors[-1] < 0.5 * errors[0] and (tmp_path / "a/samples/step-00000040.png").exists()

        recipe = replace(LEARNED, steps=40, learning_rate=1e-2)
        found = train(recipe, data=data, out=tmp_path / "b", autoencoder=result.path, progress=False)
        bits = losses(tmp_path / "b", "bits_per_code")
        assert found.unit == "bits/code" and bits[-1] < 0.8 * bits[0]
        model: Any = checkpoints.load(found.path)
        trained = checkpoints.load(result.path)
        assert all(torch.equal(model.autoencoder.state_dict()[k], t) for k, t in trained.state_dict().items())

        with np.load(data) as arrays:
            images = torch.from_numpy(arrays["images_test"])[:, None]
        figures = code_figures(model, images, batch_size=3)
        codes = model.encode(network_input(model, images))
        assert {name: one.codes_per_image for name, one in figures.maps.items()} == {"top": 4, "bottom": 16}
        assert {name: one.used for name, one in figures.maps.items()} == {
            name: len(one.unique()) for name, one in codes.items()
        }
        mean = sum(one.bits_per_code * one.codes_per_image for one in figures.maps.values()) / 20
        assert mean == pytest.approx(found.loss, rel=1e-5)

        capsys.readouterr()
        assert main(["eval", "b/model.safetensors", "--data", str(data)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split(":")[0] for line in lines[1:]] == ["top", "bottom", "top prior", "bottom prior"]
        assert main(["sample", "b/model.safetensors", "-n", "3", "--npz", "s.npz"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split(":")[0] for line in lines[-4:]] == ["3 images, seed 0", "  top", "  bottom", "  decoding"]
        assert np.array_equal(np.load("s.npz")["images"], pixelfast.compile(model).sample(3).numpy())

    def test_two_runs_are_the_same(self, data: Path, tmp_path: Path) -> None:
        for out in ("one", "other"):
            path = train(CODES, data=data, out=tmp_path / out, progress=False).path
            train(LEARNED, data=data, out=tmp_path / f"{out}-priors", autoencoder=path, progress=False)
        assert differences(tmp_path / "one", tmp_path / "other") == []
        assert differences(tmp_path / "one-priors", tmp_path / "other-priors") == []

    def test_another_autoencoder_is_refused(self, data: Path, tmp_path: Path) -> None:
        pixelfast.save(pixelfast.models.VQVAE((1, 8, 8), **SMALL), tmp_path / "one-map")
        message = "holds a vq_vae; vq_vae_2_with_priors needs the codes of a vq_vae_2"
        with pytest.raises(PixelfastError, match=message):
            train(LEARNED, data=data, out=tmp_path / "run", autoencoder=tmp_path / "one-map", progress=False)

    @pytest.mark.parametrize("name", [name for name in training.RECIPES if name.startswith("vqvae2")])
    def test_recipes_make_models(self, name: str) -> None:
        recipe = training.RECIPES[name]
        autoencoder = training.RECIPES[name.removesuffix("-priors")]
        model: Any = pixelfast.models.registry.create(recipe.model, **{**autoencoder.config, **recipe.config})
        assert model.shape == tuple(autoencoder.config["shape"])


def test_the_bottom_prior_is_causal_given_the_top() -> None:
    model = with_priors().bottom.double()
    codes = torch.zeros(1, 1, 8, 4, dtype=torch.int64)
    top = torch.zeros(1, 1, 4, 2, dtype=torch.int64)
    base: Tensor = model(codes, top)
    for number in range(32):
        changed = codes.clone()
        changed.flatten()[number] = 4
        moved = (model(changed, top) != base).any(1).flatten()
        assert not moved[: number + 1].any()
