"""What predictive sampling gains over plain sampling of the same images, in runs that alternate.

    python benchmarks/predictive_gain.py [--pairs N] [CHECKPOINT ...]

One thread is timed by its processor time, several by the clock. The gain is the median of plain / predictive over
pairs of runs, with its 95 % confidence interval; images must agree, or the benchmark fails.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from typing import Any

import numpy as np
import torch

import pixelfast
from pixelfast.backends.base import Job
from pixelfast.shipped import DEFAULT, weights

PLAIN = 1
WARM_UP = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="*", help="default: the shipped model, and PixelCNN++ with random weights")
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--lookahead", type=int, help="numbers computed together; default: as many as pays")
    args = parser.parse_args()
    torch.manual_seed(0)
    models: dict[str, Any] = {name: pixelfast.load(name) for name in args.checkpoints}
    if not models:
        models = {
            DEFAULT: pixelfast.load(weights(DEFAULT)),
            "pixelcnn++, 40 filters, random": pixelfast.models.PixelCNNPlusPlus(filters=40).eval(),
        }
    print(f"{'':42}{'plain ms':>10}{'ahead ms':>10}{'gain':>8}{'95 %':>18}{'evaluations':>14}{'accepted':>10}")
    for name, model in models.items():
        sampler = pixelfast.compile(model, backend="cpu")
        for images, threads in ((1, 1), (1, 2), (2, 2), (2, 1)):
            report(f"{name}: {images} x, {threads} threads", sampler, images, threads, 0.0, args)
        report(f"{name}: 1 x, upper half given", sampler, 1, 1, 0.5, args)
        report(f"{name}: 1 x, all given", sampler, 1, 1, 1.0, args)


def report(title: str, sampler: pixelfast.Sampler, images: int, threads: int, share: float, args: Any) -> None:
    """One line: `images` images on `threads` threads, the upper `share` of their rows given."""
    clock = time.process_time if threads == 1 else time.perf_counter
    backend, shape = sampler.backend, (images, *sampler.shape)
    job = Job(
        images,
        sample_ids=np.arange(images, dtype=np.uint64),
        threads=threads,
        conditions=sampler._conditions(sampler._problem.batch_condition(None, images), 0, images),
    )
    if share:
        mask = np.zeros(shape, dtype=bool)
        mask[:, :, : round(share * shape[2])] = True
        job = dataclasses.replace(job, known=backend.run(dataclasses.replace(job, seed=10**6)).images, mask=mask)
    seconds: dict[int | None, list[float]] = {PLAIN: [], args.lookahead: []}
    totals = dict.fromkeys(("forecasts", "forecasts_accepted", "evaluations", "plain_evaluations"), 0)
    for pair in range(WARM_UP + args.pairs):
        made = {}
        for lookahead in (PLAIN, args.lookahead) if pair % 2 else (args.lookahead, PLAIN):
            started = clock()
            result = backend.run(dataclasses.replace(job, seed=pair, lookahead=lookahead))
            seconds[lookahead].append(clock() - started)
            made[lookahead] = result.images
            if lookahead != PLAIN:
                totals = {key: value + result.stats[key] for key, value in totals.items()}
        assert np.array_equal(made[PLAIN], made[args.lookahead]), "predictive sampling changed an image"
    plain, ahead = (np.array(seconds[key][WARM_UP:]) for key in (PLAIN, args.lookahead))
    gain, low, high = median_ratio(plain, ahead)
    accepted = totals["forecasts_accepted"] / totals["forecasts"] if totals["forecasts"] else 0
    print(
        f"{title:42}{1e3 * np.median(plain):10.2f}{1e3 * np.median(ahead):10.2f}{gain:8.3f}"
        f"{f'{low:.3f} to {high:.3f}':>18}{totals['evaluations'] / totals['plain_evaluations']:14.0%}{accepted:10.0%}",
        flush=True,
    )


def median_ratio(plain: np.ndarray, ahead: np.ndarray) -> tuple[float, float, float]:
    """Median of the ratios, and its 95 % interval from 1,000 resamplings."""
    ratios = plain / ahead
    chosen = np.random.default_rng(0).integers(len(ratios), size=(1000, len(ratios)))
    low, high = np.quantile(np.median(ratios[chosen], axis=1), [0.025, 0.975])
    return float(np.median(ratios)), float(low), float(high)


if __name__ == "__main__":
    main()
