"""Sampling speed on pytest-benchmark's fixture: `make bench`, or `pytest benchmarks` for a few of them.

Times are of this machine at this moment; `pixelfast bench` puts them beside naive sampling and the machine's limits.
"""

from __future__ import annotations

from typing import Any

import pytest

import pixelfast
from pixelfast.shipped import DEFAULT, weights


@pytest.fixture(scope="module")
def shipped() -> pixelfast.Sampler:
    """The model that comes with the package."""
    return pixelfast.compile(pixelfast.load(weights(DEFAULT)), backend="cpu")


@pytest.fixture(scope="module")
def reference_network() -> pixelfast.Sampler:
    """PixelCNN++ of 5 blocks and 160 filters, random weights."""
    return pixelfast.compile(pixelfast.models.PixelCNNPlusPlus().eval(), backend="cpu")


@pytest.mark.parametrize("batch", [1, 16, 64])
def test_shipped(benchmark: Any, shipped: pixelfast.Sampler, batch: int) -> None:
    images = benchmark(shipped.sample, batch, progress=False)
    assert images.shape == (batch, 1, 28, 28)


@pytest.mark.parametrize("batch", [1, 16])
def test_reference_network(benchmark: Any, reference_network: pixelfast.Sampler, batch: int) -> None:
    images = benchmark.pedantic(reference_network.sample, (batch,), {"progress": False}, rounds=3, warmup_rounds=1)
    assert images.shape == (batch, 3, 32, 32)
