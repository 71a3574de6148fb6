"""pixelfast eval: bits per dimension of a model on MNIST."""

from __future__ import annotations

import argparse
import math

import torch

from pixelfast.cli import arguments, progress
from pixelfast.cli.loading import check_fits, load_model
from pixelfast.data import load_mnist
from pixelfast.errors import PixelfastError
from pixelfast.training.evaluate import network_input

BATCH = 16


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "eval",
        help="bits per dimension on a data set",
        description=f"{__doc__} The mean over images; the network runs densely in float32.",
    )
    arguments.add_model(parser)
    parser.add_argument("--data", metavar="DIR", required=True, help="folder of MNIST's IDX files")
    parser.add_argument("--split", choices=("train", "test"), default="test")
    parser.add_argument("--limit", type=arguments.integer(1), metavar="N", help="only the first N images")
    arguments.add_progress(parser)
    parser.set_defaults(run=run)


@torch.inference_mode()
def run(args: argparse.Namespace) -> None:
    data = load_mnist(args.data, args.split)
    model = load_model(args.model, args.layout)
    check_fits(model, data.images)
    images, labels = data.images[: args.limit], data.labels[: args.limit]
    conditional = getattr(model, "condition_example", None) is not None
    if conditional and model.config.get("classes") != 10:
        raise PixelfastError("this model's condition is not MNIST's labels: evaluate it from Python")

    nats = 0.0
    with progress.bar("evaluating", "image", progress.wanted(args.progress)) as update:
        for first in range(0, len(images), BATCH):
            batch = images[first : first + BATCH]
            conditions = (labels[first : first + BATCH],) if conditional else ()
            params = model(network_input(model, batch), *conditions)
            nats -= float(model.likelihood.log_prob(params, batch.long()).double().sum())
            update(first + len(batch), len(images))
    bits = nats / (math.log(2) * images.numel())
    if not math.isfinite(bits):
        raise PixelfastError(f"the model gives {bits} bits/dim: its weights or outputs are not finite")
    print(f"{bits:.4f} bits/dim over {len(images):,} images of MNIST's {args.split} split")
