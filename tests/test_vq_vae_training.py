"""Training a VQ-VAE and its prior: codebooks between steps, two stages, and the commands of both."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from training_runs import CODES, TINY, differences, losses, write_data

import pixelfast
from pixelfast import checkpoints, training
from pixelfast.cli.main import main
from pixelfast.errors import CheckpointError, PixelfastError
from pixelfast.models import VQVAE, VQVAEWithPrior
from pixelfast.models.vector_quantizer import Seen
from pixelfast.training import report, train
from pixelfast.training.code_figures import code_figures
from pixelfast.training.codebooks import update_codebooks
from pixelfast.training.distribution import Processes
from pixelfast.training.evaluate import mean_loss, network_input
from pixelfast.training.run import Run
from pixelfast.training.snapshot import newest_snapshot

PRIOR = replace(
    TINY,
    name="prior",
    model="vq_vae_with_prior",
    config={"prior_hidden": 4, "prior_dilations": [1], "classes": 3},
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "blocks.npz")


@pytest.fixture(scope="module")
def autoencoder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained VQ-VAE."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "can_plot", lambda: False)
        return train(CODES, data=data, out=tmp_path_factory.mktemp("autoencoder") / "run", progress=False).path


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than the runs."""
    monkeypatch.setattr(report, "can_plot", lambda: False)


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Train, and die before a step."""

    class Killed(Exception):
        pass

    def train_until(step: int, recipe: training.Recipe | None, **arguments: Any) -> None:
        advance = Run.advance

        def advance_or_die(run: Run) -> None:
            if run.step == step:
                raise Killed
            advance(run)

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Run, "advance", advance_or_die)
            train(recipe, progress=False, **arguments)

    return train_until


class Shared(Processes):
    """A process whose sums are what two processes have, given what the other one sums."""

    def __init__(self, other: list[torch.Tensor]) -> None:
        super().__init__(0, 2, torch.device("cpu"), grouped=False)
        object.__setattr__(self, "_other", other)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        return values + self._other.pop(0)


class Alone(Processes):
    """A process that only notes what it would sum."""

    def __init__(self) -> None:
        super().__init__(1, 2, torch.device("cpu"), grouped=False)
        object.__setattr__(self, "noted", [])

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        self.noted.append(values)
        return values


def codebook_after(parts: list[list[int]]) -> torch.Tensor:
    """The codebook after a step of four pieces, run by one process or two."""
    torch.manual_seed(3)
    model = VQVAE((1, 8, 8), hidden=4, codes=7, code_width=3).double().train()
    images = torch.rand(4, 2, 1, 8, 8, dtype=torch.float64)
    noted: list[torch.Tensor] = []
    start = model.state_dict()
    for rank, mine in reversed(list(enumerate(parts))):
        copy = VQVAE((1, 8, 8), hidden=4, codes=7, code_width=3).double().train()
        copy.load_state_dict(start)
        for piece in mine:
            torch.manual_seed(100 + piece)
            copy(images[piece])
        processes: Any = Alone() if rank else Shared([*noted]) if noted else Processes(0, 1, torch.device("cpu"), False)
        update_codebooks(copy, mine, 4, processes)
        noted = processes.noted if rank else noted
    return copy.quantizer.vectors


def test_who_runs_a_piece_does_not_matter_to_the_codebook() -> None:
    alone = codebook_after([[0, 1, 2, 3]])
    torch.testing.assert_close(codebook_after([[0, 2], [1, 3]]), alone, rtol=1e-12, atol=1e-12)
    with pytest.raises(AssertionError):  # other pieces give another one
        torch.testing.assert_close(codebook_after([[0, 2], [1, 2]]), alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
def test_resumed_equals_uninterrupted(data: Path, tmp_path: Path, killed: Any, codebook: str) -> None:
    recipe = replace(CODES, config={**CODES.config, "codebook": codebook})
    whole = train(recipe, data=data, out=tmp_path / "whole", progress=False)
    out = tmp_path / "killed"
    killed(5, recipe, data=data, out=out)
    killed(8, recipe, data=data, out=out, resume=True)
    resumed = train(None, data=data, out=out, resume=True, progress=False)
    assert resumed.loss == whole.loss and resumed.unit == "squared error"
    assert differences(out, tmp_path / "whole") == []


def test_the_log_is_of_squared_errors_and_they_fall(data: Path, tmp_path: Path) -> None:
    recipe = replace(CODES, steps=60, learning_rate=1e-2, validate_every=30, sample_every=60, sample_images=3)
    result = train(recipe, data=data, out=tmp_path, progress=False)
    errors = losses(tmp_path, "squared_error")
    assert errors[-1] < 0.5 * errors[0]
    assert losses(tmp_path, "test_squared_error") == [result.loss]
    assert len(losses(tmp_path, "validation_squared_error")) == 2
    with Image.open(tmp_path / "samples/step-00000060.png") as picture:
        shown = np.asarray(picture)[1:9, 1:18]
    with np.load(data) as arrays:
        original = arrays["images_test"][0]
    assert (shown[:, :8] == original).all()
    model = checkpoints.load(result.path)
    again = model.decode(model.encode(network_input(model, torch.from_numpy(original)[None, None])))
    assert (shown[:, 9:] == again.numpy()).all()
    codebook = newest_snapshot(tmp_path, lambda text: pytest.fail(text))[1].tensors["model"]["quantizer.vectors"]
    assert torch.equal(checkpoints.load(result.path).quantizer.vectors, codebook)


def test_the_prior_learns_the_codes_of_a_frozen_autoencoder(data: Path, tmp_path: Path, autoencoder: Path) -> None:
    recipe = replace(PRIOR, steps=40, learning_rate=3e-2)
    result = train(recipe, data=data, out=tmp_path / "run", autoencoder=autoencoder, progress=False)
    model = checkpoints.load(result.path)
    trained = checkpoints.load(autoencoder)
    assert isinstance(model, VQVAEWithPrior) and model.config["classes"] == 3
    assert all(torch.equal(model.autoencoder.state_dict()[k], t) for k, t in trained.state_dict().items())
    bits = losses(tmp_path / "run", "bits_per_code")
    assert bits[-1] < 0.8 * bits[0]
    assert (result.unit, losses(tmp_path / "run", "test_bits_per_code")) == ("bits/code", [result.loss])
    assert pixelfast.compile(model).sample(2, condition=torch.tensor([0, 2])).shape == (2, 1, 8, 8)
    # A model with a prior has an autoencoder too: another prior for the same codes.
    again = train(replace(recipe, steps=2), data=data, out=tmp_path / "again", autoencoder=result.path, progress=False)
    other = checkpoints.load(again.path)
    assert torch.equal(other.autoencoder.quantizer.vectors, trained.quantizer.vectors)


def test_a_resumed_prior_has_its_autoencoder(data: Path, tmp_path: Path, autoencoder: Path, killed: Any) -> None:
    train(PRIOR, data=data, out=tmp_path / "whole", autoencoder=autoencoder, progress=False)
    out = tmp_path / "killed"
    killed(4, PRIOR, data=data, out=out, autoencoder=autoencoder)
    killed(7, PRIOR, data=data, out=out, autoencoder=autoencoder, resume=True)
    train(None, data=data, out=out, resume=True, progress=False)
    assert differences(out, tmp_path / "whole") == []


def test_figures_of_codes(data: Path, autoencoder: Path, tmp_path: Path) -> None:
    with np.load(data) as arrays:
        images, labels = torch.from_numpy(arrays["images_test"])[:, None], torch.from_numpy(arrays["labels_test"])
    model = train(PRIOR, data=data, out=tmp_path / "run", autoencoder=autoencoder, progress=False).path
    prior: Any = checkpoints.load(model)
    found = code_figures(prior, images, labels.long(), batch_size=3)
    whole = code_figures(prior, images, labels.long())
    codes = prior.encode(network_input(prior, images))
    error = (prior.decode(codes) - images.long()).double() / 255
    assert found.squared_error == pytest.approx(float(error.square().mean()), rel=1e-6)
    (one,) = found.maps.values()
    assert (one.perplexity, one.used, one.codes_per_image) == (whole.maps["codes"].perplexity, len(codes.unique()), 4)
    assert 1 <= one.perplexity <= one.used
    assert one.bits_per_code == pytest.approx(mean_loss(prior, images, labels.long()).item(), rel=1e-6)
    assert code_figures(prior.autoencoder, images).maps["codes"].bits_per_code is None


@pytest.mark.parametrize(
    ("recipe", "given", "message"),
    [
        (PRIOR, None, "recipe prior learns the codes of a trained VQ-VAE"),
        (CODES, "autoencoder", "recipe codes trains no prior: leave the autoencoder"),
        (PRIOR, "other", "holds a gated_pixelcnn; vq_vae_with_prior needs the codes of a vq_vae"),
        (
            replace(PRIOR, config={**PRIOR.config, "codes": 9}),
            "autoencoder",
            "config.codes is 9 and the autoencoder's 5",
        ),
        (PRIOR, "missing", "missing"),
    ],
)
def test_what_the_stages_refuse(
    data: Path, tmp_path: Path, autoencoder: Path, recipe: training.Recipe, given: str | None, message: str
) -> None:
    pixelfast.save(pixelfast.models.GatedPixelCNN((1, 8, 8), hidden=2, dilations=(1,)), tmp_path / "other")
    path = {"autoencoder": autoencoder, None: None}.get(given, tmp_path / str(given))
    with pytest.raises(PixelfastError, match=message):
        train(recipe, data=data, out=tmp_path / "run", autoencoder=path, progress=False)
    assert not (tmp_path / "run").exists()


def test_another_autoencoder_is_another_run(data: Path, tmp_path: Path, autoencoder: Path, killed: Any) -> None:
    killed(4, PRIOR, data=data, out=tmp_path / "run", autoencoder=autoencoder)
    pixelfast.save(VQVAE(**{**CODES.config, "codes": 9}), tmp_path / "nine")
    with pytest.raises(CheckpointError, match="another recipe"):
        train(PRIOR, data=data, out=tmp_path / "run", autoencoder=tmp_path / "nine", resume=True, progress=False)


def test_an_autoencoder_of_other_weights_is_refused(
    data: Path, tmp_path: Path, autoencoder: Path, killed: Any
) -> None:
    """It would have been left out without a word: the run goes on with the one it has."""
    killed(4, PRIOR, data=data, out=tmp_path / "run", autoencoder=autoencoder)
    torch.manual_seed(5)
    pixelfast.save(VQVAE(**CODES.config), tmp_path / "other")
    with pytest.raises(CheckpointError, match="other is not the autoencoder that this run was started with") as error:
        train(PRIOR, data=data, out=tmp_path / "run", autoencoder=tmp_path / "other", resume=True, progress=False)
    assert "\n" not in str(error.value)


class TestCommands:
    @pytest.fixture
    def run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setitem(training.RECIPES, "codes", CODES)
        monkeypatch.setitem(training.RECIPES, "prior", PRIOR)

        def run(*words: str) -> tuple[int, str, str]:
            status = main([*words])
            return status, *capsys.readouterr()

        return run

    def test_train_both_then_sample_and_eval(self, run: Callable, data: Path, tmp_path: Path) -> None:
        status, out, err = run("train", "codes", "--data", str(data), "--out", "a")
        assert (status, err) == (0, "")
        assert "squared error (of levels scaled to [-1, 1]; " in out and "on the test split" in out
        words = ("train", "prior", "--data", str(data), "--out", "b")
        status, out, err = run(*words)
        assert status == 1 and "autoencoder" in err and not (tmp_path / "b").exists()
        status, out, err = run(*words, "--autoencoder", "a/model.safetensors")
        assert (status, err) == (0, "") and "bits/code on the test split" in out
        assert json.loads((tmp_path / "b/log.jsonl").read_text().splitlines()[-1])["test_bits_per_code"] > 0

        status, out, err = run("sample", "b/model.safetensors", "-n", "3", "--labels", "0,1,2", "--npz", "s.npz")
        assert (status, err) == (0, "")
        assert [line.split(":")[0] for line in out.splitlines()[-3:]] == ["3 images, seed 0", "  codes", "  decoding"]
        sampler = pixelfast.compile(pixelfast.load("b/model.safetensors"))
        expected = sampler.sample(3, condition=torch.arange(3))
        assert np.array_equal(np.load("s.npz")["images"], expected.numpy())
        assert run("sample", "b/model.safetensors", "-n", "3", "--label", "1")[0] == 0
        assert Path("samples.png").exists()

        status, out, err = run("eval", "a/model.safetensors", "--data", str(data), "--limit", "5")
        assert (status, err) == (0, "")
        lines = out.splitlines()
        assert lines[0].startswith("squared error 0.") and lines[0].endswith("over 5 images of blocks.npz's test split")
        assert len(lines) == 2 and lines[1].startswith("codes: ") and "of 5 used, perplexity" in lines[1]
        status, out, err = run("eval", "b/model.safetensors", "--data", str(data))
        assert (status, err) == (0, "")
        assert "bits for the 4 codes of an image" in out.splitlines()[2]
        assert f"({4 * math.log2(5):.1f} without a prior)" in out
        status, out, err = run("eval", "b/model.safetensors", "--data", str(data), "--limit", "5")
        assert (status, err) == (0, "") and "over 5 images" in out  # as many labels as images

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("complete", "{}", "--data", "{data}"), "complete takes a model of pixels; this is a vq_vae"),
            (("bench", "{}"), "bench takes a model of pixels; this is a vq_vae"),
            (("sample", "{}"), "sample takes"),
            (("eval", "{}", "--data", "{data}", "--dtype", "int8"), "--dtype compares bits per dimension"),
        ],
    )
    def test_refusals(self, run: Callable, data: Path, autoencoder: Path, words: tuple[str, ...], message: str) -> None:
        status, _, err = run(*(word.replace("{data}", str(data)).replace("{}", str(autoencoder)) for word in words))
        assert status == 1 and message in err and len(err.splitlines()) == 1


def test_seen_is_counted_once_per_step(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation and the frozen autoencoder of a prior leave no traces in a codebook."""
    counted: list[float] = []
    update = pixelfast.models.VectorQuantizer.update
    monkeypatch.setattr(
        pixelfast.models.VectorQuantizer,
        "update",
        lambda layer, seen: (counted.append(float(seen.counts.sum())), update(layer, Seen(*seen)))[1],
    )
    train(replace(CODES, validate_every=2), data=data, out=tmp_path / "run", progress=False)
    assert counted == [4 * 4] * 9  # a batch of four images with 2x2 codes each, nine steps
