"""pixelfast eval: bits per dimension of a model on a data set; for models of codes, how good their codes are."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import torch

import pixelfast
from pixelfast.cli import arguments, progress
from pixelfast.cli.loading import check_fits, labels_of, named_model
from pixelfast.data import open_data
from pixelfast.data.opening import ACCEPTED
from pixelfast.errors import PixelfastError
from pixelfast.models import VQVAE, VQVAEWithPrior
from pixelfast.training.code_figures import code_figures
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
    parser.add_argument("--data", metavar="PATH", required=True, help=ACCEPTED)
    parser.add_argument("--split", choices=("train", "test"), default="test")
    parser.add_argument(
        "--limit", type=arguments.integer(1), metavar="N", help="only the first N images (default: all)"
    )
    parser.add_argument("--dtype", choices=DTYPES, help="also through the engine in this dtype (default: not)")
    arguments.add_progress(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    data = open_data(args.data, args.split)
    model = named_model(args).float()
    check_fits(model, data)
    count = min(len(data), args.limit or len(data))
    labels = labels_of(model, data)
    labels = None if labels is None else labels[:count]
    over = f"over {count:,} images of {data.name}'s {args.split} split"
    if isinstance(model, VQVAE | VQVAEWithPrior):
        if args.dtype:
            raise PixelfastError(
                "--dtype compares bits per dimension, which a model of codes does not have: leave it out"
            )
        with progress.bar("codes", "image", progress.wanted(args.progress)) as update:
            found = code_figures(
                model, data.images[:count], labels, batch_size=BATCH, update=lambda done: update(done, count)
            )
        print(f"squared error {found.squared_error:.5f} (of levels scaled to [0, 1]) {over}")
        codes, places = model.config["codes"], found.codes_per_image
        print(f"codes: {found.used} of {codes} used, perplexity {found.perplexity:.1f}")
        if found.bits_per_code is not None:
            print(
                f"prior: {found.bits_per_code:.4f} bits/code, {found.bits_per_code * places:.1f} bits for the {places} "
                f"codes of an image ({math.log2(codes) * places:.1f} without a prior)"
            )
        return
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
            for first in range(0, count, BATCH):
                part = slice(first, min(first + BATCH, count))
                total += nats(data.images[part], None if labels is None else labels[part])
                update(part.stop, count)
        found = total / (math.log(2) * count * math.prod(data.shape))
        if not math.isfinite(found):
            raise PixelfastError(f"the model gives {found} bits/dim {what}: its weights or outputs are not finite")
        return found

    exact = bits(dense, "in float32")
    if sampler is None:
        print(f"{exact:.4f} bits/dim {over}")
    else:
        low = bits(engine, f"in {args.dtype}")
        change = round(low - exact, 4) + 0.0  # not -0.0
        print(f"{exact:.4f} bits/dim in float32, {low:.4f} in {args.dtype} ({change:+.4f}) {over}")
