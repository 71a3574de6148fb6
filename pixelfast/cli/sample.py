"""pixelfast sample: new images from a model."""

from __future__ import annotations

import argparse

import torch

import pixelfast
from pixelfast.cli import arguments, pictures, progress
from pixelfast.cli.loading import check_pixels, label_condition, named_model, seeds_by_stage, seeds_in_words
from pixelfast.stages import in_stages


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("sample", help="new images from a model", description=__doc__)
    arguments.add_model(parser)
    parser.add_argument("-n", type=arguments.integer(1), default=64, help="number of images (default: 64)")
    arguments.add_pictures(parser, default="samples.png")
    arguments.add_sampling(parser)
    arguments.add_seeds(parser)
    arguments.add_engine(parser)
    arguments.add_progress(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    model = named_model(args)
    if not in_stages(model):
        check_pixels(model, "sample")
    condition = label_condition(model, args, args.n)
    with pictures.Pictures(args, model) as pictures_out:
        sampler = pixelfast.compile(model, backend=args.backend, dtype=getattr(torch, args.dtype))
        images = sampler.sample(
            args.n,
            seed=args.seed,
            condition=condition,
            temperature=args.temperature,
            batch_size=args.batch_size,
            progress=progress.wanted(args.progress),
            **seeds_by_stage(sampler, args),
        )
        pictures_out.write(images)
    print(f"{args.n} images, seed {args.seed}{seeds_in_words(args)}: {pictures.summary(sampler.stats)}")
