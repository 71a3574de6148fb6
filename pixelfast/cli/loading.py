"""From what is written on the command line to models, conditions and data."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pixelfast import checkpoints, shipped
from pixelfast.checkpoints.tensor_bundle import index_of
from pixelfast.data import ImageData, open_data
from pixelfast.errors import CheckpointError, PixelfastError, ShapeError
from pixelfast.models import registry
from pixelfast.models.registry import levels_of
from pixelfast.stages import StagedSampler
from pixelfast.training.images import BINARISE, ImageSet


def model_path(name: str) -> Path:
    """The checkpoint of a shipped model by its name, else a file. Raises CheckpointError when there is neither."""
    if name in shipped.names():
        return shipped.weights(name)
    path = index_of(Path(name))
    if path.exists():
        return path
    raise CheckpointError(
        f"no model {name!r}: neither a file nor a shipped model ({', '.join(shipped.names()) or 'none'})"
    )


def load_model(name: str, layout: str | None = None, **hints: Sequence[int]) -> Any:
    """A shipped model by its name, else the model of a checkpoint file, in eval mode. hints: see `checkpoints.load`."""
    if name in shipped.names() and layout is not None:
        raise CheckpointError(f"{name} is a shipped model: leave --layout {layout} out")
    return checkpoints.load(model_path(name), layout=layout, **hints).eval()


def hints_of(args: argparse.Namespace) -> dict[str, Sequence[int]]:
    """What --shape and --config say of a file, as `load_model` takes it. Raises ShapeError for a shape that is none."""
    hints: dict[str, Sequence[int]] = {}
    if args.shape is not None:
        if len(args.shape) != 3:
            raise ShapeError(f"--shape has {len(args.shape)} numbers; give three: channels, height and width")
        hints["shape"] = args.shape
    for name, value in args.config:
        if name in hints:
            raise PixelfastError(f"--config {name} is given twice")
        hints[name] = value
    return hints


def named_model(args: argparse.Namespace) -> Any:
    """The model that MODEL, --layout, --shape and --config say, in eval mode."""
    return load_model(args.model, args.layout, **hints_of(args))


def label_condition(model: Any, args: argparse.Namespace, n: int, otherwise: int | None = None) -> torch.Tensor | None:
    """Class labels int64 (n,) from --label or --labels, else all `otherwise`; None for a model without classes.

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
    if given is None and otherwise is not None:
        given = [otherwise]
    if given is None:
        raise ShapeError(f"this model has classes: give --label or --labels, from 0 to {classes - 1}")
    if max(given) >= classes:
        raise ShapeError(f"label {max(given)} is out of range: this model's labels are 0 to {classes - 1}")
    if len(given) > n:
        raise ShapeError(f"{len(given)} labels for {n} images: give at most one per image")
    return torch.tensor(given, dtype=torch.int64).repeat(-(-n // len(given)))[:n]


def labels_of(model: Any, data: ImageData) -> torch.Tensor | None:
    """The data's labels int64 (N,) as the model's condition; None for a model without one.

    Raises PixelfastError when the model's condition is not those labels.
    """
    if getattr(model, "condition_example", None) is None:
        return None
    classes = model.config.get("classes")
    if classes is None:
        raise PixelfastError("this model's condition is not a class label: evaluate it from Python")
    if data.labels is None:
        raise PixelfastError(f"{data.name} has no labels, which this model's condition is")
    if int(data.labels.max()) >= classes:
        raise PixelfastError(
            f"{data.name} has labels up to {int(data.labels.max())}, this model's are 0 to {classes - 1}"
        )
    return data.labels


class _Binarised:
    """Images of two levels, each with the same noise at every call."""

    def __init__(self, data: ImageData, how: str) -> None:
        self.shape = tuple(data.images.shape)
        self._set = ImageSet(data, [BINARISE[how]], seed=0, conditional=False)

    def __len__(self) -> int:
        return len(self._set)

    def __getitem__(self, index: torch.Tensor | slice, /) -> torch.Tensor:
        chosen = torch.arange(len(self))[index] if isinstance(index, slice) else index
        return self._set.always_the_same(chosen)[0]


def open_prepared(args: argparse.Namespace) -> ImageData:
    """The data of --data, --split and --binarise."""
    data = open_data(args.data, args.split)
    if args.binarise is None:
        return data
    levels = BINARISE[args.binarise].levels_after(data.levels)
    return replace(data, images=_Binarised(data, args.binarise), levels=levels)


def check_fits(model: Any, data: ImageData) -> None:
    """ShapeError unless the model is one of images like the data's."""
    if tuple(model.shape) == data.shape and levels_of(model) == 2 < data.levels:
        raise ShapeError(
            f"the model is for images of 2 levels, the data have {data.levels}: give --binarise threshold or stochastic"
        )
    if tuple(model.shape) != data.shape or levels_of(model) != data.levels:
        raise ShapeError(
            f"the model is for images {tuple(model.shape)} with {levels_of(model)} levels, "
            f"the data are {data.shape} with {data.levels} levels"
        )


def check_pixels(model: Any, command: str) -> None:
    """PixelfastError for a model of codes, which has no distribution of pixels for `command` to work on."""
    if not hasattr(model, "likelihood"):
        raise PixelfastError(
            f"{command} takes a model of pixels; this is a {registry.name_of(model)}, which `pixelfast eval` knows"
        )


def seeds_in_words(args: argparse.Namespace) -> str:
    """What --seeds adds to the seed in a summary."""
    return "".join(f", {name} {seed}" for name, seed in (args.seeds or {}).items())


def seeds_by_stage(sampler: Any, args: argparse.Namespace) -> dict[str, Any]:
    """The argument `seeds` of a sampler in stages from --seeds; nothing where there is none.

    Raises PixelfastError for a model that does not sample in stages.
    """
    if args.seeds is None:
        return {}
    if not isinstance(sampler, StagedSampler):
        raise PixelfastError("--seeds is for models that sample in stages: give --seed alone")
    return {"seeds": args.seeds}
