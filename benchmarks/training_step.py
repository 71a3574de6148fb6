"""A training step with the fused operations, in eager torch and under torch.compile: time and peak memory.

    python benchmarks/training_step.py [--model pixelcnnpp|gated-pixelcnn] [--batch-size N] [--steps N] [--save FILE]

A step is the forward pass, the loss, the backward pass and the optimizer. "eager" is the model in plain torch with the
likelihood's log_prob as its loss, "compile" the same under torch.compile. Steps of the three take turns, so that other
work on the machine falls on all alike; the median of each counts, in seconds and in processor seconds of all threads.
Memory, in processes of their own: the most that a step's tensors take beyond weights, gradients and the optimizer's
state (gradients are taken and given back in every step), and what the process's resident memory grows by, which holds
the working memory of kernels, too, and what the allocator does not give back.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixelfast import _C
from pixelfast.bench.memory import peak_bytes
from pixelfast.bench.quiet import doubts, load
from pixelfast.bench.versions import versions
from pixelfast.machine import measure
from pixelfast.models import registry
from pixelfast.models.fused import plain_torch
from pixelfast.training.evaluate import network_input
from pixelfast.training.recipes import find_recipe

WAYS = ("eager", "compile", "fused")
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "pixelcnnpp": ("pixelcnn_plus_plus", {"filters": 40}),
    "gated-pixelcnn": ("gated_pixelcnn", dict(find_recipe("gated-pixelcnn-mnist").config)),
}


def create(name: str, batch_size: int) -> tuple[Any, Tensor]:
    """The model in training mode and a batch of random images (N, C, H, W) of levels."""
    torch.manual_seed(0)
    kind, config = MODELS[name]
    model: Any = registry.create(kind, **config).train()
    return model, torch.randint(0, model.likelihood.levels, (batch_size, *model.shape))


def make_step(way: str, model: Any, images: Tensor) -> Callable[[], Tensor]:
    """One step of a way of WAYS; it returns the loss, in nats per image."""
    x = network_input(model, images)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def plain_loss() -> Tensor:
        with plain_torch():
            log_prob = model.likelihood.log_prob(model(x), images)
        return -log_prob.sum() / len(images)

    def fused_loss() -> Tensor:
        return model.likelihood.loss(model(x), images)

    loss = {"eager": plain_loss, "compile": torch.compile(plain_loss), "fused": fused_loss}[way]

    def step() -> Tensor:
        nats = loss()
        nats.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return nats.detach()

    return step


def time_steps(name: str, batch_size: int, steps: int) -> dict[str, dict[str, float]]:
    """The median step of each way."""
    each = {way: make_step(way, *create(name, batch_size)) for way in WAYS}
    for step in each.values():
        step()
    taken: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for _ in range(steps):
        for way, step in each.items():
            wall, processor = time.perf_counter(), time.process_time()
            step()
            taken[way].append((time.perf_counter() - wall, time.process_time() - processor))
    medians = {way: [statistics.median(column) for column in zip(*rows, strict=True)] for way, rows in taken.items()}
    return {way: {"seconds": wall, "processor_seconds": processor} for way, (wall, processor) in medians.items()}


def measure_memory(way: str, name: str, batch_size: int, threads: int) -> dict[str, int]:
    """Peaks of one step, in bytes; see the module's text. Linux only."""
    torch.set_num_threads(threads)
    step = make_step(way, *create(name, batch_size))
    step()
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    step()
    grown = _resident("VmHWM") - before
    return {"tensor_bytes": peak_bytes(step), "resident_bytes": grown}


def _resident(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))


def compare(name: str, batch_size: int, steps: int) -> dict[str, dict[str, float]]:
    """Times and memory of each way."""
    figures = time_steps(name, batch_size, steps)
    for way in WAYS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            figures[way].update(pool.apply(measure_memory, (way, name, batch_size, torch.get_num_threads())))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, action="append", help="default: both")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--save", type=Path, help="write what was measured to this JSON file")
    args = parser.parse_args()
    before, loads = measure(), [load()]
    results = []
    for name in args.model or MODELS:
        figures = compare(name, args.batch_size, args.steps)
        loads.append(load())
        results.append({"model": name, "batch_size": args.batch_size, "threads": torch.get_num_threads(), **figures})
        print(f"{name}, batch {args.batch_size}, {torch.get_num_threads()} threads, {_C.available_isas()[0]}")
        for way, row in figures.items():
            tensors, resident = (row[key] / 2**20 for key in ("tensor_bytes", "resident_bytes"))
            ratios = " ".join(f"{value / figures['fused'][key]:.2f}" for key, value in row.items())
            print(
                f"  {way:8}{row['seconds']:8.3f} s {row['processor_seconds']:8.3f} s of processor "
                f"{tensors:7.0f} MiB of tensors {resident:7.0f} MiB resident; over fused {ratios}",
                flush=True,
            )
    after = measure()
    reasons = doubts(before, after, loads, [])
    for reason in reasons:
        print(f"doubt: {reason}")
    if args.save:
        machine = {**asdict(before.best(after)), "isa": _C.available_isas()[0], "doubts": reasons}
        found = {**versions(), "machine": machine, "results": results}
        args.save.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
