"""Every idiom of the gallery through every backend: the model's own parameters, the naive sampler's integers."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from backends import compile_or_skip
from comparators import assert_agree_in_float64, assert_error_ratio, assert_same_integers
from gallery import IDIOMS, Idiom

import pixelfast
from pixelfast.backends.registry import ORDER
from pixelfast.naive import naive_params
from pixelfast.problem import make_problem

SAMPLES = 2
every_idiom = pytest.mark.parametrize("idiom", IDIOMS.values(), ids=IDIOMS.keys())


@cache
def truth(idiom: Idiom) -> torch.Tensor:
    """The module's own forward in float64, or its recording's where the module insists on float32."""
    x, condition = idiom.images(SAMPLES), idiom.conditions(SAMPLES)
    if idiom.runs_in_double:
        return idiom.forward(idiom.build().double(), x, condition, torch.float64)
    problem = make_problem(idiom.build(), condition=condition, **idiom.arguments())
    return naive_params(problem, x, condition, torch.float64)


def compiled(idiom: Idiom, backend: str, dtype: torch.dtype) -> pixelfast.Sampler:
    return compile_or_skip(
        idiom.build(), backend, condition=idiom.conditions(1), dtype=dtype, **idiom.arguments()
    )


@every_idiom
def test_float64_is_the_naive_sampler(idiom):
    sampler = compiled(idiom, "reference", torch.float64)
    x, condition = idiom.images(SAMPLES), idiom.conditions(SAMPLES)
    assert_agree_in_float64(sampler.params(x, condition), truth(idiom))
    naive = pixelfast.naive_sample(
        idiom.build(), SAMPLES, condition=condition, seed=5, dtype=torch.float64, **idiom.arguments()
    )
    assert_same_integers(sampler.sample(SAMPLES, seed=5, condition=condition), naive)


@every_idiom
@pytest.mark.parametrize("backend", ORDER)
def test_float32_errs_no_more_than_torch(idiom, backend):
    sampler = compiled(idiom, backend, torch.float32)
    x, condition = idiom.images(SAMPLES), idiom.conditions(SAMPLES)
    own = idiom.forward(idiom.build(), x, condition, torch.float32)
    assert_error_ratio(sampler.params(x, condition), own, truth(idiom))


@every_idiom
def test_idiom_reads_what_precedes(idiom):
    """A module that ignored its input would pass everything else."""
    x = idiom.images(1)
    changed = idiom.other_images(x)
    model, condition = idiom.build(), idiom.conditions(1)
    one, two = (idiom.forward(model, levels, condition, torch.float32) for levels in (x, changed))
    assert not torch.equal(one, two)
