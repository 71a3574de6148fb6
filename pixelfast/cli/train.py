"""pixelfast train: train a model by a recipe."""

from __future__ import annotations

import argparse
from pathlib import Path

from pixelfast import training
from pixelfast.cli import arguments, progress


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "train",
        help="train a model by a recipe",
        description=f"{__doc__} Stop it at any time; --resume goes on to the same result.",
    )
    parser.add_argument("recipe", metavar="RECIPE", help=f"one of: {', '.join(training.RECIPES)}")
    parser.add_argument("--data", metavar="DIR", required=True, type=Path, help="folder of MNIST's IDX files")
    parser.add_argument("--out", metavar="DIR", required=True, type=Path, help="for snapshots and the model")
    parser.add_argument("--resume", action="store_true", help="go on from the snapshot in --out")
    arguments.add_progress(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    recipe = training.find_recipe(args.recipe)
    result = training.train(
        recipe, data=args.data, out=args.out, resume=args.resume, progress=progress.wanted(args.progress)
    )
    print(f"{result.bits_per_dim:.4f} bits/dim on the test split, {result.steps} steps: {result.path}")
