"""The mixture loss on the CPU, by the C++ extension. Tensors may have any strides."""

from __future__ import annotations

from typing import Any

import torch  # before the extension, which then shares torch's OpenMP threads
from torch import Tensor

from pixelfast import _C

from .mixture_loss_reference import planes_per_component

_INTEGERS = (torch.uint8, torch.int32, torch.int64)


def mixture_nll(params: Tensor, x: Tensor, levels: int) -> Tensor:
    """(N, H, W), see `pixelfast.ops.mixture_nll`."""
    dtype = torch.float64 if params.dtype == torch.float64 else torch.float32
    nats = torch.empty((x.shape[0], *x.shape[2:]), dtype=dtype)
    images = _integers(x)
    _C.mixture_loss(**_arguments(params, images, levels), nats=_memory(nats.unsqueeze(1)))
    return nats


def mixture_nll_backward(upstream: Tensor, params: Tensor, x: Tensor, levels: int) -> Tensor:
    """Gradient with respect to `params`, given that with respect to the result."""
    gradient = torch.empty_like(params)
    images = _integers(x)
    _C.mixture_loss_gradient(
        **_arguments(params, images, levels), nats_gradient=_memory(upstream.unsqueeze(1)), gradient=_memory(gradient)
    )
    return gradient


def _arguments(params: Tensor, x: Tensor, levels: int) -> dict[str, Any]:
    return {
        "shape": tuple(x.shape),
        "mixtures": params.shape[1] // planes_per_component(x.shape[1]),
        "levels": levels,
        "params": _memory(params),
        "x": _memory(x),
        "threads": torch.get_num_threads(),
    }


def _integers(x: Tensor) -> Tensor:
    """Of a dtype that the kernels read; the caller keeps it alive while they do."""
    return x if x.dtype in _INTEGERS else x.to(torch.int64)


def _memory(tensor: Tensor) -> tuple[int, str, tuple[int, ...]]:
    return tensor.data_ptr(), str(tensor.dtype).removeprefix("torch."), tensor.stride()
