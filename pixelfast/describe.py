"""A program as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from .program import Kernel, Program


def describe_program(
    program: Program, backend: str, dtype: torch.dtype, refused: Mapping[str, Sequence[str]], notes: Sequence[str]
) -> str:
    """One line per kernel: where it comes from, its sites, how many tasks run it, its contraction and what follows."""
    channels, height, width = program.shape
    tasks = np.bincount(program.tasks[:, 1], minlength=len(program.kernels))
    rows = np.bincount(program.tasks[:, 1], weights=program.tasks[:, 3], minlength=len(program.kernels))
    attended = program.attended_bytes_per_image()
    kept = f", {attended / 1e6:.2f} MB of them keys and values" if attended else ""
    lines = [
        f"program for {channels} x {height} x {width} images, backend {backend}, {str(dtype).removeprefix('torch.')}",
        f"{len(program.kernels)} kernels, {len(program.tasks)} tasks, {program.flops / 1e9:.3f} GFLOP and "
        f"{program.bytes_per_image() / 1e6:.2f} MB of float32 activations per image{kept}",
        f"fingerprint {program.fingerprint()}",
    ]
    lines += [f"not on {name}: {reason}" for name, reasons in refused.items() for reason in reasons]
    lines += [f"note: {note}" for note in notes]
    lines += [_kernel_line(program, i, k, int(tasks[i]), int(rows[i])) for i, k in enumerate(program.kernels)]
    return "\n".join(lines)


def _kernel_line(program: Program, number: int, kernel: Kernel, tasks: int, rows: int) -> str:
    parts = []
    if kernel.contraction is not None:
        inputs = sum(len(t.weight) for t in kernel.contraction.terms)
        parts.append(f"{len(kernel.contraction.terms)} terms, {inputs} -> {kernel.contraction.out_channels}")
    if kernel.attention is not None:
        attention = kernel.attention
        widths = f"{attention.keys.width} and {attention.values.width}"
        parts.append(f"attention, {attention.first[-1]} pairs, {attention.heads} x {widths}")
    parts += [i.op.removeprefix("aten.").split(".")[0] for i in kernel.instructions]
    stores = ", ".join(f"{s.count} to {program.buffers[s.buffer].slots} slots" for s in kernel.stores)
    return f"  k{number}: {rows} sites in {tasks} tasks: {'; '.join(parts)} -> {stores}  # {kernel.name}"
