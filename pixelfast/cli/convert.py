"""pixelfast convert: a checkpoint of another project into pixelfast's own format."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pixelfast import checkpoints
from pixelfast.cli import arguments
from pixelfast.cli.loading import hints_of, load_model
from pixelfast.errors import PixelfastError
from pixelfast.models import registry
from pixelfast.models.joining import with_priors


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("convert", help="into pixelfast's own format", description=__doc__)
    parser.add_argument("source", metavar="SRC", help="a shipped model's name or the checkpoint to read")
    parser.add_argument("target", metavar="DST", help="the .safetensors file to write")
    arguments.add_layout(parser)
    parser.add_argument(
        "--prior",
        action="append",
        default=[],
        metavar="FILE",
        help="a prior of SRC's codes, to sample both as one model; of a VQ-VAE-2 the top one, then the bottom one",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    target = Path(args.target)
    if target.suffix != ".safetensors":
        raise PixelfastError(f"{target}: pixelfast's checkpoints are .safetensors files; choose such a name")
    model: Any = load_model(args.source, args.layout, **hints_of(args))
    if args.prior:
        model = with_priors(model, [checkpoints.load(path) for path in args.prior])
    checkpoints.save(model, target)
    count = sum(parameter.numel() for parameter in model.parameters())
    shape = "x".join(map(str, model.shape))
    print(f"wrote {target}: {registry.name_of(model)}, {count:,} parameters, images {shape}")
