"""pixelfast eval: bits per dimension of a model on MNIST."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import torch

import pixelfast
from pixelfast.cli import arguments, progress
from pixelfast.cli.loading import check_fits, load_model
from pixelfast.data import load_mnist
from pixelfast.errors import PixelfastError
from pixelfast.training.evaluate import network_input

BATCH = 16
DTYPES = ("float32", "bfloat16", "int8", "float64")


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "eval",
        help="bits per dimension on a data set",
        description=f"{__doc__} The mean over images; the network runs densely in float32. With --dtype also through "
        "the engine that samples, in that dtype, on the same images: what its rounding costs.",
    )
    arguments.add_model(parser)
    parser.add_argument("--data", metavar="DIR", required=True, help="folder of MNIST's IDX files")
    parser.add_argument("--split", choices=("train", "test"), default="test")
    parser.add_argument(
        "--limit", type=arguments.integer(1), metavar="N", help="only the first N images (default: all)"
    )
    parser.add_argument("--dtype", choices=DTYPES, help="also through the engine in this dtype (default: not)")
    arguments.add_progress(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    data = load_mnist(args.data, args.split)
    model = load_model(args.model, args.layout).float()
    check_fits(model, data.images)
    images, labels = data.images[: args.limit], data.labels[: args.limit]
    conditional = getattr(model, "condition_example", None) is not None
    if conditional and model.config.get("classes") != 10:
        raise PixelfastError("this model's condition is not MNIST's labels: evaluate it from Python")
    sampler = pixelfast.compile(model, dtype=getattr(torch, args.dtype)) if args.dtype else None

    @torch.inference_mode()
    def dense(batch: torch.Tensor, label: torch.Tensor | None) -> float:
        params = model(network_input(model, batch), *(() if label is None else (label,)))
        return -float(model.likelihood.log_prob(params, batch.long()).double().sum())

    def engine(batch: torch.Tensor, label: torch.Tensor | None) -> float:
        assert sampler is not None
        return -float(sampler.log_prob(batch, label).double().sum())

    def bits(nats: Callable[[torch.Tensor, torch.Tensor | None], float], what: str) -> float:
        total = 0.0
        with progress.bar(what, "image", progress.wanted(args.progress)) as update:
            for first in range(0, len(images), BATCH):
                part = slice(first, first + BATCH)
                total += nats(images[part], labels[part] if conditional else None)
                update(min(first + BATCH, len(images)), len(images))
        found = total / (math.log(2) * images.numel())
        if not math.isfinite(found):
            raise PixelfastError(f"the model gives {found} bits/dim {what}: its weights or outputs are not finite")
        return found

    over = f"over {len(images):,} images of MNIST's {args.split} split"
    exact = bits(dense, "in float32")
    if sampler is None:
        print(f"{exact:.4f} bits/dim {over}")
    else:
        low = bits(engine, f"in {args.dtype}")
        change = round(low - exact, 4) + 0.0  # not -0.0
        print(f"{exact:.4f} bits/dim in float32, {low:.4f} in {args.dtype} ({change:+.4f}) {over}")
