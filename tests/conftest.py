"""Fixtures and settings of all tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import hypothesis
import pytest
import torch
from shared_data import shared_file as find_shared_file

# Networks drawn at random take unequal times on a busy machine: a deadline would measure the machine.
hypothesis.settings.register_profile("pixelfast", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("pixelfast")


@pytest.fixture(scope="session", autouse=True)
def kernels_only_as_subpackage() -> Iterator[None]:
    """`kernels/` is `pixelfast.kernels`: a second identity would define every kernel twice."""
    assert "kernels" not in sys.modules
    yield
    assert "kernels" not in sys.modules, "a test or module imported `kernels` instead of `pixelfast.kernels`"


@pytest.fixture
def shared_file() -> Callable:
    """`shared_data.shared_file` as a fixture."""
    return find_shared_file


@pytest.fixture
def torch_threads() -> Iterator[Callable[[int], None]]:
    """torch.set_num_threads for one test; the number before it is restored."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
