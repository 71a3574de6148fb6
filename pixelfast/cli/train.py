"""pixelfast train: train a model by a recipe."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from pixelfast import training
from pixelfast.cli import arguments, progress
from pixelfast.cli.loading import model_path
from pixelfast.data.opening import ACCEPTED
from pixelfast.errors import PixelfastError
from pixelfast.training.distribution import SaidByFirst
from pixelfast.training.overrides import describe_fields
from pixelfast.training.stop import Stopped

INTERRUPTED = 130

UNITS = {"squared error": "squared error (of levels scaled to [-1, 1]; `pixelfast eval` scales them to [0, 1])"}
"""What the units of models' losses are, in full."""


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "train",
        help="train a model by a recipe",
        description=f"{__doc__} Stop it at any time; --resume goes on to the same result.",
        epilog=f"fields of a recipe, for --set:\n{describe_fields()}\n\n"
        "several processes: torchrun --nproc-per-node 2 -m pixelfast train RECIPE ...",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "recipe",
        metavar="RECIPE",
        nargs="?",
        help=f"one of: {', '.join(training.RECIPES)}; may be left out with --resume",
    )
    parser.add_argument("--data", metavar="PATH", required=True, type=Path, help=f"what to train on: {ACCEPTED}")
    parser.add_argument("--out", metavar="DIR", required=True, type=Path, help="for snapshots, log and the model")
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="change a field of the recipe, as in steps=100 or config.hidden=16; may be repeated; with --resume "
        "steps, and what does not change the outcome",
    )
    parser.add_argument(
        "--start",
        metavar="MODEL",
        help="weights to begin with: a shipped model's name or a checkpoint file; what the recipe's model has more, as "
        "a condition, begins at random",
    )
    parser.add_argument(
        "--autoencoder",
        metavar="FILE",
        type=Path,
        help="for recipes of a prior: the trained VQ-VAE whose codes it learns; the model written holds both",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the newest snapshot in --out")
    parser.add_argument("--device", metavar="DEVICE", help="cpu or cuda (default: a GPU where there is one)")
    arguments.add_progress(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    if args.recipe is None and not args.resume:
        raise PixelfastError(f"name a recipe: {', '.join(training.RECIPES)} (only --resume can do without)")
    recipe = None if args.recipe is None else training.find_recipe(args.recipe)
    first = os.environ.get("RANK", "0") == "0"
    try:
        result = training.train(
            recipe,
            data=args.data,
            out=args.out,
            changes=args.set,
            start=None if args.start is None else model_path(args.start),
            autoencoder=args.autoencoder,
            resume=args.resume,
            progress=first and progress.wanted(args.progress),
            device=args.device,
        )
    except SaidByFirst:
        raise SystemExit(1) from None
    except KeyboardInterrupt as stop:
        if first:
            raise
        raise SystemExit(stop.status if isinstance(stop, Stopped) else INTERRUPTED) from None
    if first:
        unit = UNITS.get(result.unit, result.unit)
        print(f"{result.loss:.4f} {unit} on the test split, {result.steps} steps: {result.path}")
