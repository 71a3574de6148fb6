"""Triton kernels without a GPU: compiled ahead of time for one, and run on CPU tensors by Triton's interpreter.

Neither shows that a kernel is right and fast on a GPU: the first shows that it compiles and what it takes there, the
second, in float32 and float64, that it computes the right thing.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

CAPABILITIES = (80, 90)
"""Compute capabilities that kernels are compiled for: A100, H100 and H200."""


class Resources(NamedTuple):
    """Of one thread: registers, and bytes of memory for what did not fit into them."""

    registers: int
    spilled: int


def compile_ahead(
    kernel: Any,
    arguments: Mapping[str, str],
    constants: Mapping[str, Any],
    capability: int,
    warps: int = 4,
    undivided: Sequence[str] = (),
    **options: Any,
) -> Resources:
    """Compile a kernel to machine code for a GPU.

    Args:
        kernel: a function under `triton.jit`.
        arguments: type of each argument that is not a constant, as Triton writes them: "*bf16", "i32", "fp32".
        constants: values of `tl.constexpr` arguments, and of integers that are 1, as the launcher passes those.
        capability: compute capability, 90 for 9.0.
        warps: of one program.
        undivided: arguments that are not multiples of 16. The launcher looks at each pointer and integer and tells the
            compiler; registers depend on it.
        options: further options of Triton's compiler.

    Skips the test where Triton is missing or its interpreter is on.
    """
    triton = pytest.importorskip("triton")
    if os.environ.get("TRITON_INTERPRET", "0") == "1":
        pytest.skip("TRITON_INTERPRET is set: kernels cannot be compiled in this process")
    names = kernel.arg_names
    assert set(names) == set(arguments) | set(constants), "every argument of the kernel needs a type or a value"
    signature = {name: "constexpr" if name in constants else arguments[name] for name in names}
    divided = [i for i, name in enumerate(names) if name in arguments and name not in undivided]
    attributes = {(i,): [["tt.divisibility", 16]] for i in divided if not arguments[names[i]].startswith(("fp", "bf"))}
    source = triton.compiler.ASTSource(kernel, signature, dict(constants), attributes)
    target = triton.backends.compiler.GPUTarget("cuda", capability, 32)
    compiled = triton.compile(source, target=target, options={"num_warps": warps, **options})
    return resources(compiled.asm["cubin"], Path(triton.__file__).parent / "backends" / "nvidia" / "bin")


def resources(cubin: bytes, tools: Path) -> Resources:
    """What a kernel's machine code takes, as the disassembler in Triton's package says."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        command = [str(tools / "cuobjdump"), "-res-usage", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", done.stdout)}
    return Resources(found["REG"], found["STACK"] + found["LOCAL"])


SCRIPT = """
import importlib, sys, torch
exec(sys.argv[3])
calls = torch.load(sys.argv[1], weights_only=True)
results = [getattr(importlib.import_module(module), name)(*arguments) for module, name, arguments in calls]
torch.save(results, sys.argv[2])
"""


def interpret(calls: Sequence[tuple[str, str, tuple[Any, ...]]], folder: Path, before: str = "") -> list[Any]:
    """Call functions that launch Triton kernels, on CPU tensors, in a process of Triton's interpreter.

    The interpreter has to be on before a kernel is defined, and stays on: hence a process of its own.

    Args:
        calls: (module, function, arguments) of each; arguments are tensors and numbers, strides are kept.
        folder: for the files through which arguments and results go.
        before: Python statements to run first, say to take larger blocks: the interpreter's time is that of the number
            of programs, not of their size.

    Returns:
        What the functions returned. Skips the test where Triton is missing.
    """
    pytest.importorskip("triton")
    given, returned = folder / "calls.pt", folder / "results.pt"
    torch.save([tuple(call) for call in calls], given)
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(given), str(returned), before],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return torch.load(returned, weights_only=True)
