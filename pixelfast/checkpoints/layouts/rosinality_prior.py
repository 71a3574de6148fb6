"""The PixelSNAIL priors of rosinality/vq-vae-2-pytorch: the top one with attention, the bottom one with a condition.

Masked kernels are stored whole; entries under the mask may be anything and count for nothing, the norm being taken
after masking, as there. Attention has 8 heads; nothing in the file says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pixelfast.checkpoints.layouts.base import Converted, Hints, Shapes
from pixelfast.checkpoints.shapes import check_shapes
from pixelfast.checkpoints.unfilled import Unfilled
from pixelfast.errors import CheckpointError
from pixelfast.models import registry

MODEL = "conditional_pixel_snail"
SIGNS = {"horizontal.conv.conv.weight_v", "vertical.conv.conv.weight_v", "background"}
HEADS = 8
USUAL_DROPOUT = 0.1

# By the names their training's arguments have.
ARGUMENTS = {"channel": "features", "n_res_channel": "hidden", "n_res_block": "blocks"}


def convert(theirs: Mapping[str, Tensor], hints: Hints) -> Converted:
    """See `layouts.base.Layout`."""
    shapes = {name: tuple(tensor.shape) for name, tensor in theirs.items()}
    config = _config(theirs, shapes, hints)
    with torch.device("meta"), Unfilled():
        model = registry.create(MODEL, **config)
    state = model.state_dict()
    # There the projection of the condition has no bias.
    renamed = {name: _their_name(name, config) for name in state if not name.endswith(".condition.bias")}
    needed = {their: _their_shape(name, state[name]) for name, their in renamed.items()}
    check_shapes(shapes, {**needed, "background": (1, 2, *config["shape"][1:])})
    _check_background(theirs["background"])
    ours = {
        name: theirs[renamed[name]].reshape(value.shape)
        if name in renamed
        else torch.zeros(value.shape, dtype=theirs["background"].dtype)
        for name, value in state.items()
    }
    return Converted(MODEL, config, ours)


def _config(theirs: Mapping[str, Tensor], shapes: Shapes, hints: Hints) -> dict[str, Any]:
    stem, background = (shapes.get(name, ()) for name in ("horizontal.conv.conv.weight_v", "background"))
    if len(stem) != 4 or len(background) != 4 or 0 in stem or 0 in background:
        raise CheckpointError(f"not a PixelSNAIL: horizontal.conv.conv.weight_v is {stem}, background is {background}")
    features, levels, _, kernel = stem
    shape = [1, *background[2:]]
    if hints.shape is not None and list(hints.shape) != shape:
        raise CheckpointError(f"the file is for maps {tuple(shape)}: leave `shape` out")
    wide = shapes.get("blocks.0.resblocks.0.conv1.conv.conv.weight_v") or (features,)
    conditional = shapes.get("cond_resnet.blocks.0.conv.weight_v")
    config: dict[str, Any] = {
        "shape": shape,
        "levels": levels,
        "features": features,
        "hidden": wide[0],
        "parts": _count(shapes, "blocks."),
        "blocks": _count(shapes, "blocks.0.resblocks."),
        "kernel_size": kernel,
        "heads": HEADS if any(".causal_attention." in name for name in shapes) else 0,
        "head_blocks": _count(shapes, "out.") - 1,
        "dropout": _dropout(hints),
    }
    if conditional is not None:
        if len(conditional) != 4 or shape[1] % 2 or shape[2] % 2:
            raise CheckpointError(f"not a condition of half the size: {tuple(shape)} under {conditional}")
        config |= {
            "condition_shape": [1, shape[1] // 2, shape[2] // 2],
            "condition_levels": conditional[1],
            "condition_hidden": conditional[0],
            "condition_blocks": _count(shapes, "cond_resnet.blocks.") - 1,
            "condition_kernel_size": conditional[3],
        }
    for argument, own in ARGUMENTS.items():
        said = hints.arguments.get(argument, config[own])
        if said != config[own]:
            raise CheckpointError(f"its arguments say {argument} {str(said)[:20]}, its tensors {config[own]}")
    return config


def _count(shapes: Shapes, prefix: str) -> int:
    """How many members of a list of modules have tensors, but for those without any."""
    return len({name.removeprefix(prefix).split(".")[0] for name in shapes if name.startswith(prefix)})


def _dropout(hints: Hints) -> float:
    given = hints.arguments.get("dropout", USUAL_DROPOUT)
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given < 1:
        raise CheckpointError(
            f"its arguments say dropout {str(given)[:20]}, which must be from 0 up to, not including, 1"
        )
    return float(given)


def _check_background(background: Tensor) -> None:
    """It is computed here, so it must be what is computed there."""
    height, width = background.shape[2:]
    rows = (torch.arange(height).float() - height / 2) / height
    columns = (torch.arange(width).float() - width / 2) / width
    wanted = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None]
    if not torch.allclose(background.float(), wanted, atol=1e-2):
        raise CheckpointError("background is not row and column from -1/2 up to 1/2")


CONVOLUTIONS = {"conv_in": "conv1", "conv_out": "conv2", "skip": "aux_conv", "condition": "condition"}
NARROW = {"content": "key_resblock", "question": "query_resblock", "merge": "out_resblock"}


def _their_name(name: str, config: Mapping[str, Any]) -> str:
    """The name in this layout of one of our tensors."""
    *path, kind = name.split(".")
    match path:
        case ["stem_above"]:
            return f"horizontal.conv.conv.{kind}"
        case ["stem_left"]:
            return f"vertical.conv.conv.{kind}"
        case ["head"]:
            return f"out.{config['head_blocks'] + 1}.conv.{kind}"
        case ["head_blocks", block, layer]:
            return f"out.{block}.{CONVOLUTIONS[layer]}.conv.{kind}"
        case ["condition_network", "stem"]:
            return f"cond_resnet.blocks.0.conv.{kind}"
        case ["condition_network", "blocks", block, layer]:
            return f"cond_resnet.blocks.{int(block) + 1}.{CONVOLUTIONS[layer]}.conv.{kind}"
        case ["parts", part, "blocks", block, "condition"]:
            return f"blocks.{part}.resblocks.{block}.condition.conv.{kind}"
        case ["parts", part, "blocks", block, layer]:
            return f"blocks.{part}.resblocks.{block}.{CONVOLUTIONS[layer]}.conv.conv.{kind}"
        case ["parts", part, "mix"]:
            return f"blocks.{part}.out.conv.{kind}"
        case ["parts", part, "query" | "key" | "value" as projection]:
            return f"blocks.{part}.causal_attention.{projection}.{kind}"
        case ["parts", part, block, layer]:
            return f"blocks.{part}.{NARROW[block]}.{CONVOLUTIONS[layer]}.conv.{kind}"
    raise AssertionError(f"no name in this layout for {name}")


def _their_shape(name: str, ours: Tensor) -> tuple[int, ...]:
    """Magnitudes have their weight's number of axes, and what attention reads is made by linear layers."""
    shape = tuple(ours.shape)
    linear = name.split(".")[-2] in ("query", "key", "value")
    if name.endswith("weight_v"):
        return shape[:2] if linear else shape
    if name.endswith("weight_g"):
        return (*shape, 1) if linear else (*shape, 1, 1, 1)
    return shape
