"""What this machine can do at most, measured: arithmetic and reading."""

from __future__ import annotations

import functools
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

MATRIX = 2048
CACHED_BYTES = 8 << 20
UNCACHED_BYTES = 256 << 20
SECONDS = 1.0


@dataclass(frozen=True)
class Machine:
    """Rates with torch's present number of threads.

    flops: multiply-adds x 2 per second in float32, of a square matrix product in torch.
    bf16_flops, int8_flops: the same in bfloat16 and of 8-bit integers, or the rate of the wider type where that is
        more: a processor without such arithmetic can widen.
    cache_bandwidth, memory_bandwidth: bytes read per second, of 8 MiB again and again, and of 256 MiB.
    """

    name: str
    threads: int
    flops: float
    bf16_flops: float
    int8_flops: float
    cache_bandwidth: float
    memory_bandwidth: float

    def flops_in(self, dtype: torch.dtype) -> float:
        """Multiply-adds x 2 per second in a dtype. float32's stand for wider types, which are never faster."""
        return {torch.bfloat16: self.bf16_flops, torch.int8: self.int8_flops}.get(dtype, self.flops)

    def best(self, other: Machine) -> Machine:
        """The higher of each rate of two measurements: what else runs on a machine only ever lowers them."""
        return replace(
            self,
            flops=max(self.flops, other.flops),
            bf16_flops=max(self.bf16_flops, other.bf16_flops),
            int8_flops=max(self.int8_flops, other.int8_flops),
            cache_bandwidth=max(self.cache_bandwidth, other.cache_bandwidth),
            memory_bandwidth=max(self.memory_bandwidth, other.memory_bandwidth),
        )

    def __str__(self) -> str:
        return (
            f"{self.name}, {self.threads} threads: {self.flops / 1e9:.0f} GFLOP/s float32, "
            f"{self.bf16_flops / 1e9:.0f} bfloat16, {self.int8_flops / 1e9:.0f} int8, "
            f"{self.cache_bandwidth / 1e9:.0f} GB/s from cache, {self.memory_bandwidth / 1e9:.0f} GB/s from memory"
        )


def measure(seconds: float = SECONDS) -> Machine:
    """Measure this machine, each rate for about `seconds`. Best of many repetitions: limits, not averages."""
    flops = product_rate(torch.float32, seconds)
    bf16_flops = max(flops, product_rate(torch.bfloat16, seconds))
    return Machine(
        name=processor_name(),
        threads=torch.get_num_threads(),
        flops=flops,
        bf16_flops=bf16_flops,
        int8_flops=max(bf16_flops, integer_product_rate(seconds)),
        cache_bandwidth=reading_rate(CACHED_BYTES, seconds),
        memory_bandwidth=reading_rate(UNCACHED_BYTES, seconds),
    )


@functools.cache
def measured_quickly() -> Machine:
    """A measurement of about a second, made once per process: good to a few per cent on a quiet machine."""
    return measure(0.15)


def product_rate(dtype: torch.dtype, seconds: float = SECONDS) -> float:
    """Multiply-adds x 2 per second of a square matrix product."""
    return 2 * MATRIX**3 / fastest(product(dtype), seconds)


def product(dtype: torch.dtype) -> Callable[[], object]:
    """A square matrix product to be timed."""
    left, right = (torch.randn(MATRIX, MATRIX).to(dtype) for _ in range(2))
    out = torch.empty(MATRIX, MATRIX, dtype=dtype)
    return lambda: torch.mm(left, right, out=out)


def integer_product_rate(seconds: float = SECONDS) -> float:
    """The same of 8-bit integers with 32-bit sums. torch has no public function for it."""
    left, right = (torch.randint(-127, 128, (MATRIX, MATRIX), dtype=torch.int8) for _ in range(2))
    return 2 * MATRIX**3 / fastest(lambda: torch._int_mm(left, right), seconds)


def reading_rate(size: int, seconds: float = SECONDS) -> float:
    """Bytes per second of reading `size` bytes of float32 again and again."""
    values = torch.randn(size // 4)
    # A maximum keeps the processor busier with loads than any other reduction in torch.
    return size / fastest(lambda: values.amax(), seconds)


def fastest(work: Callable[[], object], seconds: float = SECONDS) -> float:
    """Seconds of the fastest of the repetitions that fit into `seconds`, the first one left out."""
    work()
    best = float("inf")
    end = time.perf_counter() + seconds
    while True:
        start = time.perf_counter()
        work()
        stop = time.perf_counter()
        best = min(best, stop - start)
        if stop >= end:
            return best


def processor_name() -> str:
    """The processor as the operating system names it."""
    listed = Path("/proc/cpuinfo")
    if listed.exists():
        for line in listed.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
