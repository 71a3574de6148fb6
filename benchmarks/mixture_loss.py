"""Time and memory of the mixture loss, forward and backward, beside plain torch and torch.compile.

    python benchmarks/mixture_loss.py [--threads 2] [--dtype float32] [--channels-last] [--rounds 30] [--save FILE]

Batch 16, 32x32x3, 10 mixtures. All take turns; a figure is the median of the rounds. One thread is timed by its
processor time, several by the clock. Memory is the most that tensors take beyond parameters and images; the gradient of
the parameters, which any implementation must return, is part of it.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelfast import _C, DiscretizedLogisticMixture
from pixelfast.bench.memory import peak_bytes
from pixelfast.bench.quiet import doubts, load
from pixelfast.bench.versions import versions
from pixelfast.machine import measure

BATCH, CHANNELS, SIZE = 16, 3, 32
LIKELIHOOD = DiscretizedLogisticMixture()
WARM_UP = 3


def plain(params: Tensor, x: Tensor) -> Tensor:
    """The same loss in plain torch, channel by channel."""
    return -LIKELIHOOD.log_prob(params, x).sum() / x.shape[0]


def published(params: Tensor, x: Tensor) -> Tensor:
    """The loss in the form of the published code: all channels and components at once, (N, H, W, C, M).

    Where a bin's probability is small, the density at its middle stands for it.
    """
    mixtures, half_bin = LIKELIHOOD.mixtures, 1 / (LIKELIHOOD.levels - 1)
    flat = params.float().permute(0, 2, 3, 1)
    value = (x.float() * (2 * half_bin) - 1).permute(0, 2, 3, 1).unsqueeze(-1)
    means, log_scales, coefficients = flat[..., mixtures:].unflatten(-1, (CHANNELS, 3, mixtures)).unbind(-2)
    log_scales, coefficients = log_scales.clamp(min=-7.0), torch.tanh(coefficients)
    red, green, blue = means.unbind(-2)
    green = green + coefficients[..., 0, :] * value[..., 0, :]
    blue = blue + coefficients[..., 1, :] * value[..., 0, :] + coefficients[..., 2, :] * value[..., 1, :]
    centred = value - torch.stack([red, green, blue], dim=-2)
    inverse_scales = torch.exp(-log_scales)
    upper, middle, lower = ((centred + shift) * inverse_scales for shift in (half_bin, 0.0, -half_bin))
    probability = torch.sigmoid(upper) - torch.sigmoid(lower)
    log_density = middle - log_scales - 2 * F.softplus(middle) + math.log(2 * half_bin)
    inner = torch.where(probability > 1e-5, torch.log(probability.clamp(min=1e-12)), log_density)
    highest = torch.where(value > 0.999, -F.softplus(lower), inner)
    log_bins = torch.where(value < -0.999, upper - F.softplus(upper), highest)
    scores = log_bins.sum(-2) + torch.log_softmax(flat[..., :mixtures], dim=-1)
    return -torch.logsumexp(scores, dim=-1).sum() / x.shape[0]


def losses() -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """What is compared, by name."""
    return {
        "pixelfast": LIKELIHOOD.loss,
        "eager": plain,
        "torch.compile": torch.compile(plain),
        "eager, published form": published,
        "torch.compile, published form": torch.compile(published),
    }


def arguments(dtype: torch.dtype = torch.float32, channels_last: bool = False) -> tuple[Tensor, Tensor]:
    """Parameters near those of a network at the start of training, and images."""
    torch.manual_seed(0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    planes = LIKELIHOOD.parameters(CHANNELS)
    params = torch.randn(BATCH, planes, SIZE, SIZE).to(dtype).contiguous(memory_format=layout)
    return params.requires_grad_(), torch.randint(LIKELIHOOD.levels, (BATCH, CHANNELS, SIZE, SIZE), dtype=torch.uint8)


def step(loss: Callable[[Tensor, Tensor], Tensor], params: Tensor, x: Tensor) -> Tensor:
    """Forward and backward."""
    params.grad = None
    value = loss(params, x)
    value.backward()
    return value.detach()


def spread(seconds: Sequence[float]) -> float:
    """Of the middle half of the repeats, relative to their median."""
    lower, middle, upper = statistics.quantiles(seconds, n=4)
    return (upper - lower) / middle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--save", type=Path, help="write what was measured to this JSON file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    params, x = arguments(getattr(torch, args.dtype), args.channels_last)
    compared = losses()

    clock = time.process_time if args.threads == 1 else time.perf_counter
    before, loads = measure(), [load()]
    seconds: dict[str, list[float]] = {name: [] for name in compared}
    for turn in range(args.rounds + WARM_UP):
        for name, loss in compared.items():
            start = clock()
            step(loss, params, x)
            if turn >= WARM_UP:
                seconds[name].append(clock() - start)
    loads.append(load())
    after = measure()
    peaks = {}
    for name, loss in compared.items():
        params.grad = None
        peaks[name] = peak_bytes(lambda loss=loss: step(loss, params, x))
    reasons = doubts(before, after, loads, [(name, spread(times)) for name, times in seconds.items()])

    layout = "channels last" if args.channels_last else "contiguous"
    gradient = params.numel() * params.element_size()
    print(f"{args.dtype}, {layout}, {_C.available_isas()[0]}, torch {torch.__version__}; {before.best(after)}")
    print(f"the gradient alone is {gradient / 2**20:.2f} MiB")
    rows = []
    for name, times in seconds.items():
        median = statistics.median(times)
        rows.append({"name": name, "seconds": median, "spread": spread(times), "peak_bytes": peaks[name]})
        print(
            f"{name:30}{1e3 * median:8.2f} ms {median / rows[0]['seconds']:6.2f}x"
            f"{peaks[name] / 2**20:9.2f} MiB {peaks[name] / rows[0]['peak_bytes']:6.2f}x"
        )
    for reason in reasons:
        print(f"doubt: {reason}")
    if args.save:
        found = {
            **versions(),
            "machine": {**asdict(before.best(after)), "isa": _C.available_isas()[0], "doubts": reasons},
            "setting": {
                "images": [BATCH, CHANNELS, SIZE, SIZE],
                "mixtures": LIKELIHOOD.mixtures,
                "dtype": args.dtype,
                "layout": layout,
                "rounds": args.rounds,
                "gradient_bytes": gradient,
            },
            "rows": rows,
        }
        args.save.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
