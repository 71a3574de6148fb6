"""Which backends there are, best first, and which one a program gets."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from ..errors import BackendError
from ..likelihoods import Likelihood
from ..program import Program

ORDER = ("cpu", "reference")
_CLASSES = {"cpu": ("cpu", "CpuBackend"), "reference": ("reference", "ReferenceBackend")}


def backend_class(name: str) -> Any:
    """Imports a backend; the compiled extension is needed only by those that use it."""
    if name not in _CLASSES:
        raise BackendError(f"backend {name!r} is unknown; there are {', '.join(map(repr, ('auto', *ORDER)))}")
    module, attribute = _CLASSES[name]
    try:
        return getattr(importlib.import_module(f".{module}", __package__), attribute)
    except ImportError as error:
        raise BackendError(
            f"backend {name!r} cannot be loaded: {error}; reinstall pixelfast with a C++ compiler"
        ) from error


def choose(name: str, program: Program, likelihood: Likelihood, dtype: torch.dtype) -> tuple[Any, dict[str, list[str]]]:
    """The backend class, and why better ones were passed over. A backend named explicitly never falls back."""
    refused: dict[str, list[str]] = {}
    for candidate in ORDER if name == "auto" else (name,):
        try:
            found = backend_class(candidate)
            reasons = found.unsupported_reasons(program, likelihood, dtype)
        except BackendError as error:
            if name != "auto":
                raise
            reasons = [str(error)]
        if not reasons:
            return found, refused
        refused[candidate] = reasons
    text = "; ".join(f"{candidate}: {reason}" for candidate, reasons in refused.items() for reason in reasons)
    raise BackendError(f"no backend can run this program in {dtype}: {text}")
