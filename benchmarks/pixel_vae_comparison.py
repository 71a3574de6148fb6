"""A plain VAE against one-level PixelVAEs of the same size, on binarised digits: bounds on the likelihood, and what of
them the latents carry.

    python benchmarks/pixel_vae_comparison.py --data DIR --out DIR [--seeds 0,1,2] [--steps N] [--layers 0,1,2]
        [--save results/pixel-vae-comparison]

All models have the same encoder, decoder and latents; `layers` counts the gated PixelCNN layers that draw the pixels,
and the VAE has none. Its encoder and decoder are widened until it has at least as many weights as the PixelVAE with
the most layers. Every model is trained by the recipe of `pixelvae-mnist` for the same steps, and evaluated on the whole
test split, binarised the same for all. Runs that --out holds already are not made again. --save: where to put NAME.json
and NAME.png.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pixelfast
from pixelfast.bench.plots import new_figure
from pixelfast.bench.versions import versions
from pixelfast.data import open_data
from pixelfast.models import registry
from pixelfast.training import Recipe, find_recipe, train
from pixelfast.training.bound_figures import bound_figures
from pixelfast.training.images import BINARISE, ImageSet

BASE = find_recipe("pixelvae-mnist")


def recipe_of(layers: int, hidden: int, seed: int, steps: int) -> Recipe:
    config = {**BASE.config, "layers": layers, "hidden": hidden}
    return replace(BASE, config=config, seed=seed, steps=steps, validate_every=steps, snapshot_every=steps)


def weights_of(config: Any) -> int:
    """How many a model has."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in registry.create(BASE.model, **config).parameters())


def same_size(layers: list[int]) -> dict[int, int]:
    """Features of encoder and decoder for each number of layers."""
    hidden = dict.fromkeys(layers, int(BASE.config["hidden"]))
    most = max(weights_of({**BASE.config, "layers": count}) for count in layers)
    while 0 in hidden and weights_of({**BASE.config, "layers": 0, "hidden": hidden[0]}) < most:
        hidden[0] += 1
    return hidden


def test_images(data: Path) -> Tensor:
    test = ImageSet(open_data(data, "test"), [BINARISE["stochastic"]], 0, conditional=False)
    return test.always_the_same(torch.arange(len(test)))[0]


def run_one(recipe: Recipe, data: Path, out: Path, images: Tensor) -> dict[str, Any]:
    """Trains a model, unless it is there, and evaluates it."""
    path = out / "model.safetensors"
    if not path.exists():
        train(recipe, data=data, out=out, progress=False)
    model: Any = pixelfast.load(path)
    found = bound_figures(model, images)
    return {
        "layers": recipe.config["layers"],
        "hidden": recipe.config["hidden"],
        "seed": recipe.seed,
        "weights": weights_of(recipe.config),
        "bound": found.total,
        "distortion": found.distortion,
        "kl": found.kl["latents"],
    }


def means(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and range over seeds, by number of layers."""
    found = []
    for layers in sorted({run["layers"] for run in runs}):
        mine = [run for run in runs if run["layers"] == layers]
        line: dict[str, Any] = {"layers": layers, "weights": mine[0]["weights"], "seeds": len(mine)}
        for name in ("bound", "kl"):
            values = [run[name] for run in mine]
            line[name] = {"mean": statistics.fmean(values), "lowest": min(values), "highest": max(values)}
        found.append(line)
    return found


def plot(lines: list[dict[str, Any]], path: Path) -> None:
    """The bound and the divergence against the number of layers."""
    figure = new_figure()
    figure.set_size_inches(8, 3.6)
    panels = zip(figure.subplots(1, 2), ("bound", "kl"), ("-ELBO, nats", "KL of the latents, nats"), strict=True)
    for axes, name, label in panels:
        middle = [line[name]["mean"] for line in lines]
        below = [line[name]["mean"] - line[name]["lowest"] for line in lines]
        above = [line[name]["highest"] - line[name]["mean"] for line in lines]
        axes.errorbar([line["layers"] for line in lines], middle, [below, above], marker="o", capsize=4)
        axes.set_xlabel("PixelCNN layers (0: VAE)")
        axes.set_ylabel(label)
        axes.set_xticks([line["layers"] for line in lines])
        axes.grid(alpha=0.3)
        if name == "kl":
            axes.set_ylim(bottom=0)
    figure.suptitle(f"binarised digits, test split, {lines[0]['seeds']} seeds (bars: lowest and highest)", fontsize=10)
    figure.savefig(path, format="png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="a folder for the runs")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--layers", default="0,1,2")
    parser.add_argument("--save", type=Path)
    args = parser.parse_args()
    layers = [int(part) for part in args.layers.split(",")]
    hidden = same_size(layers)
    images = test_images(args.data)
    runs: list[dict[str, Any]] = []
    for seed in (int(part) for part in args.seeds.split(",")):
        for count in layers:
            recipe = recipe_of(count, hidden[count], seed, args.steps)
            out = args.out / f"layers{count}-seed{seed}-steps{args.steps}"
            runs.append(run_one(recipe, args.data, out, images))
            last = runs[-1]
            print(
                f"{count} layers, {last['weights']:,} weights, seed {seed}: "
                f"-ELBO {last['bound']:.2f} nats, of which KL {last['kl']:.2f}",
                flush=True,
            )
        report(runs, args.steps, args.save)


def report(runs: list[dict[str, Any]], steps: int, save: Path | None) -> None:
    """What the seeds so far show, printed and, with `save`, written."""
    lines = means(runs)
    if lines[0]["layers"] == 0:
        for line in lines[1:]:
            gain = lines[0]["bound"]["mean"] - line["bound"]["mean"]
            share = line["kl"]["mean"] / lines[0]["kl"]["mean"]
            print(f"{line['layers']} layers: {gain:.2f} nats better than the VAE, KL {share:.2f} times its", flush=True)
    if save is not None:
        what = {"recipe": BASE.name, "steps": steps, "versions": versions(), "means": lines, "runs": runs}
        save.with_suffix(".json").write_text(json.dumps(what, indent=1) + "\n")
        plot(lines, save.with_suffix(".png"))


if __name__ == "__main__":
    main()
