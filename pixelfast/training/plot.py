"""The loss of a run as a picture. matplotlib is needed here and nowhere else in training."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

FIELDS = {
    "bits_per_dim": "training",
    "validation_bits_per_dim": "validation, averaged weights",
    "test_bits_per_dim": "whole test set",
}
SHOWN_ABOVE_LEAST = 1.0
"""Bits above the lowest value that the picture shows at most: the first steps would flatten everything else."""


def can_plot() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def loss_plot(title: str, lines: Sequence[Mapping[str, Any]]) -> bytes:
    """A PNG of the log's lines: bits per dimension against optimiser steps."""
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained", dpi=150)
    axes = figure.subplots()
    least, most = float("inf"), float("-inf")
    for name, label in FIELDS.items():
        points = [(line["step"], line[name]) for line in lines if name in line]
        if points:
            steps, values = zip(*points, strict=True)
            marker = "" if name == "bits_per_dim" else "o"
            axes.plot(steps, values, label=label, marker=marker, markersize=3, linewidth=1)
            least, most = min(least, *values), max(most, *values)
    if most > least:
        axes.set_ylim(top=min(most, least + SHOWN_ABOVE_LEAST))
    axes.set(title=title, xlabel="step", ylabel="bits per dimension")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()
