"""An autoencoder and its priors, from files of their own, as one model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from vq_vae_networks import (
    ritheshkumar95_prior_state,
    ritheshkumar95_vq_vae_state,
    rosinality_prior_state,
    rosinality_vq_vae_state,
)

import pixelfast
from pixelfast import rng
from pixelfast.cli.main import main
from pixelfast.errors import PixelfastError
from pixelfast.models import VQVAE, VQVAE2, ConditionalPixelSNAIL, GatedPixelCNN, VQVAE2WithPriors, VQVAEWithPrior
from pixelfast.models.joining import with_priors

SMALL: dict[str, Any] = {"hidden": 6, "residual_blocks": 1, "residual_hidden": 3, "codes": 7, "code_width": 5}
SNAIL: dict[str, Any] = {"features": 4, "hidden": 2, "parts": 1, "blocks": 1, "kernel_size": 3}


def parts() -> tuple[VQVAE2, ConditionalPixelSNAIL, ConditionalPixelSNAIL]:
    torch.manual_seed(0)
    top = ConditionalPixelSNAIL((1, 2, 4), 7, **SNAIL, heads=1)
    bottom = ConditionalPixelSNAIL(
        (1, 4, 8), 7, **SNAIL, heads=0, condition_shape=(1, 2, 4), condition_levels=7, condition_hidden=2
    )
    return VQVAE2((1, 8, 16), halvings=1, **SMALL).eval(), top.eval(), bottom.eval()


def gated(**changes: Any) -> GatedPixelCNN:
    torch.manual_seed(1)
    arguments = {"levels": 7, "hidden": 4, "dilations": (1, 2), "input": "levels", "classes": 3}
    return GatedPixelCNN((1, 2, 4), **(arguments | changes)).eval()


def test_two_maps() -> None:
    autoencoder, top, bottom = parts()
    model = with_priors(autoencoder, [top, bottom])
    assert isinstance(model, VQVAE2WithPriors) and not model.training
    drawn = pixelfast.compile(model).draw(3, seed=1)
    alone = pixelfast.compile(top, stream=rng.STREAMS["top"]).sample(3, seed=1)
    assert torch.equal(drawn["top"], alone)
    given = pixelfast.compile(bottom, stream=rng.STREAMS["bottom"])
    assert torch.equal(drawn["bottom"], given.sample(3, seed=1, condition=alone.long()))
    assert torch.equal(model.decode(**drawn), autoencoder.decode(**drawn))


@pytest.mark.parametrize("form", ["plain", "gated_stem"])
def test_one_map(form: str) -> None:
    prior, autoencoder = gated(form=form), VQVAE((1, 8, 16), **SMALL).double()
    model = with_priors(autoencoder, [prior])
    assert isinstance(model, VQVAEWithPrior) and {p.dtype for p in model.parameters()} == {torch.float64}
    codes, labels = torch.randint(7, (2, 1, 2, 4)), torch.tensor([0, 2])
    assert torch.equal(model(codes, labels), prior.double()(codes, labels))


@pytest.mark.parametrize(
    ("autoencoder", "priors", "message"),
    [
        (lambda: parts()[0], lambda: parts()[1:2], "this is a VQVAE2 with ConditionalPixelSNAIL"),
        (lambda: parts()[0], lambda: parts()[:0:-1], "the prior of top has shape"),
        (gated, lambda: [gated()], "this is a GatedPixelCNN with GatedPixelCNN"),
        (lambda: VQVAE((1, 8, 16), **SMALL), list, "this is a VQVAE with none"),
        (lambda: VQVAE((1, 8, 8), **SMALL), lambda: [gated()], "the prior of codes has shape"),
        (lambda: VQVAE((1, 8, 16), **SMALL), lambda: [gated(levels=6)], "codes has levels 6, the autoencoder's codes"),
        (lambda: VQVAE((1, 8, 16), **SMALL), lambda: [gated(input="signed")], "codes has input signed"),
    ],
)
def test_what_does_not_belong_together(autoencoder: Any, priors: Any, message: str) -> None:
    with pytest.raises(PixelfastError, match=message):
        with_priors(autoencoder(), list(priors()))


class TestFiles:
    def test_a_whole_pipeline_of_the_layout_rosinality(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
    ) -> None:
        monkeypatch.chdir(tmp_path)
        sizes = {"codes": 5, "hidden": 4, "kernel": 3, "parts": 1, "blocks": 1}
        files: dict[str, dict[str, torch.Tensor]] = {
            "vqvae.pt": rosinality_vq_vae_state(1, 4, 1, 2, 3, 5),
            "top.pt": rosinality_prior_state((32, 32), channel=16, **sizes),
            "bottom.pt": rosinality_prior_state((64, 64), channel=4, attention=False, condition=(3, 1), **sizes),
        }
        for name, state in files.items():
            torch.save({key: value.float() for key, value in state.items()}, name)
        assert main(["convert", "vqvae.pt", "all.safetensors", "--prior", "top.pt", "--prior", "bottom.pt"]) == 0
        assert "vq_vae_2_with_priors" in capsys.readouterr().out
        model: Any = pixelfast.load("all.safetensors")
        assert model.shape == (1, 256, 256)
        assert [tuple(stage.network.shape) for stage in model.stages] == [(1, 32, 32), (1, 64, 64)]
        codes = model.bottom(torch.zeros(1, 1, 64, 64, dtype=torch.int64), torch.ones(1, 1, 32, 32, dtype=torch.int64))
        assert codes.shape == (1, 5, 1, 64, 64)

    def test_a_whole_pipeline_of_the_layout_ritheshkumar95(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
    ) -> None:
        monkeypatch.chdir(tmp_path)
        torch.save(ritheshkumar95_vq_vae_state(3, 5, 9), "vqvae.pt")
        torch.save(ritheshkumar95_prior_state(9, 4, 3, 10), "prior.pt")
        assert main(["convert", "vqvae.pt", "all.safetensors", "--prior", "prior.pt"]) == 0
        words = ["sample", "all.safetensors", "-n", "2", "--labels", "3,7", "--npz", "s.npz"]
        assert main(words) == 0, capsys.readouterr().err
        assert np.load("s.npz")["images"].shape == (2, 3, 32, 32)

    def test_a_prior_of_something_else(self, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
        pixelfast.save(VQVAE((1, 8, 16), **SMALL), tmp_path / "vqvae")
        pixelfast.save(gated(levels=6), tmp_path / "prior")
        words = [
            "convert",
            str(tmp_path / "vqvae"),
            str(tmp_path / "all.safetensors"),
            "--prior",
            str(tmp_path / "prior"),
        ]
        assert main(words) == 1 and "levels 6" in capsys.readouterr().err
        assert not (tmp_path / "all.safetensors").exists()


def test_weights_are_copies() -> None:
    autoencoder, top, bottom = parts()
    model = with_priors(autoencoder, [top, bottom])
    with torch.no_grad():
        top.head.bias.fill_(9)
    assert model.top.head.bias.max().item() < 9
