"""What latents keep of images, through the engine and on the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from latent_models import CASES, small, some_images
from PIL import Image
from training_runs import write_data

import pixelfast
from pixelfast.cli.main import main
from pixelfast.errors import PixelfastError
from pixelfast.models import VAE, GatedPixelCNN, VQVAEWithPrior
from pixelfast.models.pixel_likelihood import signed


@pytest.mark.parametrize("name", CASES)
def test_every_pixel_is_the_likeliest_given_the_latents_and_those_before(name: str) -> None:
    """Asked of the network itself, which is given the reconstruction and the means of the original's latents."""
    model = small(name).float().eval()
    images = some_images(model, 5)
    again = pixelfast.compile(model).reconstruct(images)
    assert again.shape == images.shape and not torch.equal(again.long(), images.long())
    with torch.no_grad():
        means = model.posterior(images).chunk(2, dim=1)[0]
        params = model.pixels(signed(again.long(), model.levels, next(model.parameters())), means)
        noise = torch.full((*again.shape, model.likelihood.draws(again.shape[1])), 0.5)
        likeliest = model.likelihood.sample(params, noise, temperature=0.0)
    assert torch.equal(likeliest.long(), again.long())


def test_one_image_is_reconstructed_alike_in_any_batch() -> None:
    model = small(next(iter(CASES))).float().eval()
    sampler = pixelfast.compile(model)
    images = some_images(model, 4)
    together = sampler.reconstruct(images)
    assert torch.equal(together[2:3], sampler.reconstruct(images[2:3]))


def test_no_posterior() -> None:
    model = VQVAEWithPrior((1, 8, 8), hidden=4, codes=5, code_width=2, prior_hidden=4, prior_dilations=(1,))
    with pytest.raises(PixelfastError, match="no posterior"):
        pixelfast.compile(model).reconstruct(torch.zeros(1, 1, 8, 8, dtype=torch.long))


def test_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    pixelfast.save(VAE((1, 8, 8), hidden=4, latents=2), "vae.safetensors")
    pixelfast.save(GatedPixelCNN((1, 8, 8), hidden=2, dilations=(1,)), "gated.safetensors")
    write_data(tmp_path / "data.npz")
    words = ["reconstruct", "vae.safetensors", "data.npz", "-n", "4", "-o", "a.png"]
    assert main(words) == 1
    assert "give --binarise" in capsys.readouterr().err and not Path("a.png").exists()
    assert main([*words, "--binarise", "threshold"]) == 0
    with np.load("data.npz") as arrays:
        images = (torch.from_numpy(arrays["images_test"][:4])[:, None] > 127).long()
    again = pixelfast.compile(pixelfast.load("vae.safetensors")).reconstruct(images).long()
    with Image.open("a.png") as picture:
        pixels = np.asarray(picture)
    cell = pixels[1:9, 10:18]  # to the right of the first original
    assert (cell == 255 * again[0, 0].numpy()).all()
    assert f"squared error {float((again - images).square().double().mean()):.5f}" in capsys.readouterr().out
