"""Training models with latents, and the commands that take them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_runs import TINY, differences, write_data

import pixelfast
from pixelfast import training
from pixelfast.cli.main import main
from pixelfast.models import VAE
from pixelfast.training import report, train
from pixelfast.training.bound_figures import bound_figures
from pixelfast.training.run import Run

LATENTS = replace(
    TINY,
    name="latents",
    model="pixel_vae",
    config={"shape": [1, 8, 8], "hidden": 4, "latents": 2, "features": 3, "pixel_hidden": 4},
    binarise="stochastic",
    clip_norm=None,
    sample_every=8,
    sample_images=3,
)
PLAIN = replace(
    LATENTS, name="plain", model="vae", config={"shape": [1, 8, 8], "hidden": 4, "latents": 2, "kl_weight": 0.0}
)
LEVELS = replace(
    LATENTS,
    name="two-levels",
    model="hierarchical_pixel_vae",
    config={"shape": [1, 8, 8], "hidden": 4, "latents": [2, 3], "features": 3, "pixel_hidden": 4},
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "blocks.npz")


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A trained model of two levels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "can_plot", lambda: False)
        return str(train(LEVELS, data=data, out=tmp_path_factory.mktemp("model") / "run", progress=False).path)


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than the runs."""
    monkeypatch.setattr(report, "can_plot", lambda: False)


@pytest.mark.parametrize("recipe", [LATENTS, LEVELS], ids=lambda r: r.name)
def test_a_resumed_run_ends_with_the_same_bits(
    recipe: training.Recipe, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = train(recipe, data=data, out=tmp_path / "whole", progress=False)
    assert result.unit == "nats" and math.isfinite(result.loss)

    class Killed(Exception):
        pass

    advance = Run.advance

    def advance_or_die(run: Run) -> None:
        if run.step == 5:
            raise Killed
        advance(run)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Run, "advance", advance_or_die)
        train(recipe, data=data, out=tmp_path / "resumed", progress=False)
    train(None, data=data, out=tmp_path / "resumed", resume=True, progress=False)
    assert differences(tmp_path / "whole", tmp_path / "resumed") == []
    assert (tmp_path / "whole/samples").exists()


def test_training_lowers_the_bound(data: Path, tmp_path: Path) -> None:
    recipe = replace(LATENTS, steps=60, learning_rate=0.02, validate_every=60, binarise="threshold", sample_every=0)
    torch.manual_seed(0)
    start = VAE((1, 8, 8), hidden=4, latents=2).eval()
    images = torch.zeros(5, 1, 8, 8, dtype=torch.int64)
    images[:, :, 2:6, 2:5] = 1
    with torch.no_grad():
        assert float(start.loss(images)) > 30  # near 64 ln 2
    assert train(recipe, data=data, out=tmp_path / "run", progress=False).loss < 10


def test_figures_count_every_image_the_same() -> None:
    torch.manual_seed(0)
    model = VAE((1, 8, 8), hidden=4, latents=2).eval()
    images = torch.randint(2, (7, 1, 8, 8))
    found = bound_figures(model, images, batch_size=7)
    bound = model.bound(images)
    assert found.total == pytest.approx(bound.total.mean().item(), rel=1e-6)
    assert found.kl["latents"] == pytest.approx(bound.kl["latents"].mean().item(), rel=1e-6)
    assert not found.plain
    seen: list[int] = []
    bound_figures(model, images, batch_size=3, update=seen.append)
    assert seen == [3, 6, 7]


class TestCommands:
    @pytest.fixture
    def run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable:
        monkeypatch.chdir(tmp_path)
        for recipe in (LATENTS, PLAIN, LEVELS):
            monkeypatch.setitem(training.RECIPES, recipe.name, recipe)

        def run(*words: str) -> tuple[int, str, str]:
            status = main([*words])
            return status, *capsys.readouterr()

        return run

    def test_eval_gives_the_bound_and_its_parts(self, run: Callable, data: Path, model: str) -> None:
        words = ("eval", model, "--data", str(data), "--binarise", "stochastic")
        status, out, err = run(*words)
        assert (status, err) == (0, "")
        first, second = out.splitlines()
        assert first.startswith("ELBO -") and first.endswith("over 7 images of blocks.npz's test split")
        elbo = float(first.split()[1])
        words_of_parts = second.replace(";", "").replace(",", "").split()
        parts = [float(word) for word in words_of_parts if word.replace(".", "").isdigit()]
        assert "KL of latents_2" in second and "KL of latents_1" in second and len(parts) == 3
        assert -elbo == pytest.approx(sum(parts), abs=0.02)
        assert run(*words)[1] == out  # binarised and drawn in the same way again

    def test_eval_of_a_plain_autoencoder_claims_no_bound(self, run: Callable, data: Path) -> None:
        assert run("train", "plain", "--data", str(data), "--out", "p")[0] == 0
        status, out, err = run("eval", "p/model.safetensors", "--data", str(data), "--binarise", "threshold")
        assert (status, err) == (0, "") and "ELBO" in out and "no ELBO" in out and "KL" not in out

    def test_sample_with_seeds_of_stages(self, run: Callable, model: str) -> None:
        status, out, err = run("sample", model, "-n", "3", "--seed", "4", "--seeds", "latents_2=7", "--npz", "s.npz")
        assert (status, err) == (0, "") and "latents_1" in out
        expected = pixelfast.compile(pixelfast.load(model)).sample(3, seed=4, seeds={"latents_2": 7})
        assert np.array_equal(np.load("s.npz")["images"], expected.numpy())

    def test_complete(self, run: Callable, data: Path, model: str) -> None:
        words = ("complete", model, "--data", str(data), "--binarise", "threshold", "-n", "2", "--npz", "c.npz")
        status, _, err = run(*words)
        assert (status, err) == (0, "")
        images = np.load("c.npz")["images"]
        given = np.zeros((4, 8), dtype=np.uint8)
        given[2:, 2:5] = 1
        assert images.shape == (2, 1, 8, 8) and (images[:, 0, :4] == given).all()
        assert run(*words, "--seeds", "pixels=3")[0] == 0
        assert (np.load("c.npz")["images"] != images).any()

    def test_binarised_data_of_models_of_pixels(self, run: Callable, data: Path, tmp_path: Path) -> None:
        torch.manual_seed(0)
        made = pixelfast.models.GatedPixelCNN((1, 8, 8), levels=2, hidden=4, dilations=(1,))
        pixelfast.save(made, tmp_path / "two.safetensors")
        status, _, err = run("eval", "two.safetensors", "--data", str(data))
        assert status == 1 and "give --binarise threshold or stochastic" in err
        status, out, err = run("eval", "two.safetensors", "--data", str(data), "--binarise", "threshold")
        assert (status, err) == (0, "")
        bits, nats = float(out.split()[0]), float(out.split("(")[1].split()[0])
        assert nats == pytest.approx(bits * math.log(2) * 64, abs=0.01)

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("sample", "{}", "--seeds", "top=1"), "the stages of this model are latents_2, latents_1, pixels"),
            (("eval", "{}", "--data", "{data}"), "give --binarise threshold or stochastic"),
            (
                ("eval", "{}", "--data", "{data}", "--binarise", "threshold", "--dtype", "int8"),
                "a model with latents has a bound",
            ),
            (("models", "{}", "--receptive-field", "f.png"), "this model samples in stages"),
            (("sample", "gated-pixelcnn-mnist", "--seeds", "pixels=1"), "--seeds is for models that sample in stages"),
        ],
    )
    def test_refusals(self, run: Callable, data: Path, model: str, words: tuple[str, ...], message: str) -> None:
        status, _, err = run(*(word.replace("{data}", str(data)).replace("{}", model) for word in words))
        assert status == 1 and message in err and len(err.splitlines()) == 1

    @pytest.mark.parametrize("text", ["3", "top", "=3", "top=", "top=1,top=2", "top=-1"])
    def test_seeds_that_are_none(self, run: Callable, model: str, text: str) -> None:
        with pytest.raises(SystemExit):
            run("sample", model, "--seeds", text)
