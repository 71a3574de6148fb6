"""Strict comparison of the tensors a file has with those a model needs."""

from __future__ import annotations

from collections.abc import Mapping

from pixelfast.checkpoints.containers import brief
from pixelfast.errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]


def check_shapes(given: Shapes, needed: Shapes) -> None:
    """CheckpointError listing what is missing, unused or of another shape; nothing when all is equal."""
    missing = [name for name in needed if name not in given]
    unused = [name for name in given if name not in needed]
    wrong = [
        f"{name} {given[name]} instead of {shape}"
        for name, shape in needed.items()
        if name in given and given[name] != shape
    ]
    problems = [
        f"{label}: {_some(names)}"
        for label, names in (("missing", missing), ("unused", unused), ("wrong shape", wrong))
        if names
    ]
    if problems:
        raise CheckpointError("; ".join(problems))


def _some(names: list[str]) -> str:
    shown = ", ".join(brief(name) for name in names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"
