"""The loss of a run as a picture. matplotlib is needed here and nowhere else in training."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

LABELS = {"": "training", "validation_": "validation, averaged weights", "test_": "whole test set"}
SHOWN_ABOVE_LEAST = 1.0
"""Units above the lowest value that the picture shows at most: the first steps would flatten everything else."""


def can_plot() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def field_of(unit: str) -> str:
    """A unit as the log names it: "bits/dim" is bits_per_dim."""
    return unit.replace("/", "_per_").replace(" ", "_")


def loss_plot(title: str, unit: str, lines: Sequence[Mapping[str, Any]]) -> bytes:
    """A PNG of the log's lines: the loss against optimiser steps."""
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained", dpi=150)
    axes = figure.subplots()
    least, most = float("inf"), float("-inf")
    for of, label in LABELS.items():
        name = of + field_of(unit)
        points = [(line["step"], line[name]) for line in lines if name in line]
        if points:
            steps, values = zip(*points, strict=True)
            marker = "o" if of else ""
            axes.plot(steps, values, label=label, marker=marker, markersize=3, linewidth=1)
            least, most = min(least, *values), max(most, *values)
    if most > least:
        axes.set_ylim(top=min(most, least + SHOWN_ABOVE_LEAST))
    axes.set(title=title, xlabel="step", ylabel=unit)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()
