"""What an installed package promises: names, metadata, files, and a build that needs no torch."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import metadata, resources
from pathlib import Path

import pixelfast
import pixelfast.kernels

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())


def test_version_is_the_installed_one() -> None:
    assert metadata.version("pixelfast") == pixelfast.__version__


def test_version_is_in_the_changelog() -> None:
    assert f"## {pixelfast.__version__}" in (REPOSITORY / "CHANGELOG.md").read_text()


def test_kernels_are_a_subpackage() -> None:
    assert Path(pixelfast.kernels.__file__).resolve() == REPOSITORY / "kernels" / "__init__.py"
    assert "kernels" not in metadata.packages_distributions()


def test_typed_marker_is_installed() -> None:
    assert resources.files("pixelfast").joinpath("py.typed").is_file()


def test_build_needs_no_torch() -> None:
    names = {requirement.split(">")[0] for requirement in PROJECT["build-system"]["requires"]}
    assert names == {"setuptools", "pybind11"}
    assert "torch" not in (REPOSITORY / "setup.py").read_text().replace("torch-free", "")


def test_torch_has_no_upper_cap() -> None:
    torch = next(name for name in PROJECT["project"]["dependencies"] if name.startswith("torch"))
    assert "<" not in torch and "==" not in torch


def test_pins_satisfy_the_project() -> None:
    pins = dict(
        line.split("==")
        for line in (REPOSITORY / "constraints" / "cpu.txt").read_text().splitlines()
        if "==" in line
    )
    assert set(pins) == {"torch", "triton"}
    assert tuple(map(int, pins["torch"].split(".")[:2])) >= (2, 10)


def test_import_changes_nothing_global() -> None:
    """In a fresh interpreter: torch's settings, its seed and the optional packages loaded stay."""
    check = """
import sys, torch

def state():
    optional = {"triton", "matplotlib", "tensorboard", "ray", "huggingface_hub", "PIL"} & set(sys.modules)
    modes = torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()
    return optional, modes, torch.initial_seed()

before = state()
import pixelfast
assert state() == before, (before, state())
"""
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_exactly_one_openmp_runtime() -> None:
    """Two OpenMP runtimes in one process make every parallel region a hundred times slower."""
    check = """
import importlib.util
import torch, pixelfast
if importlib.util.find_spec("pixelfast._C"):
    import pixelfast._C
mapped = open("/proc/self/maps").read().split()
print(len({path for path in mapped if any(name in path for name in ("libgomp", "libiomp", "libomp"))}))
"""
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.stdout.strip() == "1", done.stdout + done.stderr
