"""Both models, conditional and not, at all kinds of sizes: the naive sampler's integers, the model's own parameters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from backends import compile_or_skip
from comparators import assert_agree_in_float64, assert_error_ratio, assert_same_integers
from torch import Tensor, nn

import pixelfast
from pixelfast.backends.registry import ORDER
from pixelfast.errors import ShapeError
from pixelfast.models import GatedPixelCNN, PixelCNNPlusPlus

SMALL_GATED: dict[str, Any] = {"levels": 4, "hidden": 6, "dilations": (1, 2)}
SMALL_PLUS: dict[str, Any] = {"blocks": 1, "filters": 4, "mixtures": 2}
CONDITIONS: dict[str, dict[str, int]] = {
    "none": {},
    "label": {"classes": 3},
    "spatial": {"spatial_condition": 2},
    "vector": {"vector_condition": 3},
}
GATED_CASES = [
    *[((1, 5, 9), condition) for condition in CONDITIONS],
    *[((3, 3, 4), condition) for condition in CONDITIONS],
    *[((1, 1, 1), condition) for condition in CONDITIONS],
    ((3, 1, 1), "none"),
    ((3, 1, 1), "label"),
    ((2, 5, 9), "none"),
    ((1, 28, 20), "none"),
]
PLUS_CASES = [
    ((3, 4, 4), None),
    ((3, 4, 4), 3),
    ((1, 4, 4), None),
    ((1, 4, 4), 3),
    ((3, 12, 36), None),
    ((1, 28, 20), 3),
]


def randomised(model: nn.Module) -> nn.Module:
    """No parameter zero or one: nothing may hide behind how the model starts."""
    generator = torch.Generator().manual_seed(17)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def gated(shape: tuple[int, int, int], condition: str, **changes: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return randomised(GatedPixelCNN(shape, **(SMALL_GATED | CONDITIONS[condition] | changes)))


def plus(shape: tuple[int, int, int], classes: int | None, **changes: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return randomised(PixelCNNPlusPlus(shape, classes=classes, **(SMALL_PLUS | changes)))


def conditions(model: nn.Module, n: int) -> Tensor | None:
    """One row per image, none of them the example's zeros."""
    example = model.condition_example
    if example is None:
        return None
    if not example.is_floating_point():
        return torch.arange(n) % 3
    return torch.randn(n, *example.shape[1:], generator=torch.Generator().manual_seed(4))


def truth(model: nn.Module, levels: Tensor, condition: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The model's own forward: parameters (N, P, H, W)."""
    unit = levels.double() / (model.likelihood.levels - 1)
    x = (unit if model.input == "unit" else 2 * unit - 1).to(dtype)
    if condition is not None and condition.is_floating_point():
        condition = condition.to(dtype)
    with torch.no_grad():
        params = model.to(dtype)(x) if condition is None else model.to(dtype)(x, condition)
    return model.likelihood.flatten(params, model.shape)


def check(model: nn.Module, samples: int) -> None:
    condition = conditions(model, samples)
    sampler = pixelfast.compile(model, backend="reference", dtype=torch.float64)
    fast = sampler.sample(samples, seed=3, condition=condition)
    slow = pixelfast.naive_sample(model, samples, seed=3, condition=condition, dtype=torch.float64)
    assert_same_integers(fast, slow)
    assert_agree_in_float64(sampler.params(fast, condition), truth(model, fast, condition, torch.float64))


def check_float32(model: nn.Module, backend: str) -> None:
    condition = conditions(model, 2)
    sampler = compile_or_skip(model, backend)
    levels = torch.randint(model.likelihood.levels, (2, *model.shape), generator=torch.Generator().manual_seed(2))
    got = sampler.params(levels, condition)
    own = truth(model, levels, condition, torch.float32)
    assert_error_ratio(got, own, truth(model, levels, condition, torch.float64))


@pytest.mark.parametrize(("shape", "condition"), GATED_CASES)
def test_gated_pixelcnn(shape, condition):
    check(gated(shape, condition), samples=1 if shape[1] > 20 else 3)


@pytest.mark.parametrize("changes", [{"channel_order": "independent"}, {"input": "unit"}, {"kernel_size": 5}], ids=str)
def test_gated_pixelcnn_options(changes):
    check(gated((3, 4, 5), "none", **changes), samples=2)


@pytest.mark.parametrize(("shape", "classes"), PLUS_CASES)
def test_pixelcnn_plus_plus(shape, classes):
    check(plus(shape, classes), samples=1 if shape[1] * shape[2] > 100 else 3)


@pytest.mark.parametrize("changes", [{"deconv_norm": "in"}, {"blocks": 2}, {"mixtures": 1}], ids=str)
def test_pixelcnn_plus_plus_options(changes):
    check(plus((3, 4, 8), None, **changes), samples=2)


@pytest.mark.parametrize("backend", ORDER)
@pytest.mark.parametrize(("shape", "condition"), [((1, 5, 9), "spatial"), ((3, 3, 4), "label"), ((1, 1, 1), "vector")])
def test_gated_pixelcnn_in_float32(shape, condition, backend):
    check_float32(gated(shape, condition), backend)


@pytest.mark.parametrize("channels", [1, 3])
def test_gated_pixelcnn_in_float32_at_a_larger_size(channels):
    check_float32(gated((channels, 28, 20), "label"), "cpu")


@pytest.mark.parametrize(
    ("shape", "classes", "backend"),
    [((3, 4, 4), 3, "reference"), ((3, 4, 4), 3, "cpu"), ((1, 12, 36), None, "cpu"), ((3, 28, 20), None, "cpu")],
)
def test_pixelcnn_plus_plus_in_float32(shape, classes, backend):
    check_float32(plus(shape, classes), backend)


@pytest.mark.parametrize("shape", [(3, 4, 6), (1, 27, 20), (3, 13, 36)])
def test_pixelcnn_plus_plus_refuses_other_sizes(shape):
    with pytest.raises(ShapeError, match=f"{shape[1]} x {shape[2]}"):
        plus(shape, None)
    with pytest.raises(ShapeError, match=f"{shape[1]} x {shape[2]}"):
        pixelfast.compile(plus((shape[0], 4, 4), None), shape)


@pytest.mark.parametrize("backend", ORDER)
def test_wide_sums_err_no_more_than_torch(backend):
    """Sums over more than a thousand products: one long chain of float32 additions would fail."""
    check_float32(gated((1, 3, 5), "none", hidden=160, dilations=(1,)), backend)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(3, 12, 36), (1, 12, 36), (3, 28, 20), (1, 28, 20)])
@pytest.mark.parametrize("classes", [None, 3])
def test_pixelcnn_plus_plus_several_large_images(shape, classes):
    check(plus(shape, classes, filters=8), samples=4)


@pytest.mark.slow
@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_gated_pixelcnn_several_large_images(condition, channels):
    check(gated((channels, 28, 20), condition), samples=4)
