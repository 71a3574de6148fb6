"""pixelfast complete: the rest of an image whose first rows are given."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch

import pixelfast
from pixelfast.cli import arguments, images, pictures, progress
from pixelfast.cli.loading import (
    check_fits,
    check_pixels,
    label_condition,
    named_model,
    open_prepared,
    seeds_by_stage,
    seeds_in_words,
)
from pixelfast.data.opening import ACCEPTED
from pixelfast.errors import PixelfastError, ShapeError
from pixelfast.models.registry import levels_of
from pixelfast.stages import in_stages


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "complete",
        help="complete an image of which the upper rows are given",
        description=f"{__doc__} The PNG shows the given rows first, then the completions.",
    )
    arguments.add_model(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--image", metavar="PNG", help="a picture of the model's own size")
    source.add_argument(
        "--data",
        metavar="PATH",
        help=f"image --index of --split of a data set, with its label if the model has classes: {ACCEPTED}",
    )
    parser.add_argument("--index", type=arguments.integer(0), default=0, help="default: 0")
    parser.add_argument("--split", choices=("train", "test"), default="test")
    arguments.add_binarise(parser)
    parser.add_argument("--rows-given", type=arguments.integer(0), metavar="R", help="default: half")
    parser.add_argument("-n", type=arguments.integer(1), default=8, help="completions (default: 8)")
    arguments.add_pictures(parser, default="completions.png")
    arguments.add_sampling(parser)
    arguments.add_seeds(parser)
    arguments.add_engine(parser)
    arguments.add_progress(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    model = named_model(args)
    if not in_stages(model):
        check_pixels(model, "complete")
    image, label = _image(args, model)
    condition = label_condition(model, args, args.n, label)
    rows = model.shape[1] // 2 if args.rows_given is None else args.rows_given
    if rows > model.shape[1]:
        raise ShapeError(f"--rows-given {rows}: the model's images have {model.shape[1]} rows")
    mask = (np.arange(model.shape[1]) < rows)[:, None]
    with pictures.Pictures(args, model) as pictures_out:
        sampler = pixelfast.compile(model, backend=args.backend, dtype=getattr(torch, args.dtype))
        completions = sampler.sample(
            args.n,
            seed=args.seed,
            condition=condition,
            temperature=args.temperature,
            batch_size=args.batch_size,
            progress=progress.wanted(args.progress),
            known=torch.from_numpy(image),
            mask=torch.from_numpy(mask),
            **seeds_by_stage(sampler, args),
        )
        pictures_out.write(completions, given=mask, first=np.where(mask, image, 0))
    seed = f"seed {args.seed}{seeds_in_words(args)}"
    if condition is not None and args.label is None and args.labels is None:
        seed = f"label {label} as in the data, {seed}"
    print(f"{args.n} completions, {rows} rows given, {seed}: {pictures.summary(sampler.stats)}")


def _image(args: argparse.Namespace, model: Any) -> tuple[np.ndarray, int | None]:
    """The image to complete, int64 (1, C, H, W), and its label where the data have them."""
    if args.image is not None:
        return images.read_image(args.image, tuple(model.shape), levels_of(model)), None
    data = open_prepared(args)
    check_fits(model, data)
    if args.index >= len(data):
        raise PixelfastError(f"--index {args.index}: the {args.split} split has images 0 to {len(data) - 1}")
    label = None if data.labels is None else int(data.labels[args.index])
    return data.images[args.index : args.index + 1].long().numpy(), label
