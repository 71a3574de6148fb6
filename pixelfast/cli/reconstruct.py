"""pixelfast reconstruct: images of a data set, each beside what an autoencoder makes of it."""

from __future__ import annotations

import argparse
import math
from typing import Any

import torch

import pixelfast
from pixelfast.cli import arguments, images, progress
from pixelfast.cli.loading import check_fits, named_model, open_prepared
from pixelfast.cli.outputs import Outputs
from pixelfast.data.opening import ACCEPTED
from pixelfast.errors import PixelfastError
from pixelfast.models import registry
from pixelfast.training.evaluate import network_input


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "reconstruct",
        help="images beside their reconstructions",
        description=f"{__doc__} Models with priors show their autoencoder's. Of a VAE it is the likeliest image given "
        "the means of its latents; of a PixelVAE, one drawn given them.",
    )
    arguments.add_model(parser)
    parser.add_argument("data", metavar="DATA", help=ACCEPTED)
    parser.add_argument("--split", choices=("train", "test"), default="test")
    arguments.add_binarise(parser)
    parser.add_argument("-n", type=arguments.integer(1), default=32, help="the first so many images (default: 32)")
    parser.add_argument(
        "-o",
        "--output",
        type=arguments.filename,
        metavar="PNG",
        default="reconstructions.png",
        help="the picture; default: reconstructions.png",
    )
    parser.add_argument(
        "--seed", type=arguments.integer(0, 2**64 - 1), default=0, help="of pixels that are drawn (default: 0)"
    )
    arguments.add_progress(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    model = named_model(args).float()
    data = open_prepared(args)
    check_fits(model, data)
    shown = data.images[: min(args.n, len(data))]
    with Outputs() as outputs, torch.inference_mode():
        stream = outputs.open(args.output)
        again = _reconstructed(args, model, shown)
        pairs = torch.stack((shown.long(), again), dim=1).flatten(0, 1)
        # An even number of columns keeps pairs together.
        columns = 2 * math.ceil(math.sqrt(len(shown) / 2))
        images.write_png(stream, pairs.numpy(), registry.levels_of(model), columns)
        outputs.commit()
    error = float((again - shown.long()).square().double().mean()) / (registry.levels_of(model) - 1) ** 2
    print(f"wrote {args.output}")
    print(f"{len(shown)} images, each with its reconstruction to its right: squared error {error:.5f}")


def _reconstructed(args: argparse.Namespace, model: Any, shown: torch.Tensor) -> torch.Tensor:
    """int64 (N, C, H, W) of images (N, C, H, W). Raises PixelfastError for a model without codes and latents."""
    autoencoder = model if hasattr(model, "reconstruct") else getattr(model, "autoencoder", None)
    if autoencoder is not None:
        return autoencoder.reconstruct(network_input(autoencoder, shown))
    if not hasattr(model, "posterior"):
        raise PixelfastError(
            "reconstruct takes a model with codes or latents: a VQ-VAE or VQ-VAE-2, alone or with priors, a VAE or a "
            f"PixelVAE; this is a {registry.name_of(model)}"
        )
    sampler = pixelfast.compile(model)
    return sampler.reconstruct(shown, seed=args.seed, progress=progress.wanted(args.progress)).long()
