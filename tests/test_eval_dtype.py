"""`pixelfast eval --dtype`: what the engine's rounding costs in bits per dimension, beside float32."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

import pixelfast
from pixelfast.cli.main import main
from pixelfast.data import load_mnist
from pixelfast.models import GatedPixelCNN

IMAGES = 5


@pytest.fixture(params=[None, 10], ids=["plain", "classes"])
def model(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GatedPixelCNN:
    """A tiny model, saved in an empty directory beside a tiny MNIST, and as loaded again."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = GatedPixelCNN(hidden=4, dilations=(1, 1), classes=request.param)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)  # far from uniform, so that rounding shows
    pixelfast.save(model, "model.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 28, 28), dtype=np.uint8)
    Path("t10k-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, IMAGES, 28, 28) + pixels.tobytes())
    Path("t10k-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, IMAGES) + bytes(range(IMAGES)))
    return model.eval()


def bits(model: GatedPixelCNN, dtype: torch.dtype, images: int) -> float:
    data = load_mnist(".", "test")
    condition = None if model.condition_example is None else data.labels[:images]
    return float(pixelfast.compile(model, dtype=dtype).bits_per_dim(data.images[:images], condition).double().mean())


@pytest.mark.parametrize(("limit", "images"), [([], IMAGES), (["--limit", "3"], 3)])
def test_prints_both_and_the_change(
    model: GatedPixelCNN, limit: list[str], images: int, capsys: pytest.CaptureFixture
) -> None:
    assert main(["eval", "model.safetensors", "--data", ".", "--dtype", "bfloat16", *limit]) == 0
    words = capsys.readouterr().out.split()
    exact, low, change = float(words[0]), float(words[4]), float(words[7].strip("()"))
    assert exact == pytest.approx(bits(model, torch.float32, images), abs=1e-4)
    assert low == pytest.approx(bits(model, torch.bfloat16, images), abs=1e-4)
    assert change == pytest.approx(low - exact, abs=1.01e-4) and words[7][1] in "+-"
    assert words[1:4] == ["bits/dim", "in", "float32,"] and words[5:7] == ["in", "bfloat16"]
    assert " ".join(words[8:]) == f"over {images} images of {Path.cwd().name}'s test split"


def test_float32_changes_nothing(model: GatedPixelCNN, capsys: pytest.CaptureFixture) -> None:
    assert main(["eval", "model.safetensors", "--data", ".", "--dtype", "float32"]) == 0
    assert "in float32 (+0.0000) over" in capsys.readouterr().out
