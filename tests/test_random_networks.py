"""Random networks: the causal ones sample what the naive sampler does, the leaky ones are refused by name."""

from __future__ import annotations

import pytest
import torch
from comparators import assert_agree_in_float64, assert_error_ratio, assert_same_integers
from hypothesis import HealthCheck, given, settings
from random_networks import Drawn, networks

import pixelfast
from pixelfast.errors import CausalityError

drawing_is_slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def forward(drawn: Drawn, levels: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    x = (2 * levels.double() / (drawn.likelihood.levels - 1) - 1).to(dtype)
    with torch.no_grad():
        return drawn.likelihood.flatten(drawn.model.to(dtype)(x), drawn.shape)


def images(drawn: Drawn, n: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(drawn.likelihood.levels, (n, *drawn.shape), generator=generator)


@settings(max_examples=200, suppress_health_check=drawing_is_slow)
@given(networks())
def test_cached_equals_naive(drawn):
    sampler = pixelfast.compile(drawn.model, backend="reference", dtype=torch.float64, **drawn.arguments())
    fast = sampler.sample(2, seed=11)
    slow = pixelfast.naive_sample(drawn.model, 2, seed=11, dtype=torch.float64, **drawn.arguments())
    assert_same_integers(fast, slow)
    x = images(drawn, 2)
    assert_agree_in_float64(sampler.params(x), forward(drawn, x, torch.float64))


@settings(max_examples=100, suppress_health_check=drawing_is_slow)
@given(networks())
def test_cpu_errs_no_more_than_torch(drawn):
    sampler = pixelfast.compile(drawn.model, backend="cpu", **drawn.arguments())
    x = images(drawn, 8)
    own, truth = forward(drawn, x, torch.float32), forward(drawn, x, torch.float64)
    assert_error_ratio(sampler.params(x), own, truth)


def leaks(drawn: Drawn) -> torch.Tensor:
    """bool (C, H, W, C, H, W): a parameter of the first number changes with the second, which is not earlier.

    By automatic differentiation in float64: nothing of the compiler is used.
    """
    channels, height, width = drawn.shape
    levels = images(drawn, 1)[0]
    x = (2 * levels.double() / (drawn.likelihood.levels - 1) - 1).requires_grad_()
    model = drawn.model.double()

    def parameters(x: torch.Tensor) -> torch.Tensor:
        return drawn.likelihood.flatten(model(x[None]), drawn.shape)[0]

    jacobian = torch.autograd.functional.jacobian(parameters, x)
    model.float()
    number = torch.arange(channels * height * width).reshape(height, width, channels).permute(2, 0, 1)
    reads = torch.stack([(jacobian[needed] != 0).any(0) for needed in drawn.likelihood.needs(channels)])
    return reads & (number[None, None, None] >= number[..., None, None, None])


@settings(max_examples=80, suppress_health_check=drawing_is_slow)
@given(networks(leaky=True))
def test_leaks_are_refused_and_named(drawn):
    found = leaks(drawn)
    report = pixelfast.check_causality(drawn.model, **drawn.arguments())
    assert report.causal == (not bool(found.any()))
    if report.causal:
        return
    assert bool(found[(*report.output, *report.reads)]), f"{report.output} does not read {report.reads}"
    with pytest.raises(CausalityError) as caught:
        pixelfast.compile(drawn.model, **drawn.arguments())
    assert str(caught.value) == report.message
