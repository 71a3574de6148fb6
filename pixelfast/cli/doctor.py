"""pixelfast doctor: what this installation has and what its backends can do, on one page."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
from importlib import metadata

import torch

import pixelfast
from pixelfast import shipped
from pixelfast.backends import registry
from pixelfast.errors import BackendError
from pixelfast.machine import processor_name

PACKAGES = ("torch", "numpy", "safetensors", "Pillow", "tqdm")
FORCE_ISA = "PIXELFAST_ISA"
OPTIONAL = ("triton", "huggingface_hub", "tensorboard", "matplotlib", "ray")


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("doctor", help="one page about this installation", description=__doc__)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    for name, value in report():
        print(f"{name:<20}{value}")


def report() -> list[tuple[str, str]]:
    """The page as (name, value) lines."""
    return [
        ("pixelfast", f"{pixelfast.__version__}, {os.path.dirname(pixelfast.__file__)}"),
        ("python", f"{platform.python_version()}, {sys.executable}"),
        ("packages", ", ".join(_version(name) or f"{name} missing" for name in PACKAGES)),
        ("optional", ", ".join(found for name in OPTIONAL if (found := _version(name))) or "none"),
        ("processor", f"{processor_name()}, {os.cpu_count()} cores"),
        ("torch threads", str(torch.get_num_threads())),
        ("GPU", torch.cuda.get_device_name() if torch.cuda.is_available() else "none"),
        ("instruction sets", _instruction_sets()),
        *((f"backend {name}", _backend(name)) for name in registry.ORDER),
        ("shipped models", ", ".join(shipped.names()) or "none"),
    ]


def _instruction_sets() -> str:
    """What the extension can use on this processor, best first, and whether one is forced."""
    try:
        extension = importlib.import_module("pixelfast._C")
    except ImportError as error:
        return f"none, the extension is not built or cannot be loaded: {error}"
    available = extension.available_isas()
    forced = os.environ.get(FORCE_ISA)
    choice = f"{FORCE_ISA}={forced}" if forced else f"{FORCE_ISA} not set"
    if forced and forced not in available:
        choice += ", which this processor lacks"
    return f"{', '.join(available)} ({choice})"


def _backend(name: str) -> str:
    try:
        registry.backend_class(name)
    except BackendError as error:
        return f"no: {error}"
    return "yes"


def _version(name: str) -> str | None:
    try:
        return f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return None
