"""The commands that show what autoencoders and their priors do: reconstruct and codes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from training_runs import write_data

import pixelfast
from pixelfast.cli.codes import NEAR
from pixelfast.cli.main import main
from pixelfast.grid import grid
from pixelfast.models import GatedPixelCNN, VQVAE2WithPriors, VQVAEWithPrior

SMALL: dict[str, Any] = {"hidden": 6, "residual_blocks": 1, "residual_hidden": 3, "codes": 7, "code_width": 5}
PRIOR: dict[str, Any] = {"features": 4, "hidden": 2, "parts": 1, "blocks": 1, "kernel_size": 3}
MODELS: dict[str, Callable[[], Any]] = {
    "one": lambda: VQVAEWithPrior((1, 8, 8), **SMALL, prior_hidden=4, prior_dilations=(1,), classes=3),
    "two": lambda: VQVAE2WithPriors(
        (1, 8, 8), **SMALL, halvings=1, top={**PRIOR, "heads": 1}, bottom={**PRIOR, "condition_hidden": 2}
    ),
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    for name, make in MODELS.items():
        model = make()
        with torch.no_grad():
            for tensor in [*model.parameters(), *model.buffers()]:
                if tensor.is_floating_point():
                    tensor.add_(0.4 * torch.randn_like(tensor))
        pixelfast.save(model, f"{name}.safetensors")
        pixelfast.save(model.autoencoder, f"{name}-alone.safetensors")
    pixelfast.save(GatedPixelCNN((1, 8, 8), hidden=2, dilations=(1,)), "gated.safetensors")
    write_data(tmp_path / "data.npz")

    def run(*words: str) -> tuple[int, str, str]:
        return main([*words]), *capsys.readouterr()

    return run


def cells(path: str, columns: int) -> np.ndarray:
    """The images of a picture of 8x8 ones, row by row."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture)
    rows = (pixels.shape[0] - 1) // 9
    return np.stack([pixels[1 + 9 * y : 9 + 9 * y, 1 + 9 * x : 9 + 9 * x] for y in range(rows) for x in range(columns)])


@pytest.mark.parametrize("name", ["one", "two", "one-alone", "two-alone"])
def test_reconstructions(run: Callable, name: str) -> None:
    status, out, err = run("reconstruct", f"{name}.safetensors", "data.npz", "-n", "5", "-o", "a.png")
    assert (status, err) == (0, "") and "5 images, each with its reconstruction to its right: squared error" in out
    with np.load("data.npz") as arrays:
        originals = arrays["images_test"][:5]
    shown = cells("a.png", 4)[:10]
    assert (shown[::2] == originals).all()
    model: Any = pixelfast.load(f"{name}.safetensors")
    model = getattr(model, "autoencoder", model)
    again = model.reconstruct(torch.from_numpy(originals)[:, None] / 127.5 - 1)
    assert (shown[1::2] == again[:, 0].numpy()).all()
    error = float(((again[:, 0] - torch.from_numpy(originals).long()).double() / 255).square().mean())
    assert f"{error:.5f}" in out


@pytest.mark.parametrize("name", ["one", "two"])
def test_codes_at_random_near_and_of_the_prior(run: Callable, name: str) -> None:
    status, out, err = run("codes", f"{name}.safetensors", "data.npz", "-n", "6", "--seed", "3", "-o", "a.png")
    assert (status, err) == (0, "") and "rows: random codes; codes of the data with 10% at random" in out
    rows = cells("a.png", 6).reshape(3, 6, 8, 8)
    model: Any = pixelfast.load(f"{name}.safetensors")
    sampler: Any = pixelfast.compile(model)
    labels = torch.arange(6) % 3 if name == "one" else None
    assert (rows[2] == sampler.sample(6, seed=3, condition=labels)[:, 0].numpy()).all()
    with np.load("data.npz") as arrays:
        x = torch.from_numpy(arrays["images_test"][:6])[:, None] / 127.5 - 1
    again = model.autoencoder.reconstruct(x)[:, 0].numpy()
    near, random = ((row.astype(int) - again).astype(float) ** 2 for row in (rows[1], rows[0]))
    assert 0 < NEAR < 0.5 and near.mean() < random.mean()
    assert run("codes", f"{name}.safetensors", "data.npz", "-n", "6", "--seed", "3", "-o", "b.png")[0] == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    assert run("codes", f"{name}.safetensors", "data.npz", "-n", "6", "--seed", "4", "-o", "c.png")[0] == 0
    assert Path("a.png").read_bytes() != Path("c.png").read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("reconstruct", "gated.safetensors", "data.npz"), "reconstruct takes a model with codes or latents"),
        (("codes", "gated.safetensors", "data.npz"), "codes takes a model with a prior of codes"),
        (("codes", "one-alone.safetensors", "data.npz"), "this is a vq_vae"),
        (("codes", "one.safetensors", "data.npz", "-n", "99"), "-n 99: the test split has 7 images"),
        (("reconstruct", "one.safetensors", "data.npz", "-o", "no/a.png"), "cannot write no/a.png"),
        (("reconstruct", "one.safetensors", "absent.npz"), "absent.npz"),
    ],
)
def test_refusals(run: Callable, words: tuple[str, ...], message: str) -> None:
    before = sorted(path.name for path in Path.cwd().iterdir())
    status, out, err = run(*words)
    assert (status, out) == (1, "") and message in err and len(err.splitlines()) == 1
    assert sorted(path.name for path in Path.cwd().iterdir()) == before


def test_a_grid_with_so_many_columns() -> None:
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 2, 3), dtype=np.uint8)
    assert grid(images, 256, 3).size == (3 * 4 + 1, 2 * 3 + 1)
    assert grid(images, 256, 6).size == (6 * 4 + 1, 3 + 1)


def test_a_completion_has_the_label_of_its_image(run: Callable) -> None:
    """Labels of the data are 0, 1, 2, 0, ..."""
    words = ("complete", "one.safetensors", "--data", "data.npz", "--index", "4", "-n", "32", "--rows-given", "0")
    status, out, err = run(*words, "--npz", "data-label.npz")
    assert (status, err) == (0, "") and "32 completions, 0 rows given, label 1 as in the data, seed 0: " in out
    for label in range(3):
        status, out, _ = run(*words, "--label", str(label), "--npz", "given.npz")
        assert status == 0 and "as in the data" not in out
        given, own = (np.load(name)["images"] for name in ("given.npz", "data-label.npz"))
        assert np.array_equal(given, own) == (label == 1)
    assert "as in the data" not in run("complete", "two.safetensors", "--data", "data.npz", "-n", "1")[1]
    assert run("sample", "two.safetensors", "-n", "1", "-o", "a.png")[0] == 0
    status, _, err = run("complete", "one.safetensors", "--image", "a.png")
    assert status == 1 and "give --label or --labels, from 0 to 2" in err


def test_a_label_that_the_data_lack_has_to_be_given(run: Callable) -> None:
    np.savez("no-labels.npz", images_test=np.zeros((2, 8, 8), np.uint8))
    status, _, err = run("complete", "one.safetensors", "--data", "no-labels.npz")
    assert status == 1 and "give --label or --labels, from 0 to 2" in err


@pytest.mark.parametrize("name", ["one", "two"])
def test_a_summary_has_a_line_per_stage(run: Callable, name: str) -> None:
    labels = ("--label", "1") if name == "one" else ()
    status, out, _ = run("sample", f"{name}.safetensors", "-n", "2", *labels)
    assert status == 0
    wrote, first, *lines = out.splitlines()
    assert wrote == "wrote samples.png"
    assert re.fullmatch(r"2 images, seed 0: \d+\.\d{3} s, \d+\.\d images/s", first)
    stages = ["codes"] if name == "one" else ["top", "bottom"]
    speed = r"\d+\.\d us per pixel, \d+\.\d GFLOP/s \(\S+ \S+ float32, \d+ threads?\)"
    expected = [rf"  {stage}: \d+\.\d{{3}} s \(\d+%\), {speed}" for stage in stages]
    expected.append(r"  decoding: \d+\.\d{3} s \(\d+%\)")
    assert len(lines) == len(expected)
    assert all(re.fullmatch(pattern, line) for pattern, line in zip(expected, lines, strict=True))
