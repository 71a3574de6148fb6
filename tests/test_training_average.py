"""The moving average of the weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pixelfast.training.average import averaged


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.999])
def test_it_keeps_little_at_first_and_as_much_as_it_may_later(decay: float) -> None:
    model = nn.Linear(1, 1, bias=False).double()
    average = averaged(model, decay)
    expected = 0.0
    for n, weight in enumerate([5.0, -3.0, 8.0, 1.0, 1.5, -2.0]):
        model.weight.data.fill_(weight)
        average.update_parameters(model)
        kept = min(decay, (1 + n) / (10 + n)) if n else 0.0  # the first update is a copy
        expected = kept * expected + (1 - kept) * weight
        assert float(average.module.weight.detach()) == pytest.approx(expected, rel=1e-12)


def test_a_short_run_is_not_mostly_its_first_weights() -> None:
    model = nn.Linear(1, 1, bias=False)
    average = averaged(model, 0.999)
    for step in range(20):
        model.weight.data.fill_(float(step))
        average.update_parameters(model)
    assert 15 < float(average.module.weight.detach()) < 19
    assert not torch.equal(average.module.weight, model.weight)
