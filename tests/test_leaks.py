"""Memory stays where it is over a thousand calls."""

from __future__ import annotations

import gc
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import pixelfast

STATM = Path("/proc/self/statm")
pytestmark = pytest.mark.skipif(not STATM.exists(), reason="needs /proc to tell how much memory is in use")

ALLOWED = 4 << 20
"""Bytes that the allocator may keep to itself."""


def resident_bytes() -> int:
    gc.collect()
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth(work: Callable[[int], object], calls: int) -> int:
    """Bytes that `calls` calls add, once a tenth of them have been made."""
    for call in range(calls // 10):
        work(call)
    before = resident_bytes()
    for call in range(calls):
        work(call)
    return resident_bytes() - before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_thousand_calls(dtype: torch.dtype) -> None:
    sampler = pixelfast.compile(pixelfast.models.GatedPixelCNN((1, 6, 6), 4, 16, (1, 2)).eval(), dtype=dtype)
    sampler._threads = 2
    x = sampler.sample(2, seed=1)

    def call(number: int) -> None:
        sampler.sample(1 + number % 3, seed=number)
        sampler.params(x)

    assert growth(call, 1000) < ALLOWED


def test_engines_are_freed() -> None:
    model = pixelfast.models.GatedPixelCNN((1, 4, 4), 4, 64, (1, 2)).eval()
    assert growth(lambda _: pixelfast.compile(model), 60) < ALLOWED


def test_a_leak_would_be_noticed() -> None:
    kept: list[mmap.mmap] = []

    def leak(_: int) -> None:
        kept.append(mmap.mmap(-1, ALLOWED // 8))  # memory that no allocator had before
        kept[-1].write(bytes(ALLOWED // 8))

    assert growth(leak, 10) > ALLOWED
