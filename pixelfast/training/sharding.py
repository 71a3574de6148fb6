"""Models whose parameters are shards over all processes, by PyTorch's fully_shard (FSDP2).

Importing this costs most of a second, so it is done where a run is sharded and nowhere else.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from pixelfast.training.blocks import repeated_blocks


def shard(model: nn.Module, device: torch.device) -> None:
    """Turns the parameters into shards, gathered block by block when they are needed."""
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for block in repeated_blocks(model):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def gathered(tensor: Tensor) -> Tensor:
    """A tensor whole; every process has to ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def laid_out_as(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor as shards like a parameter's, where that is sharded and of the same shape."""
    if isinstance(parameter, DTensor) and tensor.shape == parameter.shape:
        return distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)
    return tensor
