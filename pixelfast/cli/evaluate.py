"""pixelfast eval: bits per dimension of a model on a data set; for models of codes, how good their codes are; for
models with latents, the bound on the likelihood (ELBO) and its parts, in nats."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

import torch

import pixelfast
from pixelfast.cli import arguments, progress
from pixelfast.cli.loading import check_fits, labels_of, named_model, open_prepared
from pixelfast.data import ImageData
from pixelfast.data.opening import ACCEPTED
from pixelfast.errors import PixelfastError
from pixelfast.models.registry import AUTOENCODER_OF, is_autoencoder
from pixelfast.training.bound_figures import bound_figures, has_bound
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
    arguments.add_binarise(parser)
    parser.add_argument("--dtype", choices=DTYPES, help="also through the engine in this dtype (default: not)")
    arguments.add_progress(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    data = open_prepared(args)
    model = named_model(args).float()
    check_fits(model, data)
    count = min(len(data), args.limit or len(data))
    over = f"over {count:,} images of {data.name}'s {args.split} split"
    labels = labels_of(model, data)
    labels = None if labels is None else labels[:count]
    if is_autoencoder(model) or type(model) in AUTOENCODER_OF:
        _codes(args, model, data, labels, count, over)
    elif has_bound(model):
        _bound(args, model, data, count, over)
    else:
        _likelihood(args, model, data, labels, count, over)


def _codes(
    args: argparse.Namespace, model: Any, data: ImageData, labels: torch.Tensor | None, count: int, over: str
) -> None:
    """How good a model's codes are, and its priors."""
    if args.dtype:
        raise PixelfastError("--dtype compares bits per dimension, which a model of codes does not have: leave it out")
    with progress.bar("codes", "image", progress.wanted(args.progress)) as update:
        found = code_figures(
            model, data.images[:count], labels, batch_size=BATCH, update=lambda done: update(done, count)
        )
    print(f"squared error {found.squared_error:.5f} (of levels scaled to [0, 1]) {over}")
    codes = model.config["codes"]
    for name, one in found.maps.items():
        print(f"{name}: {one.used} of {codes} used, perplexity {one.perplexity:.1f}")
    for name, one in found.maps.items():
        if one.bits_per_code is not None:
            which, places = "prior" if len(found.maps) == 1 else f"{name} prior", one.codes_per_image
            print(
                f"{which}: {one.bits_per_code:.4f} bits/code, {one.bits_per_code * places:.1f} bits for the "
                f"{places} codes of an image ({math.log2(codes) * places:.1f} without a prior)"
            )


def _bound(args: argparse.Namespace, model: Any, data: ImageData, count: int, over: str) -> None:
    """The ELBO of a model with latents, part by part."""
    if args.dtype:
        raise PixelfastError("--dtype compares likelihoods; a model with latents has a bound: leave it out")
    with progress.bar("images", "image", progress.wanted(args.progress)) as update:
        parts = bound_figures(model, data.images[:count], batch_size=BATCH, update=lambda done: update(done, count))
    if not math.isfinite(parts.total):
        raise PixelfastError(f"the bound is {parts.total} nats: the model's weights or outputs are not finite")
    if parts.plain:
        print(f"{parts.distortion:.2f} nats given the latents {over}; without kl_weight there is no ELBO")
        return
    per_dimension = parts.total / (math.log(2) * math.prod(data.shape))
    print(f"ELBO {-parts.total:.2f} nats, a bound of {per_dimension:.4f} bits/dim, {over}")
    kl = ", ".join(f"KL of {name} {nats:.2f}" for name, nats in parts.kl.items())
    print(f"pixels given the latents {parts.distortion:.2f} nats; {kl} (one draw of the latents)")


def _likelihood(
    args: argparse.Namespace, model: Any, data: ImageData, labels: torch.Tensor | None, count: int, over: str
) -> None:
    """Bits per dimension, through the network and, with --dtype, through the engine."""
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
        nats = f" ({exact * math.log(2) * math.prod(data.shape):.2f} nats)" if data.levels == 2 else ""
        print(f"{exact:.4f} bits/dim{nats} {over}")
    else:
        low = bits(engine, f"in {args.dtype}")
        change = round(low - exact, 4) + 0.0  # not -0.0
        print(f"{exact:.4f} bits/dim in float32, {low:.4f} in {args.dtype} ({change:+.4f}) {over}")
