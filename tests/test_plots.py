"""The picture of `pixelfast bench`."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image

from pixelfast.bench import plots
from pixelfast.bench.sampling import Measurement
from pixelfast.bench.sizes import SizeMeasurement
from pixelfast.errors import PixelfastError
from pixelfast.machine import Machine

MACHINE = Machine("test", 2, flops=100.0, bf16_flops=400.0, int8_flops=800, cache_bandwidth=10.0, memory_bandwidth=1.0)
FLOPS, WEIGHTS_READ = 50.0, 5.0


def measurement(batch: int, dtype: str, images_per_second: float) -> Measurement:
    return Measurement(
        batch=batch,
        backend="cpu",
        dtype=dtype,
        seconds=batch / images_per_second,
        spread=0.0,
        repeats=3,
        mean_seconds=1.0,
        calls_per_repeat=1,
        rounds_per_repeat=3,
        images_per_second=images_per_second,
        us_per_pixel=1.0,
        gflops=1.0,
        limit_seconds=1.0,
        share=1.0,
        naive_seconds=1.0,
        naive_forwards=1,
        naive_forwards_timed=1,
        ratio=1.0,
        accepted=None,
        plan=None,
    )


ROWS = [measurement(b, d, s) for d, s in (("float32", 0.25), ("bfloat16", 0.5)) for b in (4, 1)]
SIZES = [SizeMeasurement(s, 1, "cpu", "float32", 1e-3 * s * s, 0.0, 1e3, 1000 * s, 1.0) for s in (32, 16)]


def test_roofline_is_the_limit_at_each_batch_size() -> None:
    batches = np.array([1.0, 8.0])
    most = plots.roofline(batches, FLOPS, WEIGHTS_READ, MACHINE, "float32")
    assert most.tolist() == [1 / 2.0, 8 / 4.0]  # reading the weights, then arithmetic
    assert plots.roofline(batches, FLOPS, WEIGHTS_READ, MACHINE, "bfloat16").tolist() == [1.0, 8.0]


@pytest.mark.parametrize(("sizes", "panels"), [([], 1), (SIZES, 3)])
def test_panels_and_lines(sizes: list[SizeMeasurement], panels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []
    new_figure = plots.new_figure
    monkeypatch.setattr(plots, "new_figure", lambda: figures.append(new_figure()) or figures[-1])
    stream = io.BytesIO()
    plots.write_plot(stream, "a model", ROWS, sizes, FLOPS, WEIGHTS_READ, MACHINE)
    with Image.open(stream) as picture:
        assert picture.format == "PNG"
    (figure,) = figures
    assert len(figure.axes) == panels
    throughput = {line.get_label(): line for line in figure.axes[0].lines}
    assert list(throughput) == ["cpu float32", "cpu bfloat16", "limit in float32", "limit in bfloat16"]
    assert throughput["cpu bfloat16"].get_xdata().tolist() == [1, 4]
    assert throughput["cpu bfloat16"].get_ydata().tolist() == [0.5, 0.5]
    limit = throughput["limit in float32"]
    assert (limit.get_linestyle(), limit.get_xdata()[0], limit.get_xdata()[-1]) == ("--", 1.0, 4.0)
    assert {figure.axes[0].get_xscale(), figure.axes[0].get_yscale()} == {"log"}
    if sizes:
        (time,), (memory,) = figure.axes[1].lines, figure.axes[2].lines
        assert (list(time.get_xdata()), list(time.get_ydata())) == ([256, 1024], [1e3, 1e3])
        assert (list(memory.get_xdata()), list(memory.get_ydata())) == ([16, 32], [0.016, 0.032])


def test_one_image_is_enough() -> None:
    stream = io.BytesIO()
    plots.write_plot(stream, "a model", ROWS[1:2], SIZES[:1], FLOPS, WEIGHTS_READ, MACHINE)
    assert stream.getvalue().startswith(b"\x89PNG")


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(PixelfastError, match=r"--plot needs matplotlib .*pip install 'pixelfast\[train\]'"):
        plots.new_figure()
