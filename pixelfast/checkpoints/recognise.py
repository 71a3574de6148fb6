"""Which layout a file has, from the names and shapes of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pixelfast.checkpoints.containers import brief
from pixelfast.checkpoints.layouts import openai_tf1, pclucas14, ritheshkumar95, rosinality, taimir, uvadlc
from pixelfast.checkpoints.layouts.base import Layout, Shapes
from pixelfast.checkpoints.native import NAME as NATIVE
from pixelfast.errors import CheckpointError

LAYOUTS: dict[str, Layout] = {
    layout.NAME: layout for layout in (uvadlc, pclucas14, openai_tf1, rosinality, ritheshkumar95, taimir)
}
KNOWN = ", ".join((NATIVE, *LAYOUTS))

DATA_PARALLEL = "module."

Value = TypeVar("Value")


def without_data_parallel(entries: Mapping[str, Value]) -> dict[str, Value]:
    """The entries without the prefix that torch's DataParallel gives to every name."""
    if entries and all(name.startswith(DATA_PARALLEL) for name in entries):
        return {name.removeprefix(DATA_PARALLEL): value for name, value in entries.items()}
    return dict(entries)


def recognise(shapes: Shapes) -> Layout:
    """The one foreign layout with these names and shapes; CheckpointError when there is none."""
    for layout in LAYOUTS.values():
        if layout.recognises(shapes):
            return layout
    first = brief(next(iter(shapes), "none"))
    raise CheckpointError(f"{len(shapes)} tensors (the first: {first}) of no known layout; known are {KNOWN}")


def by_name(name: str) -> Layout:
    """A foreign layout by its name."""
    if name not in LAYOUTS:
        raise CheckpointError(f"unknown layout {name!r}; known are {KNOWN}")
    return LAYOUTS[name]
