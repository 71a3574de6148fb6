"""pixelfast models: the shipped models, the classes and the recipes; or one model, and what its pixels depend on."""

from __future__ import annotations

import argparse
import inspect
from typing import Any

from pixelfast import check_causality, checkpoints, shipped, training
from pixelfast.cli.arguments import add_layout, filename, integer
from pixelfast.cli.loading import check_pixels, named_model
from pixelfast.cli.outputs import Outputs
from pixelfast.errors import PixelfastError
from pixelfast.models import registry
from pixelfast.stages import in_stages


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("models", help="the models there are", description=__doc__)
    parser.add_argument("model", metavar="MODEL", nargs="?", help="a shipped model's name or a checkpoint file")
    add_layout(parser)
    parser.add_argument(
        "--receptive-field", type=filename, metavar="PNG", help="draw what one pixel of MODEL depends on, and what not"
    )
    parser.add_argument(
        "--at",
        type=integer(0),
        nargs=2,
        metavar=("ROW", "COLUMN"),
        help="the pixel that --receptive-field is for (default: the one in the middle)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    if args.at and not args.receptive_field:
        raise PixelfastError("--at is a pixel for --receptive-field: give both")
    if args.model is None:
        if args.receptive_field or args.layout or args.shape or args.config:
            raise PixelfastError("give the MODEL that --receptive-field, --layout, --shape or --config is about")
        list_all()
        return
    model = named_model(args)
    print(f"{args.model}: {summary(model)}")
    print(f"  {first_paragraph(inspect.getdoc(type(model)) or '')}")
    if args.receptive_field:
        draw_receptive_field(model, args.receptive_field, args.at or (None, None))


def draw_receptive_field(model: Any, path: str, at: tuple[int | None, int | None]) -> None:
    """Writes the picture and says how much is in it."""
    check_pixels(model, "--receptive-field")
    if in_stages(model):
        raise PixelfastError("--receptive-field is of one network; this model samples in stages")
    report = check_causality(model)
    field = report.receptive_field(*at)
    with Outputs() as outputs:
        report.plot(outputs.open(path), *at)
        outputs.commit()
    print(f"  {report.message}; the pixel reads {field.sum():,} of {field.size:,} inputs")
    print(f"wrote {path}")


def summary(model: Any) -> str:
    """Class, size of the images and number of parameters."""
    count = sum(parameter.numel() for parameter in model.parameters())
    return f"{registry.name_of(model)}, images {'x'.join(map(str, model.shape))}, {count:,} parameters"


def list_all() -> None:
    """Everything there is."""
    print("shipped models (names that commands take in place of a file)")
    for name in shipped.names():
        path = shipped.weights(name)
        print(f"  {name}: {summary(checkpoints.load(path))}, {path.stat().st_size / 1e6:.1f} MB")
        print(f"    {first_paragraph(shipped.card(name))}")
    print("classes (pixelfast.models)")
    for name, kind in registry.MODELS.items():
        print(f"  {name}: {kind.__name__}. {first_paragraph(inspect.getdoc(kind) or '')}")
    print("training recipes (pixelfast train)")
    for name, recipe in training.RECIPES.items():
        print(f"  {name}: {recipe.model}, {recipe.steps:,} steps of {recipe.batch_size} images")


def first_paragraph(text: str) -> str:
    """The first paragraph that is not a heading, on one line."""
    paragraphs = (" ".join(part.split()) for part in text.split("\n\n"))
    return next((part for part in paragraphs if part and not part.startswith(("#", "---"))), "")
