"""Models in training run fused operations: the same outputs and gradients as in plain torch, and less is kept."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pixelfast.models import GatedPixelCNN, HierarchicalPixelVAE, PixelCNNPlusPlus, PixelVAE
from pixelfast.models.fused import plain_torch
from pixelfast.training.blocks import recompute_blocks

SMALL: dict[str, Any] = {"levels": 5, "hidden": 6, "dilations": (1, 2)}
LATENT: dict[str, Any] = {"network": "mlp", "hidden": 4, "latents": 3, "features": 4, "pixel_hidden": 5}
MODELS = {
    "gated": lambda: GatedPixelCNN((1, 5, 7), **SMALL),
    "gated, channels in order": lambda: GatedPixelCNN((3, 4, 4), kernel_size=5, **SMALL),
    "gated, classes": lambda: GatedPixelCNN((1, 4, 5), classes=3, **SMALL),
    "gated, map": lambda: GatedPixelCNN((3, 4, 5), channel_order="independent", spatial_condition=2, **SMALL),
    "gated, one block": lambda: GatedPixelCNN((1, 4, 4), levels=3, hidden=4, dilations=(2,), vector_condition=3),
    "plus plus": lambda: PixelCNNPlusPlus((3, 8, 12), blocks=1, filters=5, mixtures=2, dropout=0.0),
    "plus plus, classes": lambda: PixelCNNPlusPlus((1, 8, 8), blocks=2, filters=4, mixtures=2, classes=3, dropout=0.0),
}
MODELS |= {
    "layers on features": lambda: PixelVAE((1, 4, 8), **LATENT, layers=2).pixels,
    "layers with a bias": lambda: PixelVAE((3, 5, 4), "mixture", 8, 2, **LATENT, form="bias").pixels,
    "layers of latents": lambda: HierarchicalPixelVAE((1, 8, 8), hidden=4, latents=(2, 3)).latent_networks[0],
}
each_model = pytest.mark.parametrize("name", MODELS)


def create(name: str, dtype: torch.dtype = torch.float64) -> tuple[Any, tuple[Tensor, ...]]:
    """A model in training mode, biases and all drawn at random, and the arguments of its forward."""
    torch.manual_seed(0)
    model = MODELS[name]().to(dtype).train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    x = torch.rand(2, *model.shape, dtype=dtype) * 2 - 1
    example = model.condition_example
    if example is None:
        return model, (x,)
    wanted = torch.arange(2) if not example.is_floating_point() else torch.randn(2, *example.shape[1:], dtype=dtype)
    return model, (x, wanted)


def run(model: nn.Module, arguments: tuple[Tensor, ...]) -> list[Tensor]:
    """The output, and the gradients of the image and all parameters."""
    x = arguments[0].detach().requires_grad_()
    out = model(x, *arguments[1:])
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(out.dtype)
    wanted = [x, *model.parameters()]
    found = torch.autograd.grad(out, wanted, upstream, allow_unused=True)
    return [out.detach(), *(torch.zeros_like(w) if g is None else g for w, g in zip(wanted, found, strict=True))]


def assert_close(got: list[Tensor], expected: list[Tensor], **tolerance: float) -> None:
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


@each_model
def test_outputs_and_gradients_are_those_of_plain_torch(name):
    model, arguments = create(name)
    got = run(model, arguments)
    with plain_torch():
        expected = run(model, arguments)
    assert_close(got, expected, rtol=1e-10, atol=1e-11)
    assert any(bool(gradient.any()) for gradient in got[2:])


@each_model
def test_evaluation_sees_plain_torch(name, monkeypatch):
    """Sampling records the model in eval mode: it must not meet the operations."""
    model, arguments = create(name)

    def refuse(*_: Any) -> None:
        raise AssertionError("a fused operation was called")

    for operation in ("activated_conv", "gated", "gated_block"):
        monkeypatch.setattr(torch.ops.pixelfast, operation, refuse)
    model.eval()(*arguments)
    with torch.no_grad():
        model.train()(*arguments)
    with pytest.raises(AssertionError, match="was called"):
        model(*arguments)


@each_model
def test_blocks_can_be_computed_again(name):
    model, arguments = create(name)
    again = copy.deepcopy(model)
    recompute_blocks(again)
    for a, b in zip(run(again, arguments), run(model, arguments), strict=True):
        assert torch.equal(a, b)


def test_dropout_is_drawn_again_as_it_was():
    """Where a block runs once more in the backward pass its noise is that of the first time."""
    torch.manual_seed(0)
    model = PixelCNNPlusPlus((3, 8, 8), blocks=1, filters=6, mixtures=2, dropout=0.5).train()
    again = copy.deepcopy(model)
    recompute_blocks(again)
    x = torch.rand(2, 3, 8, 8)
    results = []
    for network in (model, again, model):
        torch.manual_seed(len(results) // 2)
        results.append(run(network, (x,)))
    assert all(torch.equal(a, b) for a, b in zip(results[0], results[1], strict=True))
    assert not torch.equal(results[0][0], results[2][0])


@pytest.mark.parametrize("name", ["gated, channels in order", "plus plus"])
def test_autocast(name):
    model, arguments = create(name, torch.float32)
    truth = run(model.double(), tuple(t.double() for t in arguments))
    model.float()
    with torch.autocast("cpu", torch.bfloat16):
        got = run(model, arguments)
        with plain_torch():
            plain = run(model, arguments)
    assert got[0].dtype == plain[0].dtype
    assert {g.dtype for g in got[1:]} == {torch.float32}

    def distance(these: list[Tensor]) -> float:
        return sum(float((a.double() - b).square().sum()) for a, b in zip(these, truth, strict=True)) ** 0.5

    assert distance(got) <= 2 * distance(plain)


@pytest.mark.parametrize("name", ["gated, classes", "plus plus"])
def test_channels_last(name):
    model, (x, *others) = create(name)
    expected = run(model, (x, *others))
    model.to(memory_format=torch.channels_last)
    got = run(model, (x.contiguous(memory_format=torch.channels_last), *others))
    assert_close(got, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", ["gated", pytest.param("plus plus", marks=pytest.mark.slow)])
def test_compiles_as_one_graph(name):
    model, arguments = create(name)
    expected = run(model, arguments)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert_close(run(compiled, arguments), expected, rtol=1e-10, atol=1e-11)
