"""The measurements as a picture. matplotlib is needed here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

import numpy as np

from pixelfast.bench.engines import DTYPES
from pixelfast.bench.sampling import Measurement
from pixelfast.bench.sizes import SizeMeasurement
from pixelfast.errors import PixelfastError
from pixelfast.limit import limit_seconds, weight_size
from pixelfast.machine import Machine

POINTS_PER_DOUBLING = 8
MARGIN = 1.2
"""Top of an axis that starts at zero, times the largest value."""


def new_figure() -> Any:
    """An empty figure. Raises PixelfastError where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PixelfastError(f"--plot needs matplotlib ({error}): pip install 'pixelfast[train]'") from error
    return Figure(layout="constrained", dpi=150)


def write_plot(
    stream: BinaryIO,
    title: str,
    rows: Sequence[Measurement],
    sizes: Sequence[SizeMeasurement],
    flops: float,
    weights_read: float,
    machine: Machine,
    attended_bytes: float = 0.0,
) -> None:
    """A PNG: throughput against batch size with each dtype's limit; where there are sizes, time and memory too.

    flops, weights_read, attended_bytes: of one image; see `limit.limit_seconds`. weights_read: how many, not bytes.
    """
    figure = new_figure()
    panels = 3 if sizes else 1
    figure.set_size_inches(6.4 * panels, 4.8)
    figure.suptitle(f"{title}, {machine.name}, {machine.threads} threads", fontsize=10)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    _throughput(
        axes[0],
        rows,
        lambda batches, dtype: roofline(batches, flops, weights_read, machine, dtype, attended_bytes),
    )
    if sizes:
        _time_per_pixel(axes[1], sizes)
        _memory(axes[2], sizes)
    figure.savefig(stream, format="png")


def roofline(
    batches: np.ndarray,
    flops: float,
    weights_read: float,
    machine: Machine,
    dtype: str,
    attended_bytes: float = 0.0,
) -> np.ndarray:
    """The most images per second at each batch size."""
    kind = DTYPES[dtype]
    weight_bytes = weights_read * weight_size(kind)
    limits = [limit_seconds(flops, weight_bytes, batch, machine, kind, attended_bytes) for batch in batches]
    return batches / np.array(limits)


def _throughput(axes: Any, rows: Sequence[Measurement], most: Callable[[np.ndarray, str], np.ndarray]) -> None:
    sizes = sorted({row.batch for row in rows})
    dtypes = list(dict.fromkeys(row.dtype for row in rows))
    colours = {dtype: f"C{i}" for i, dtype in enumerate(dtypes)}
    markers = dict(zip(dict.fromkeys(row.backend for row in rows), "osv^D", strict=False))
    for backend, dtype in dict.fromkeys((row.backend, row.dtype) for row in rows):
        line = sorted(
            (row.batch, row.images_per_second) for row in rows if (row.backend, row.dtype) == (backend, dtype)
        )
        axes.plot(*zip(*line, strict=True), color=colours[dtype], marker=markers[backend], label=f"{backend} {dtype}")
    batches = np.geomspace(1, sizes[-1], 1 + POINTS_PER_DOUBLING * max(1, int(np.ceil(np.log2(sizes[-1])))))
    for dtype in dtypes:
        axes.plot(batches, most(batches, dtype), color=colours[dtype], linestyle="--", label=f"limit in {dtype}")
    axes.set(title="Throughput", xlabel="batch size", ylabel="images per second", xscale="log")
    # Twice the batch, twice the images at best: powers of two on both axes.
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xticks(sizes, [str(size) for size in sizes], minor=False)
    axes.set_xticks([], minor=True)
    axes.grid(alpha=0.3, which="both")
    axes.legend()


def _time_per_pixel(axes: Any, sizes: Sequence[SizeMeasurement]) -> None:
    for name, rows in _lines(sizes).items():
        axes.plot([row.size**2 for row in rows], [row.us_per_pixel for row in rows], marker="o", label=name)
    axes.set(
        title=f"Time per pixel, batch {sizes[0].batch}", xlabel="pixels per image", ylabel="microseconds per pixel"
    )
    axes.set(xscale="log", ylim=(0, MARGIN * max(row.us_per_pixel for row in sizes)))
    ticks = sorted({row.size for row in sizes})
    axes.set_xticks([size**2 for size in ticks], [f"{size}x{size}" for size in ticks], minor=False)
    axes.set_xticks([], minor=True)
    axes.grid(alpha=0.3)
    axes.legend()


def _memory(axes: Any, sizes: Sequence[SizeMeasurement]) -> None:
    for name, rows in _lines(sizes).items():
        axes.plot([row.size for row in rows], [row.bytes_per_image / 1e6 for row in rows], marker="o", label=name)
    axes.set(title="Activations", xlabel="width of the image in pixels", ylabel="MB per image")
    axes.set(xlim=(0, None), ylim=(0, MARGIN * max(row.bytes_per_image for row in sizes) / 1e6))
    axes.grid(alpha=0.3)
    axes.legend()


def _lines(sizes: Sequence[SizeMeasurement]) -> dict[str, list[SizeMeasurement]]:
    names = dict.fromkeys(f"{row.backend} {row.dtype}" for row in sizes)
    ordered = sorted(sizes, key=lambda row: row.size)
    return {name: [row for row in ordered if f"{row.backend} {row.dtype}" == name] for name in names}
