"""The loss of discretized logistic mixtures as one operation, forward and backward one pass each.

On the CPU it is C++ (`csrc/ops_mixture_loss_impl.h`), on a GPU Triton (`kernels/mixture_loss.py`). Nothing is kept for
the backward pass but the arguments: it computes what it needs again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pixelfast.errors import ShapeError

from .implementations import CPU_REMEDY, CUDA_REMEDY, implementation
from .mixture_arguments import check_params
from .mixture_loss_reference import mixture_nll_reference

_DEVICES = ("cpu", "cuda", "meta")


def mixture_nll(params: Tensor, x: Tensor, *, levels: int = 256) -> Tensor:
    """Negative log-likelihood of pixels under a discretized logistic mixture, in nats.

    Salimans et al., "PixelCNN++", ICLR 2017, equations 1 to 3, as `DiscretizedLogisticMixture` describes it. Computed
    in float32, or in float64 for float64 `params`; under autocast too, which does not cast the arguments.
    Differentiable once in `params`; the gradient has their dtype. The same result for any strides and any number of
    threads.

    Args:
        params: (N, 10 M, H, W) for images of three channels, (N, 3 M, H, W) for one; float32, float64, float16 or
            bfloat16, any strides, in the layout of `DiscretizedLogisticMixture`.
        x: integers (N, C, H, W), from 0 to levels - 1.
        levels: at least 2.

    Returns:
        (N, H, W), float32, or float64 for float64 `params`. NaN, with a gradient of NaN, where `x` is not a level.

    Raises:
        ShapeError: shapes or dtypes do not fit.
        BackendError: the device's kernels cannot be loaded. Devices other than CPU and CUDA run plain torch.
    """
    _check(params, x, levels)
    if params.device.type not in _DEVICES:
        return mixture_nll_reference(params, x, levels=levels)
    return torch.ops.pixelfast.mixture_nll(params, x, levels)


def _check(params: Tensor, x: Tensor, levels: int) -> None:
    if x.ndim != 4 or x.shape[1] not in (1, 3) or x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
        raise ShapeError(
            f"x has dtype {x.dtype} and shape {tuple(x.shape)}; it must be integers (N, C, H, W) of 1 or 3 channels"
        )
    check_params(params, x.shape, x, "x", levels)


def _cpu() -> Any:
    return implementation("pixelfast.ops.mixture_loss_cpu", "mixture_nll", CPU_REMEDY)


def _triton() -> Any:
    return implementation("pixelfast.kernels.mixture_loss", "mixture_nll", CUDA_REMEDY)


@torch.library.custom_op(
    "pixelfast::mixture_nll",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor params, Tensor x, int levels) -> Tensor",
)
def _nll(params: Tensor, x: Tensor, levels: int) -> Tensor:
    return _cpu().mixture_nll(params, x, levels)


@torch.library.custom_op(
    "pixelfast::mixture_nll_backward",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor upstream, Tensor params, Tensor x, int levels) -> Tensor",
)
def _nll_backward(upstream: Tensor, params: Tensor, x: Tensor, levels: int) -> Tensor:
    return _cpu().mixture_nll_backward(upstream, params, x, levels)


@_nll.register_kernel("cuda")
def _(params: Tensor, x: Tensor, levels: int) -> Tensor:
    return _triton().mixture_nll(params, x, levels)


@_nll_backward.register_kernel("cuda")
def _(upstream: Tensor, params: Tensor, x: Tensor, levels: int) -> Tensor:
    return _triton().mixture_nll_backward(upstream, params, x, levels)


@_nll.register_fake
def _(params: Tensor, x: Tensor, levels: int) -> Tensor:
    dtype = torch.float64 if params.dtype == torch.float64 else torch.float32
    return params.new_empty((x.shape[0], *x.shape[2:]), dtype=dtype)


@_nll_backward.register_fake
def _(upstream: Tensor, params: Tensor, x: Tensor, levels: int) -> Tensor:
    return torch.empty_like(params)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
    params, x, ctx.levels = inputs
    ctx.save_for_backward(params, x)


def _differentiate(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
    params, x = ctx.saved_tensors
    return torch.ops.pixelfast.mixture_nll_backward(upstream, params, x, ctx.levels), None, None


_nll.register_autograd(_differentiate, setup_context=_save)
