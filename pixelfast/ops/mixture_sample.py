"""Sampling of discretized logistic mixtures as one operation: Triton on a GPU (`kernels/mixture_sample.py`), plain
torch elsewhere. The CPU engine draws from noise of its own, in `csrc/heads.cpp`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pixelfast.errors import PixelfastError, ShapeError

from .implementations import CUDA_REMEDY, implementation
from .mixture_arguments import check_params
from .mixture_loss_reference import planes_per_component
from .mixture_sample_reference import mixture_sample_reference


def mixture_sample(params: Tensor, uniforms: Tensor, *, levels: int = 256, temperature: float = 1.0) -> Tensor:
    """Draw every channel of pixels from a discretized logistic mixture, given the noise.

    Mode "exact" of `DiscretizedLogisticMixture`: a component by the Gumbel-max trick from the uniforms of channel 0,
    then each channel by its logistic's inverse distribution function, rounded to its level before the next channel's
    mean moves with it. Computed in float64 everywhere, so that devices agree but for values that lie within about
    1e-12 of the edge of a bin. Not differentiable.

    Args:
        params: (N, 10 M, H, W) for three channels, (N, 3 M, H, W) for one; float32, float64, float16 or bfloat16, any
            strides, in the layout of `DiscretizedLogisticMixture`.
        uniforms: float64 (N, C, H, W, M + 1), strictly between 0 and 1 (not checked), any strides. The first M of
            channel 0 choose the component, the last of each channel is that of its logistic.
        levels: at least 2.
        temperature: at least 0. Logits are divided by it, scales multiplied by it after their floor.

    Returns:
        int64 (N, C, H, W), from 0 to levels - 1; -1 where the parameters are NaN or leave no component to choose.

    Raises:
        ShapeError: shapes or dtypes do not fit.
        PixelfastError: a temperature that does not exist.
        BackendError: the device's kernels cannot be loaded.
    """
    _check(params, uniforms, levels, temperature)
    if params.device.type not in ("cpu", "cuda", "meta"):
        return mixture_sample_reference(params, uniforms, levels=levels, temperature=temperature)
    return torch.ops.pixelfast.mixture_sample(params, uniforms, levels, float(temperature))


def _check(params: Tensor, uniforms: Tensor, levels: int, temperature: float) -> None:
    if uniforms.ndim != 5 or uniforms.dtype != torch.float64 or uniforms.shape[1] not in (1, 3):
        raise ShapeError(
            f"uniforms have dtype {uniforms.dtype} and shape {tuple(uniforms.shape)}; they must be float64 "
            "(N, C, H, W, mixtures + 1) of 1 or 3 channels"
        )
    channels = uniforms.shape[1]
    check_params(params, uniforms.shape[:4], uniforms, "uniforms", levels)
    mixtures = params.shape[1] // planes_per_component(channels)
    if uniforms.shape[4] != mixtures + 1:
        raise ShapeError(f"uniforms have {uniforms.shape[4]} draws per number; {mixtures} mixtures take {mixtures + 1}")
    if not (math.isfinite(temperature) and temperature >= 0):
        raise PixelfastError(f"temperature is {temperature!r}; it must be 0 (the mode) or a positive number")


def _triton() -> Any:
    return implementation("pixelfast.kernels.mixture_sample", "mixture_sample", CUDA_REMEDY)


@torch.library.custom_op(
    "pixelfast::mixture_sample",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor params, Tensor uniforms, int levels, float temperature) -> Tensor",
)
def _sample(params: Tensor, uniforms: Tensor, levels: int, temperature: float) -> Tensor:
    return mixture_sample_reference(params, uniforms, levels=levels, temperature=temperature)


@_sample.register_kernel("cuda")
def _(params: Tensor, uniforms: Tensor, levels: int, temperature: float) -> Tensor:
    return _triton().mixture_sample(params, uniforms, levels, temperature)


@_sample.register_fake
def _(params: Tensor, uniforms: Tensor, levels: int, temperature: float) -> Tensor:
    return params.new_empty(uniforms.shape[:4], dtype=torch.int64)
