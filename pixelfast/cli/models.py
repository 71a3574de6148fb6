"""pixelfast models: the shipped models, the classes and the recipes."""

from __future__ import annotations

import argparse
import inspect
from typing import Any

from pixelfast import checkpoints, shipped, training
from pixelfast.models import registry


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("models", help="the models there are", description=__doc__)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    print("shipped models (names that commands take in place of a file)")
    for name in shipped.names():
        path = shipped.weights(name)
        model: Any = checkpoints.load(path)
        count = sum(parameter.numel() for parameter in model.parameters())
        print(
            f"  {name}: {registry.name_of(model)}, images {'x'.join(map(str, model.shape))}, "
            f"{count:,} parameters, {path.stat().st_size / 1e6:.1f} MB"
        )
        print(f"    {first_paragraph(shipped.card(name))}")
    print("classes (pixelfast.models)")
    for name, kind in registry.MODELS.items():
        description = first_paragraph(inspect.getdoc(kind) or "")
        print(f"  {name}: {kind.__name__}. {description}")
    print("training recipes (pixelfast train)")
    for name, recipe in training.RECIPES.items():
        print(f"  {name}: {recipe.model}, {recipe.steps:,} steps of {recipe.batch_size} images")


def first_paragraph(text: str) -> str:
    """The first paragraph that is not a heading, on one line."""
    paragraphs = (" ".join(part.split()) for part in text.split("\n\n"))
    return next((part for part in paragraphs if part and not part.startswith(("#", "---"))), "")
