"""What latents keep of images: by the model itself, through the engine, and on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from latent_models import CASES, randomised, small, some_images
from PIL import Image
from training_runs import write_data

import pixelfast
from pixelfast.cli.main import main
from pixelfast.errors import PixelfastError, ShapeError
from pixelfast.models import VAE, GatedPixelCNN, HierarchicalPixelVAE, PixelVAE, VQVAEWithPrior
from pixelfast.models.pixel_likelihood import signed


def means_of(model: Any, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.posterior(images).chunk(2, dim=1)[0]


@pytest.mark.parametrize("name", CASES)
def test_without_temperature_every_pixel_is_the_likeliest(name: str) -> None:
    """Asked of the network itself, which is given the reconstruction and the means of the original's latents."""
    model = small(name).float().eval()
    images = some_images(model, 5)
    again = pixelfast.compile(model).reconstruct(images, temperature=0.0)
    assert again.shape == images.shape and not torch.equal(again.long(), images.long())
    with torch.no_grad():
        params = model.pixels(signed(again.long(), model.levels, next(model.parameters())), means_of(model, images))
        noise = torch.full((*again.shape, model.likelihood.draws(again.shape[1])), 0.5, dtype=torch.float64)
        likeliest = model.likelihood.sample(params, noise, temperature=0.0)
    assert torch.equal(likeliest.long(), again.long())


@pytest.mark.parametrize("name", ["pixel vae", "pixel vae, bias", "two levels", "three levels"])
def test_pixels_are_drawn_at_the_seed_given_the_means(name: str) -> None:
    model = small(name).float().eval()
    images = some_images(model, 3)
    sampler = pixelfast.compile(model)
    again = sampler.reconstruct(images, seed=4)
    direct = sampler.samplers["pixels"].sample(3, seed=4, condition=means_of(model.double(), images).float())
    assert torch.equal(again, direct)
    assert not torch.equal(again, sampler.reconstruct(images, seed=5))
    assert sampler.stats is not None and sampler.stats.images == 3 and list(sampler.stats.stages) == ["pixels"]


@pytest.mark.parametrize("name", ["vae", "vae, mlp, colour"])
def test_a_vae_gives_the_likeliest_image(name: str) -> None:
    model = small(name).double()
    images = some_images(model, 4)
    again = model.reconstruct(images)
    assert again.dtype == torch.int64 and again.shape == images.shape
    assert torch.equal(again, pixelfast.compile(model.float()).reconstruct(images, temperature=0.0).long())


def test_no_other_level_of_a_vae_is_likelier() -> None:
    """Levels are independent of each other in a model of one channel."""
    model = randomised(VAE((1, 4, 4), levels=2, hidden=4, latents=3), scale=1.0).double()
    images = some_images(model, 6)
    again = model.reconstruct(images)
    with torch.no_grad():
        params = model(images)
        chosen, other = (model.likelihood.log_prob(params, levels) for levels in (again, 1 - again))
    assert (chosen >= other).all() and 0 < int(again.sum()) < again.numel()


def test_one_image_is_reconstructed_alike_in_any_batch() -> None:
    model = small("pixel vae").float().eval()
    sampler = pixelfast.compile(model)
    images = some_images(model, 4)
    together = sampler.reconstruct(images, seed=2)
    assert torch.equal(together[:2], sampler.reconstruct(images[:2], seed=2))
    assert torch.equal(together, sampler.reconstruct(images, seed=2, batch_size=3))
    assert sampler.reconstruct(images[:0]).shape == (0, *model.shape)


@pytest.mark.parametrize(
    ("images", "text"),
    [(torch.rand(1, 1, 4, 8), "must be integers"), (torch.full((1, 1, 4, 8), 2), "values from 2 to 2")],
)
def test_what_is_no_image(images: torch.Tensor, text: str) -> None:
    with pytest.raises(ShapeError, match=text):
        pixelfast.compile(small("pixel vae").float()).reconstruct(images)


def test_no_posterior() -> None:
    model = VQVAEWithPrior((1, 8, 8), hidden=4, codes=5, code_width=2, prior_hidden=4, prior_dilations=(1,))
    with pytest.raises(PixelfastError, match="no posterior"):
        pixelfast.compile(model).reconstruct(torch.zeros(1, 1, 8, 8, dtype=torch.long))


class TestCommand:
    MODELS: ClassVar[dict[str, Callable[[], Any]]] = {
        "vae": lambda: VAE((1, 8, 8), hidden=4, latents=2),
        "pixel": lambda: PixelVAE((1, 8, 8), hidden=4, latents=2, features=3, pixel_hidden=4),
        "levels": lambda: HierarchicalPixelVAE(
            (1, 8, 8), hidden=4, latents=(2, 3), halvings=(1,), features=3, pixel_hidden=4
        ),
        "gated": lambda: GatedPixelCNN((1, 8, 8), levels=2, hidden=2, dilations=(1,)),
    }

    @pytest.fixture
    def run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable:
        monkeypatch.chdir(tmp_path)
        torch.manual_seed(0)
        for name, make in self.MODELS.items():
            pixelfast.save(randomised(make()), f"{name}.safetensors")
        write_data(tmp_path / "data.npz")

        def run(*words: str) -> tuple[int, str, str]:
            return main([*words]), *capsys.readouterr()

        return run

    @pytest.mark.parametrize("name", ["vae", "pixel", "levels"])
    def test_shows_each_image_beside_its_reconstruction(self, run: Callable, name: str) -> None:
        words = ["reconstruct", f"{name}.safetensors", "data.npz", "-n", "4", "--seed", "3", "-o", "a.png"]
        status, out, err = run(*words, "--binarise", "threshold")
        assert (status, err) == (0, "")
        with np.load("data.npz") as arrays:
            images = (torch.from_numpy(arrays["images_test"][:4])[:, None] > 127).long()
        model = pixelfast.load(f"{name}.safetensors").eval()
        if name == "vae":
            again = model.reconstruct(images)
        else:
            again = pixelfast.compile(model).reconstruct(images, seed=3).long()
        with Image.open("a.png") as picture:
            pixels = np.asarray(picture)
        assert (pixels[1:9, 1:9] == 255 * images[0, 0].numpy()).all()
        assert (pixels[1:9, 10:18] == 255 * again[0, 0].numpy()).all()  # to the right of the first original
        assert f"squared error {float((again - images).square().double().mean()):.5f}" in out

    def test_the_seed_is_of_the_pixels_that_are_drawn(self, run: Callable, tmp_path: Path) -> None:
        def picture(name: str, seed: str) -> bytes:
            words = ("reconstruct", f"{name}.safetensors", "data.npz", "--binarise", "threshold", "--seed", seed)
            assert run(*words, "-o", "a.png")[0] == 0
            return (tmp_path / "a.png").read_bytes()

        assert picture("vae", "0") == picture("vae", "1")
        assert picture("pixel", "0") != picture("pixel", "1")
        assert picture("pixel", "1") == picture("pixel", "1")

    def test_two_levels_are_asked_for(self, run: Callable) -> None:
        status, _, err = run("reconstruct", "vae.safetensors", "data.npz", "-o", "a.png")
        assert status == 1 and "give --binarise threshold or stochastic" in err and not Path("a.png").exists()

    def test_a_model_without_latents_is_refused(self, run: Callable) -> None:
        words = ("reconstruct", "gated.safetensors", "data.npz", "--binarise", "threshold")
        status, _, err = run(*words)
        assert status == 1 and "this is a gated_pixelcnn" in err and not Path("reconstructions.png").exists()


@pytest.mark.parametrize("shape", [(1, 1, 4, 24), (1, 1, 24, 4), (2, 1, 8, 11), (1, 2, 8, 12), (8, 12)])
def test_images_of_another_shape(shape: tuple[int, ...]) -> None:
    sampler = pixelfast.compile(small("vae").float().eval())
    with pytest.raises(ShapeError, match=r"a tensor of integers \(N, 1, 8, 12\)"):
        sampler.reconstruct(torch.zeros(shape, dtype=torch.long))


def test_no_tensor() -> None:
    sampler = pixelfast.compile(small("vae").float().eval())
    with pytest.raises(ShapeError, match="images are ndarray"):
        sampler.reconstruct(np.zeros((1, 1, 8, 12), np.int64))  # type: ignore[arg-type]
