"""The models inside the package: their cards, their size, and the figures that the cards state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import pixelfast
from pixelfast import shipped
from pixelfast.data import load_mnist
from pixelfast.training import bits_per_dim
from pixelfast.training.code_figures import code_figures

IMAGES = 200
MOST_BYTES = 25_000_000
"""Of all weights together, so that installing the package stays quick."""


def load(name: str) -> Any:
    return pixelfast.load(shipped.weights(name))


def test_together_they_are_small() -> None:
    assert sum(shipped.weights(name).stat().st_size for name in shipped.names()) <= MOST_BYTES


@pytest.mark.parametrize("name", shipped.names())
def test_every_model_has_a_card(name: str) -> None:
    card = shipped.card(name)
    assert card.startswith(f"# {name}\n")
    for heading in ("## Use", "## Architecture", "## Training", "## Result", "## Data and licence"):
        assert f"\n{heading}\n" in card
    parameters = sum(parameter.numel() for parameter in load(name).parameters())
    assert f"{parameters:,} parameters" in " ".join(card.split())
    assert f"pixelfast sample {name}" in card and "pixelfast train " in card


@pytest.mark.parametrize("name", shipped.names())
def test_every_model_samples_digits(name: str) -> None:
    """At least in so far that they are white strokes in a black frame, and not all the same."""
    model = load(name)
    condition = None if model.condition_example is None else torch.arange(10)
    images = pixelfast.compile(model).sample(10, condition=condition).float() / 255
    assert images.shape == (10, 1, 28, 28)
    assert float(images[..., :2, :].mean()) < 0.01 and 0.05 < float(images.mean()) < 0.25
    assert len({image.numpy().tobytes() for image in images}) == 10


def test_codes(shared_file: Callable) -> None:
    """Of the first test images; the card's figures are of all."""
    data = load_mnist(shared_file("data", "mnist"), "test")
    found = code_figures(load("vqvae-mnist-prior"), data.images[:IMAGES], data.labels[:IMAGES])
    # A feature between two codes may go to either on another machine.
    assert found.squared_error == pytest.approx(0.0018894, rel=1e-3)
    assert found.maps["codes"].bits_per_code == pytest.approx(3.1886, rel=1e-3)
    assert found.maps["codes"].perplexity == pytest.approx(86.47, rel=1e-2)


@pytest.mark.parametrize(("name", "bits"), [("gated-pixelcnn-mnist", 0.9614), ("gated-pixelcnn-mnist-classes", 0.9189)])
def test_bits_per_dim(name: str, bits: float, shared_file: Callable) -> None:
    """Of the first test images; the card's figure is of all."""
    data = load_mnist(shared_file("data", "mnist"), "test")
    model = load(name)
    labels = None if model.condition_example is None else data.labels[:IMAGES]
    assert bits_per_dim(model, data.images[:IMAGES], labels) == pytest.approx(bits, abs=1e-4)
