"""Speed of a training step on pytest-benchmark's fixture; `benchmarks/training_step.py` prints ratios and memory."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from training_step import MODELS, WAYS, create, make_step

BATCH_SIZE = 8


@functools.cache
def first_loss(name: str) -> torch.Tensor:
    """Of the same weights and images in plain torch."""
    return make_step("eager", *create(name, BATCH_SIZE))()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MODELS)
def test_training_step(benchmark: Any, name: str, way: str) -> None:
    step = make_step(way, *create(name, BATCH_SIZE))
    # Dropout draws other noise in every way: of the first loss it moves less than a hundredth.
    torch.testing.assert_close(step(), first_loss(name), rtol=0.01, atol=0)
    benchmark.pedantic(step, rounds=5, warmup_rounds=1)
