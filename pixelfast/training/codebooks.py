"""Codebooks between steps: what all pieces of a batch have shown them, summed over processes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pixelfast.models.vector_quantizer import Seen, VectorQuantizer
from pixelfast.training.distribution import Processes


def forget(model: nn.Module) -> None:
    """Drops what forwards outside of steps have shown."""
    for quantizer in _codebooks(model):
        quantizer.take_seen()


def update_codebooks(model: nn.Module, mine: Sequence[int], pieces: int, processes: Processes) -> None:
    """Every codebook learns from the step that has just been taken; every process has to call it.

    mine: the pieces of the batch that this process ran, in their order. The outcome depends on how the batch is cut
    into pieces, and not on which process ran them: a dead code k starts anew from piece k % pieces.
    """
    for quantizer in _codebooks(model):
        seen = quantizer.take_seen()
        if not seen:  # a frozen autoencoder
            continue
        total = [
            sum(parts[1:], parts[0]) for parts in (tuple(one.counts for one in seen), tuple(one.sums for one in seen))
        ]
        turn = torch.arange(quantizer.codes, device=total[0].device) % pieces
        candidates = torch.zeros_like(seen[0].candidates)
        for piece, one in zip(mine, seen, strict=True):
            candidates += torch.where(turn[:, None] == piece, one.candidates, 0)
        quantizer.update(Seen(*(processes.sum(part) for part in (*total, candidates))))


def has_parameters_as_codebooks(model: nn.Module) -> bool:
    """Whether some codebook is a parameter, and not an average."""
    return any(isinstance(quantizer.vectors, nn.Parameter) for quantizer in _codebooks(model))


def _codebooks(model: nn.Module) -> list[VectorQuantizer]:
    return [module for module in model.modules() if isinstance(module, VectorQuantizer)]
