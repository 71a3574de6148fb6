"""Compiling for a backend by name, in tests that go through all of them."""

from __future__ import annotations

from typing import Any

import pytest

import pixelfast
from pixelfast.backends.registry import backend_class
from pixelfast.errors import BackendError


def compile_or_skip(model: Any, backend: str, **arguments: Any) -> pixelfast.Sampler:
    """Skips, with the backend's own reasons, where it cannot run the program.

    A backend that cannot be loaded at all fails the test: every installation has built it.
    """
    backend_class(backend)
    try:
        return pixelfast.compile(model, backend=backend, **arguments)
    except BackendError as error:
        if backend == "reference":
            raise
        pytest.skip(str(error))
