"""Loading the module that implements an operation on a device, when it is first needed there."""

from __future__ import annotations

import importlib
from types import ModuleType

from pixelfast.errors import BackendError

CPU_REMEDY = "reinstall pixelfast with a C++ compiler"
CUDA_REMEDY = "install triton: pip install 'pixelfast[gpu]'"


def implementation(module: str, operation: str, remedy: str) -> ModuleType:
    """Imports `module`: neither the compiled extension nor triton is needed by those who do not use it.

    Raises:
        BackendError: it cannot be imported; the message says what to do.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BackendError(f"{operation} cannot run here: {error}; {remedy}, or use {operation}_reference") from error
