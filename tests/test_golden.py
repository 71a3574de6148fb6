"""Promise 3 across versions: one table of images' SHA-256 per noise and program version, committed.

To change it on purpose: raise `program.VERSION` or `rng.RNG_VERSION`, run this file as a script with the new bits, and
say so in CHANGELOG.md.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import pixelfast
from pixelfast import program, rng
from pixelfast.backends.registry import backend_class

TABLE = Path(__file__).parent / "golden" / f"images-rng{rng.RNG_VERSION}-program{program.VERSION}.json"


class Shifted(nn.Module):
    """Two causal convolutions and a head, for any likelihood."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 24, (2, 3))
        self.second = nn.Conv2d(24, 24, (1, 2))
        self.head = nn.Conv2d(24, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        above = self.first(nn.functional.pad(x, (1, 1, 2, 0)))[:, :, :-1]
        left = self.second(nn.functional.pad(torch.tanh(above), (1, 0)))
        return self.head(torch.sigmoid(left) * left)


def fixed_weights(model: nn.Module) -> nn.Module:
    """Weights from a formula: no generator's version matters."""
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            at = np.arange(parameter.numel(), dtype=np.float64)
            values = np.remainder(at * 0.6180339887498949 + 0.37 * number, 1.0) - 0.5
            parameter.copy_(torch.from_numpy(values.astype(np.float32)).reshape(parameter.shape))
    return model


CASES = {
    "gated, categorical": lambda: (fixed_weights(pixelfast.models.GatedPixelCNN((1, 7, 6), 16, 12, (1, 2))), {}),
    "gated, three channels": lambda: (fixed_weights(pixelfast.models.GatedPixelCNN((3, 4, 5), 8, 12, (1, 2))), {}),
    "mixture, three channels": lambda: (
        fixed_weights(Shifted(3, 40)),
        {"shape": (3, 5, 6), "likelihood": pixelfast.DiscretizedLogisticMixture(4), "input": "signed"},
    ),
    "mixture, one channel": lambda: (
        fixed_weights(Shifted(1, 12)),
        {"shape": (1, 5, 6), "likelihood": pixelfast.DiscretizedLogisticMixture(4), "input": "signed"},
    ),
    "attention": lambda: (
        # More positions than a block of a sum, queries and values that are not whole vectors.
        fixed_weights(pixelfast.models.PixelSNAIL((1, 11, 13), 2, 1, 10, key_width=19, mixtures=2)),
        {},
    ),
    "row lstm": lambda: (fixed_weights(pixelfast.models.PixelRNN((1, 7, 9), "row_lstm", 2, 2, 6)), {}),
    "diagonal bilstm": lambda: (fixed_weights(pixelfast.models.PixelRNN((3, 5, 4), levels=4, layers=2, hidden=6)), {}),
    "bernoulli": lambda: (
        fixed_weights(Shifted(1, 1)),
        {"shape": (1, 6, 5), "likelihood": pixelfast.Bernoulli(), "input": "unit"},
    ),
    "gaussian": lambda: (
        fixed_weights(Shifted(2, 4)),
        {"shape": (2, 6, 5), "likelihood": pixelfast.DiagonalGaussian(), "input": "real"},
    ),
}


def digest(images: torch.Tensor) -> str:
    """SHA-256 of images as bytes."""
    return hashlib.sha256(images.numpy().tobytes()).hexdigest()


def images_of(case: str, backend: str, isa: str) -> torch.Tensor:
    model, arguments = CASES[case]()
    dtype = torch.float64 if backend == "reference" else torch.float32
    sampler = pixelfast.compile(model, **arguments, backend=backend, dtype=dtype)
    if isa:
        sampler.backend = backend_class(backend)(sampler.program, sampler.likelihood, dtype, isa=isa)
    return sampler.sample(5, seed=2016)


def engines() -> list[tuple[str, str]]:
    """Every backend and instruction set that this machine can run."""
    from pixelfast import _C

    return [("reference", ""), *(("cpu", isa) for isa in _C.available_isas())]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("engine", engines(), ids=lambda e: "-".join(filter(None, e)))
def test_images_have_not_changed(case: str, engine: tuple[str, str]) -> None:
    table = json.loads(TABLE.read_text())
    assert digest(images_of(case, *engine)) == table["-".join(filter(None, engine))][case]


def test_another_seed_would_be_noticed() -> None:
    model, arguments = CASES["bernoulli"]()
    sampler = pixelfast.compile(model, **arguments, backend="reference", dtype=torch.float64)
    assert digest(sampler.sample(5, seed=2016)) != digest(sampler.sample(5, seed=2017))


if __name__ == "__main__":
    found = {"-".join(filter(None, e)): {case: digest(images_of(case, *e)) for case in CASES} for e in engines()}
    TABLE.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
