"""Images to the files that --output, --gif and --npz ask for."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from pixelfast.cli import images as drawing
from pixelfast.cli.outputs import Outputs
from pixelfast.errors import PixelfastError, ShapeError
from pixelfast.models.registry import levels_of
from pixelfast.sampler import Stats
from pixelfast.stages import StagedStats

OPTIONS = {"png": "--output", "gif": "--gif", "npz": "--npz"}
OTHER_FORMATS = {
    *(".jpg", ".jpeg", ".jp2", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pdf", ".svg", ".npy"),
    *(".safetensors", ".pt", ".pth", ".ckpt"),
}


class Pictures:
    """A context that opens the files a command asks for, before the work, and fills them after it."""

    def __init__(self, args: argparse.Namespace, model: Any) -> None:
        self._outputs = Outputs()
        self._levels = levels_of(model)
        self._channels = model.shape[0]
        self._paths = {"png": args.output, "gif": args.gif, "npz": args.npz}
        if not any(self._paths.values()):
            self._paths["png"] = args.default_output
        for kind, path in self._paths.items():
            suffix = Path(path).suffix.lower() if path else ""
            if suffix != f".{kind}" and suffix in OTHER_FORMATS | {".png", ".gif", ".npz"}:
                raise PixelfastError(
                    f"{path} is named as another kind of file: {OPTIONS[kind]} writes {kind.upper()}, so give it the "
                    f"name {Path(path).with_suffix(f'.{kind}')}"
                )

    def __enter__(self) -> Pictures:
        if self._channels not in (1, 3) and (self._paths["png"] or self._paths["gif"]):
            raise ShapeError(f"a picture has 1 or 3 channels, this model makes {self._channels}: use --npz")
        self._outputs.__enter__()
        try:
            self._streams = {kind: self._outputs.open(path) for kind, path in self._paths.items() if path}
        except BaseException:
            self._outputs.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._outputs.__exit__(kind, error, traceback)

    def write(self, images: torch.Tensor, given: np.ndarray | None = None, first: np.ndarray | None = None) -> None:
        """Write integers (N, C, H, W) to every file, and say which.

        given: bool, broadcast to the images: what the animation shows from its start.
        first: integers (1, C, H, W), a picture put before the others in the PNG.
        """
        integers = images.cpu().numpy()
        if png := self._streams.get("png"):
            shown = integers if first is None else np.concatenate([first.astype(integers.dtype), integers])
            drawing.write_png(png, shown, self._levels)
        if gif := self._streams.get("gif"):
            drawing.write_gif(gif, integers, self._levels, given)
        if npz := self._streams.get("npz"):
            np.savez_compressed(npz, images=integers)
        self._outputs.commit()
        print("wrote " + ", ".join(str(path) for path in self._paths.values() if path))


def summary(stats: Stats | StagedStats | None) -> str:
    """Speed and engine of a sampler's last call, in a few words; of one in stages, each stage has a line."""
    assert stats is not None, "a sampler has statistics once it has sampled"
    if not isinstance(stats, StagedStats):
        return f"{stats.images_per_second:.1f} images/s, {speed(stats)}"
    parts = [(name, one.seconds, f", {speed(one)}") for name, one in stats.stages.items()]
    if stats.decode_seconds:
        parts.append(("decoding", stats.decode_seconds, ""))
    lines = [f"  {name}: {took:.3f} s ({took / stats.seconds:.0%}){words}" for name, took, words in parts]
    return "\n".join([f"{stats.seconds:.3f} s, {stats.images_per_second:.1f} images/s", *lines])


def speed(stats: Stats) -> str:
    """Time per pixel and engine of one network, in a few words."""
    return (
        f"{stats.us_per_pixel:.1f} us per pixel, "
        f"{stats.gflops:.1f} GFLOP/s "
        f"({stats.backend} {stats.isa} {stats.dtype}, {stats.threads} thread{'' if stats.threads == 1 else 's'})"
    )
