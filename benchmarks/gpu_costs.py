"""What a sampler on an NVIDIA GPU has to reckon with, measured: launches, barriers, handovers, reading, small products.

    python benchmarks/gpu_costs.py [--save benchmarks/results/gpu-costs.json]

Compiles the CUDA C++ in `benchmarks/gpu_costs/` with nvcc and runs it; takes a few minutes at most. It needs a GPU of
compute capability 9.0, for clusters. Times are nanoseconds: of one graph node or launch, of one barrier, of one
handover of 320 bfloat16, of one product (batch, K) x (K, 320) without a handover.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from pixelfast.bench.versions import versions

SOURCES = Path(__file__).resolve().with_suffix("")
CAPABILITY = "9.0"
FLAGS = ("-std=c++17", "-O3", "-gencode=arch=compute_90a,code=sm_90a")
SECONDS = 600
"""The measurements may not take longer."""


def device() -> dict[str, str]:
    """The first GPU's name, driver and compute capability; ends the program with one line where there is none."""
    fields = ("name", "driver_version", "compute_cap", "clocks.max.sm")
    command = ["nvidia-smi", "-i", "0", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SystemExit(f"no NVIDIA GPU can be used here: nvidia-smi does not run ({error})") from None
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip() or f"status {done.returncode}"
        raise SystemExit(f"no NVIDIA GPU can be used here: nvidia-smi says {said.splitlines()[0]!r}")
    found = dict(zip(("device", "driver", "capability", "clock"), done.stdout.strip().split(", "), strict=True))
    if found["capability"] != CAPABILITY:
        raise SystemExit(f"{found['device']} has compute capability {found['capability']}; {CAPABILITY} is needed")
    return found


def compiler() -> str:
    """nvcc; ends the program with one line where it is missing."""
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    found = shutil.which("nvcc") or shutil.which("nvcc", path=str(Path(home) / "bin"))
    if found is None:
        raise SystemExit("nvcc was not found: install the CUDA toolkit, or set CUDA_HOME to where it is")
    return found


def build(nvcc: str, folder: Path) -> Path:
    """The program that measures; ends with the compiler's messages where they are errors."""
    program = folder / "gpu_costs"
    sources = [str(path) for path in sorted(SOURCES.glob("*.cu"))]
    done = subprocess.run([nvcc, *FLAGS, "-o", str(program), *sources], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"nvcc cannot compile {SOURCES}:\n{done.stdout}{done.stderr}")
    return program


def measure(program: Path) -> list[dict[str, Any]]:
    """What the program printed; ends with its own line where it failed."""
    try:
        done = subprocess.run([str(program)], capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise SystemExit(f"the measurements did not end within {SECONDS} s; nothing was written") from None
    if done.returncode != 0:
        raise SystemExit(f"the measurements failed, nothing was written: {done.stderr.strip()}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def line(row: dict[str, Any]) -> str:
    """One measurement as text."""
    setting = ", ".join(f"{key} {value}" for key, value in row.items() if key in ("blocks", "batch", "k", "mebibytes"))
    if "ns" in row:
        figure = f"{row['ns']:10.0f} ns"
    elif "bytes_per_second" in row:
        figure = f"{row['bytes_per_second'] / 1e12:10.2f} TB/s"
    else:
        figure = f"{row['count']:10d}"
    return f"{row['measurement']:36}{setting:32}{figure}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", type=Path, help="write what was measured to this JSON file")
    args = parser.parse_args(arguments)
    if args.save and not args.save.parent.is_dir():
        raise SystemExit(f"{args.save.parent} is no folder; nothing was measured")
    gpu, nvcc = device(), compiler()
    print(f"{gpu['device']}, driver {gpu['driver']}, at most {gpu['clock']}")
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(build(nvcc, Path(folder)))
    for row in rows:
        print(line(row))
    if args.save:
        args.save.write_text(json.dumps({**versions(), **gpu, "rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
