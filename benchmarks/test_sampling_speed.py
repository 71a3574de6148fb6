"""Sampling speed on pytest-benchmark's fixture: `make bench`, or `pytest benchmarks` for a few of them.

Times are of this machine at this moment; `pixelfast bench` puts them beside naive sampling and the machine's limits.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest

import pixelfast
from pixelfast.bench import engines, standard
from pixelfast.shipped import DEFAULT, weights

DTYPES = ("float32", "bfloat16")


@functools.cache
def compiled(name: str, dtype: str) -> pixelfast.Sampler:
    """A shipped model or a standard configuration on the CPU backend."""
    model = standard.create(name) if name in standard.MODELS else pixelfast.load(weights(name))
    samplers, _ = engines.compile_each(model, ["cpu"], [dtype])
    return samplers[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [1, 16, 64])
def test_shipped(benchmark: Any, batch: int, dtype: str) -> None:
    images = benchmark(compiled(DEFAULT, dtype).sample, batch, progress=False)
    assert images.shape == (batch, 1, 28, 28)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [1, 16])
def test_reference_network(benchmark: Any, batch: int, dtype: str) -> None:
    sample = compiled("pixelcnnpp", dtype).sample
    images = benchmark.pedantic(sample, (batch,), {"progress": False}, rounds=3, warmup_rounds=1)
    assert images.shape == (batch, 3, 32, 32)
