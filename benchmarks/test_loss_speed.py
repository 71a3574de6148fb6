"""Speed of the mixture loss on pytest-benchmark's fixture; `benchmarks/mixture_loss.py` prints ratios and memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pixelfast import DiscretizedLogisticMixture

LIKELIHOOD = DiscretizedLogisticMixture()
BATCH, CHANNELS, SIZE = 16, 3, 32


def plain(params: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return -LIKELIHOOD.log_prob(params, x).sum() / x.shape[0]


LOSSES = {"pixelfast": LIKELIHOOD.loss, "eager": plain, "compiled": torch.compile(plain)}


@pytest.mark.parametrize("name", LOSSES)
def test_mixture_loss(benchmark: Any, name: str) -> None:
    params = torch.randn(BATCH, LIKELIHOOD.parameters(CHANNELS), SIZE, SIZE, requires_grad=True)
    x = torch.randint(LIKELIHOOD.levels, (BATCH, CHANNELS, SIZE, SIZE), dtype=torch.uint8)
    expected = plain(params.detach(), x)

    def step() -> torch.Tensor:
        params.grad = None
        loss = LOSSES[name](params, x)
        loss.backward()
        return loss.detach()

    step()
    torch.testing.assert_close(benchmark(step), expected)
