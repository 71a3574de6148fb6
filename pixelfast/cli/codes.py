"""pixelfast codes: images of codes at random, of codes near those of real images, and of codes that a prior drew."""

from __future__ import annotations

import argparse
from typing import Any

import torch

import pixelfast
from pixelfast.cli import arguments, images, progress
from pixelfast.cli.loading import check_fits, labels_of, named_model
from pixelfast.cli.outputs import Outputs
from pixelfast.data import open_data
from pixelfast.data.opening import ACCEPTED
from pixelfast.errors import PixelfastError
from pixelfast.models import registry
from pixelfast.training.code_figures import code_maps
from pixelfast.training.evaluate import network_input

NEAR = 0.1
"""Share of an image's codes that are drawn anew for codes near it."""


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "codes",
        help="what a prior of codes is worth, as a picture",
        description=f"{__doc__} The picture has a row of each: codes drawn evenly; codes of images of the data, "
        f"{NEAR:.0%} of them replaced; codes of the prior. Codes only make images where they fit together.",
    )
    arguments.add_model(parser)
    parser.add_argument("data", metavar="DATA", help=ACCEPTED)
    parser.add_argument("--split", choices=("train", "test"), default="test")
    parser.add_argument("-n", type=arguments.integer(1), default=10, help="images per row (default: 10)")
    parser.add_argument("--seed", type=arguments.integer(0, 2**63 - 1), default=0, help="default: 0")
    parser.add_argument(
        "-o",
        "--output",
        type=arguments.filename,
        metavar="PNG",
        default="codes.png",
        help="the picture; default: codes.png",
    )
    arguments.add_engine(parser)
    arguments.add_progress(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    model = named_model(args)
    if type(model) not in registry.AUTOENCODER_OF:
        raise PixelfastError(f"codes takes a model with a prior of codes; this is a {registry.name_of(model)}")
    data = open_data(args.data, args.split)
    check_fits(model, data)
    if len(data) < args.n:
        raise PixelfastError(f"-n {args.n}: the {args.split} split has {len(data)} images")
    labels = labels_of(model, data)
    with Outputs() as outputs:
        stream = outputs.open(args.output)
        sampler: Any = pixelfast.compile(model, backend=args.backend, dtype=getattr(torch, args.dtype))
        rows = torch.cat(
            [sampler.decode(codes) for codes in _rows(args, model, sampler, data.images[: args.n], labels)]
        )
        images.write_png(stream, rows.numpy(), model.levels, args.n)
        outputs.commit()
    print(f"wrote {args.output}")
    print(f"rows: random codes; codes of the data with {NEAR:.0%} at random; codes of the prior")


def _rows(
    args: argparse.Namespace, model: Any, sampler: Any, shown: torch.Tensor, labels: torch.Tensor | None
) -> list[dict[str, torch.Tensor]]:
    """The codes of each row, by the stages' names."""
    generator = torch.Generator().manual_seed(args.seed)
    count = model.config["codes"]
    kind = next(model.parameters()).dtype
    with torch.inference_mode():
        own = code_maps(model.autoencoder, network_input(model, shown).to(kind))
    random = {name: torch.randint(count, codes.shape, generator=generator) for name, codes in own.items()}
    near = {}
    for name, codes in own.items():
        replaced = torch.rand(codes.shape, generator=generator) < NEAR
        near[name] = torch.where(replaced, torch.randint(count, codes.shape, generator=generator), codes)
    condition = None if labels is None else labels[: args.n]
    drawn = sampler.draw(args.n, seed=args.seed, condition=condition, progress=progress.wanted(args.progress))
    return [random, near, drawn]
