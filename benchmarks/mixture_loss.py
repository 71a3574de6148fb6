"""Time and memory of the mixture loss, forward and backward, beside plain torch and torch.compile.

    python benchmarks/mixture_loss.py [--threads 1] [--dtype float32] [--channels-last] [--rounds 15]

Batch 16, 32x32x3, 10 mixtures. The three take turns; a figure is the fastest round of each. Memory is what tensors take
beyond parameters and images; the gradient of the parameters, which any implementation must return, is part of it.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable

import torch
from torch import Tensor

from pixelfast import _C, DiscretizedLogisticMixture
from pixelfast.bench.memory import peak_bytes

BATCH, CHANNELS, SIZE = 16, 3, 32
LIKELIHOOD = DiscretizedLogisticMixture()


def plain(params: Tensor, x: Tensor) -> Tensor:
    """The loss in plain torch."""
    return -LIKELIHOOD.log_prob(params, x).sum() / x.shape[0]


def arguments(dtype: torch.dtype, channels_last: bool) -> tuple[Tensor, Tensor]:
    """Parameters near those of a network at the start of training, and images."""
    torch.manual_seed(0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    planes = LIKELIHOOD.parameters(CHANNELS)
    params = torch.randn(BATCH, planes, SIZE, SIZE).to(dtype).contiguous(memory_format=layout)
    return params.requires_grad_(), torch.randint(LIKELIHOOD.levels, (BATCH, CHANNELS, SIZE, SIZE), dtype=torch.uint8)


def step(loss: Callable[[Tensor, Tensor], Tensor], params: Tensor, x: Tensor) -> None:
    """Forward and backward."""
    params.grad = None
    loss(params, x).backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    params, x = arguments(getattr(torch, args.dtype), args.channels_last)
    losses = {"pixelfast": LIKELIHOOD.loss, "eager": plain, "torch.compile": torch.compile(plain)}

    seconds = dict.fromkeys(losses, float("inf"))
    for turn in range(args.rounds + 3):
        for name, loss in losses.items():
            start = time.perf_counter()
            step(loss, params, x)
            if turn >= 3:
                seconds[name] = min(seconds[name], time.perf_counter() - start)
    peaks = {}
    for name, loss in losses.items():
        params.grad = None
        peaks[name] = peak_bytes(lambda loss=loss: step(loss, params, x))

    layout = "channels last" if args.channels_last else "contiguous"
    print(
        f"{args.dtype}, {layout}, {args.threads} threads, {_C.available_isas()[0]}, torch {torch.__version__}, "
        f"{platform.machine()}; gradient {params.numel() * params.element_size() / 2**20:.2f} MiB"
    )
    for name in losses:
        print(
            f"{name.ljust(14)}{1e3 * seconds[name]:8.2f} ms {seconds[name] / seconds['pixelfast']:6.2f}x"
            f"{peaks[name] / 2**20:9.2f} MiB {peaks[name] / peaks['pixelfast']:6.2f}x"
        )


if __name__ == "__main__":
    main()
