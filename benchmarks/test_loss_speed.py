"""Speed of the mixture loss on pytest-benchmark's fixture; `benchmarks/mixture_loss.py` prints ratios and memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mixture_loss import arguments, losses, plain, step

LOSSES = losses()


@pytest.mark.parametrize("name", LOSSES)
def test_mixture_loss(benchmark: Any, name: str) -> None:
    params, x = arguments()
    expected = plain(params.detach(), x)
    step(LOSSES[name], params, x)
    torch.testing.assert_close(benchmark(lambda: step(LOSSES[name], params, x)), expected)
