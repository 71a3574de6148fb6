"""From what is written on the command line to models, conditions and data."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from pixelfast import checkpoints, shipped
from pixelfast.errors import CheckpointError, PixelfastError, ShapeError


def load_model(name: str, layout: str | None = None) -> Any:
    """A shipped model by its name, else the model of a checkpoint file, in eval mode."""
    if name in shipped.names():
        if layout is not None:
            raise CheckpointError(f"{name} is a shipped model: leave --layout {layout} out")
        model = checkpoints.load(shipped.weights(name))
    elif Path(name).exists():
        model = checkpoints.load(name, layout=layout)
    else:
        raise CheckpointError(
            f"no model {name!r}: neither a file nor a shipped model ({', '.join(shipped.names()) or 'none'})"
        )
    return model.eval()


def label_condition(model: Any, args: argparse.Namespace, n: int) -> torch.Tensor | None:
    """Class labels int64 (n,) from --label or --labels; None for a model without classes.

    Raises ShapeError when labels are missing, out of range, or given to a model that has no classes.
    """
    given = args.labels if args.labels is not None else None if args.label is None else [args.label]
    classes = model.config.get("classes")
    if classes is None:
        if given is not None:
            raise ShapeError("this model has no classes: leave --label and --labels out")
        if getattr(model, "condition_example", None) is not None:
            raise PixelfastError("this model's condition is not a class label: use it from Python")
        return None
    if given is None:
        raise ShapeError(f"this model has classes: give --label or --labels, from 0 to {classes - 1}")
    if max(given) >= classes:
        raise ShapeError(f"label {max(given)} is out of range: this model's labels are 0 to {classes - 1}")
    if len(given) > n:
        raise ShapeError(f"{len(given)} labels for {n} images: give at most one per image")
    return torch.tensor(given, dtype=torch.int64).repeat(-(-n // len(given)))[:n]


def check_fits(model: Any, images: torch.Tensor) -> None:
    """ShapeError unless the model is one of images (N, C, H, W) with 256 levels."""
    shape = tuple(images.shape[1:])
    if tuple(model.shape) != shape or model.likelihood.levels != 256:
        raise ShapeError(
            f"the model is for images {tuple(model.shape)} with {model.likelihood.levels} levels, "
            f"the data are {shape} with 256 levels"
        )
