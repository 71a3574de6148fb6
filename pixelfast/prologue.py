"""Runs what depends on the condition alone: recorded calls, replayed in torch, one image at a time."""

from __future__ import annotations

import numpy as np
import torch

from .replay import float_kind, replay_call
from .simplify import Prologue


def run_prologue(
    prologue: Prologue, tensors: list[torch.Tensor], sizes: dict[int, tuple[int, int]]
) -> dict[int, np.ndarray]:
    """Values (sites, channels) in float64 that the program reads, for one image.

    tensors: the condition's tensors with a leading axis of 1. sizes: (sites, channels) of each captured value.
    One thread, so that no result depends on how many there are.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            return _replay(prologue, tensors, sizes)
    finally:
        torch.set_num_threads(threads)


def _replay(
    prologue: Prologue, tensors: list[torch.Tensor], sizes: dict[int, tuple[int, int]]
) -> dict[int, np.ndarray]:
    flats: dict[int, torch.Tensor] = {}
    for name, ref in prologue.inputs.items():
        if name != "x":
            flat = torch.zeros(prologue.numel[ref.storage], dtype=float_kind(ref.dtype, torch.float64))
            ref.of(flat).copy_(tensors[int(name.split("/")[1])])
            flats[ref.storage] = flat
    captured: dict[int, np.ndarray] = {}
    for what, item in prologue.steps:
        if what == "constant":
            flats[item[0]] = item[1].clone()
        elif what == "call":
            replay_call(item, flats, prologue.numel, torch.float64)
        else:
            value, ref = item
            sites, channels = sizes[value]
            data = ref.of(flats[ref.storage]).to(torch.float64).reshape(channels, sites).numpy()
            captured[value] = np.ascontiguousarray(data.T)
    return captured
