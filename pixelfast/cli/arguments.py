"""Arguments that several commands share, and the types of single arguments."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any, NoReturn

BACKENDS = ("auto", "cpu", "reference")
DTYPES = ("float32", "bfloat16", "int8", "float64")
HINTS = ("dilations",)
LARGEST_BATCH = 1 << 20


class Parser(argparse.ArgumentParser):
    """Errors of usage on one line, exit status 2. Options are written out in full."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **settings})

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"pixelfast: error: {message} (see {self.prog} --help)\n")


def integer(low: int, high: int | None = None) -> Callable[[str], int]:
    """An argument type: integers from `low` to `high`, both included."""

    def parse(text: str) -> int:
        accepted = f"an integer from {low}" + (f" to {high}" if high is not None else "")
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {accepted}") from None
        if value < low or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f"{value} is not {accepted}")
        return value

    return parse


def integers(low: int, high: int | None = None) -> Callable[[str], list[int]]:
    """An argument type: integers as of `integer`, separated by commas."""
    parse_one = integer(low, high)
    return lambda text: [parse_one(part) for part in text.split(",")]


def temperature(text: str) -> float:
    """A finite number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0")
    return value


def stage_seeds(text: str) -> dict[str, int]:
    """Seeds by stage, such as top=3,bottom=0."""
    parse_seed = integer(0, 2**64 - 1)
    seeds: dict[str, int] = {}
    for part in text.split(","):
        name, equals, seed = part.partition("=")
        if not (name and equals):
            raise argparse.ArgumentTypeError(f"{part!r} is not STAGE=SEED, such as latents=3")
        if name in seeds:
            raise argparse.ArgumentTypeError(f"stage {name} has two seeds")
        seeds[name] = parse_seed(seed)
    return seeds


def filename(text: str) -> str:
    """A path; an empty one is most likely a variable of a script that was never set."""
    if not text:
        raise argparse.ArgumentTypeError("the name of a file is empty")
    return text


def add_model(parser: argparse.ArgumentParser, also: str = "") -> None:
    """MODEL and --layout."""
    parser.add_argument("model", metavar="MODEL", help=f"a shipped model's name or a checkpoint file{also}")
    add_layout(parser)


def add_layout(parser: argparse.ArgumentParser) -> None:
    """--layout, --shape and --config: what a file of another project does not say itself."""
    parser.add_argument("--layout", help="layout of the checkpoint, where it is not recognised by itself")
    parser.add_argument(
        "--shape",
        type=integers(1),
        metavar="C,H,W",
        help="channels, height and width of the images, where another project's checkpoint does not record them",
    )
    parser.add_argument(
        "--config",
        type=hint,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="what else it does not record, as dilations=1,2,1,4; may be repeated",
    )


def hint(text: str) -> tuple[str, list[int]]:
    """NAME=VALUE, of what `checkpoints.load` takes beside the shape."""
    name, equals, value = text.partition("=")
    if not equals or name not in HINTS:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE with a name of: {', '.join(HINTS)}")
    return name, integers(1)(value)


def add_engine(parser: argparse.ArgumentParser) -> None:
    """--backend and --dtype."""
    parser.add_argument("--backend", choices=BACKENDS, default="auto", help="default: auto")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="default: float32")


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """--seed, --temperature, --batch-size and the labels."""
    parser.add_argument("--seed", type=integer(0, 2**64 - 1), default=0, help="default: 0")
    parser.add_argument("--temperature", type=temperature, default=1.0, metavar="T")
    parser.add_argument("--batch-size", type=integer(1, LARGEST_BATCH), metavar="B", help="images at a time")
    labels = parser.add_mutually_exclusive_group()
    labels.add_argument("--label", type=integer(0), help="class of all images")
    labels.add_argument(
        "--labels", type=integers(0), metavar="L,L,...", help="classes of the images, repeated to fill -n"
    )


def add_binarise(parser: argparse.ArgumentParser) -> None:
    """--binarise."""
    parser.add_argument(
        "--binarise",
        choices=("threshold", "stochastic"),
        help="make two levels of the data's, for a model of two: cut in the middle, or drawn, the same at every call",
    )


def add_seeds(parser: argparse.ArgumentParser) -> None:
    """--seeds."""
    parser.add_argument(
        "--seeds",
        type=stage_seeds,
        metavar="STAGE=SEED,...",
        help="other seeds for single stages of a model in stages, such as latents=3: all else stays as it was",
    )


def add_pictures(parser: argparse.ArgumentParser, default: str) -> None:
    """--output, --gif and --npz."""
    parser.add_argument("-o", "--output", type=filename, metavar="PNG", help=f"grid of the images (default: {default})")
    parser.add_argument("--gif", type=filename, metavar="GIF", help="animation of the images appearing")
    parser.add_argument(
        "--npz", type=filename, metavar="NPZ", help="the integers, array `images` of shape (N, C, H, W)"
    )
    parser.set_defaults(default_output=default)


def add_progress(parser: argparse.ArgumentParser) -> None:
    """--progress and --no-progress."""
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="progress bars (default: on a terminal)",
    )
