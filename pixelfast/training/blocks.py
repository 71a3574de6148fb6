"""The blocks that a large decoder repeats: the units that are sharded and recomputed."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """Members of module lists that are made of parts, but not of further lists."""
    return [
        member
        for module in model.modules()
        if isinstance(module, nn.ModuleList)
        for member in module
        if any(True for _ in member.children())
        and not any(isinstance(part, nn.ModuleList) for part in member.modules())
    ]


def recompute_blocks(model: nn.Module) -> None:
    """From now on each block keeps its inputs only, and runs once more in the backward pass.

    The noise of dropout is the same in both runs. Names of parameters stay what they are.
    """
    for block in repeated_blocks(model):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
