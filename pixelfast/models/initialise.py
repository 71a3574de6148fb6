"""Data-dependent initialisation of weight-normalised networks (Salimans and Kingma 2016, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pixelfast.errors import PixelfastError
from pixelfast.models.shifted_conv import WeightNormConv2d
from pixelfast.models.weight_norm import weight_norm


@torch.no_grad()
def initialise_from_data(model: nn.Module, x: Tensor, condition: Tensor | None = None) -> None:
    """Sets magnitudes and biases so that every weight-normalised layer's outputs on this batch have mean zero
    and its own `init_scale` as standard deviation, one layer after another in the order they are called.

    x and condition: one batch of what `model.forward` takes. Call it once, before training. Raises
    PixelfastError when the model has no such layer or one whose norm is not per output channel.
    """
    layers = [module for module in model.modules() if isinstance(module, WeightNormConv2d)]
    if not layers:
        raise PixelfastError(f"{type(model).__name__} has no weight-normalised layer to initialise from data")
    if any(layer.norm_axis != layer.output_axis for layer in layers):
        raise PixelfastError("data-dependent initialisation needs every weight norm per output channel")
    hooks = [layer.register_forward_pre_hook(_standardise) for layer in layers]
    try:
        model(x, condition)
    finally:
        for hook in hooks:
            hook.remove()


def _standardise(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    assert isinstance(layer, WeightNormConv2d)
    unit = weight_norm(layer.weight_v, torch.ones_like(layer.weight_g), layer.norm_axis)
    response = layer.convolve(inputs[0], unit, None)
    variance, mean = torch.var_mean(response, dim=(0, 2, 3), correction=0)
    layer.weight_g.copy_(layer.init_scale * torch.rsqrt(variance + 1e-10))
    layer.bias.copy_(-mean * layer.weight_g)
