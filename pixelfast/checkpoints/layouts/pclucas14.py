"""PixelCNN++ of the PyTorch port most people have (pclucas14/pixel-cnn-pp), bare or saved from DataParallel.

Same network as OpenAI's, with two differences: the up-sampling layers' weight norm is per input channel, and
dropout took whole channels. The first is kept by the configuration; training goes on with dropout of single
activations.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pixelfast.checkpoints.layouts.base import Converted, Hints, Shapes, image_shape, weight_norm_name
from pixelfast.checkpoints.shapes import check_shapes
from pixelfast.checkpoints.unfilled import Unfilled
from pixelfast.errors import CheckpointError
from pixelfast.models import registry

NAME = "pclucas14"

MODEL = "pixelcnn_plus_plus"
USUAL_SIDE = {1: 28, 3: 32}


def recognises(shapes: Shapes) -> bool:
    """Its stem and head by name, under either naming of weight norm."""
    names = {weight_norm_name(name) for name in shapes}
    return {"u_init.conv.weight_v", "nin_out.lin_a.weight_v"} <= names


def convert(tensors: Mapping[str, Tensor], hints: Hints) -> Converted:
    """See `layouts.base.Layout`. The shape is 32 x 32 for colour and 28 x 28 for grey images unless `hints`
    says otherwise."""
    if hints.dilations is not None:
        raise CheckpointError("`dilations` does not apply to PixelCNN++; leave it out")
    theirs = {weight_norm_name(name): tensor for name, tensor in tensors.items()}
    if len(theirs) < len(tensors):
        raise CheckpointError("the same tensor is there under the old and the present name of weight norm")
    shapes = {name: tuple(tensor.shape) for name, tensor in theirs.items()}
    config = _config(shapes, hints)
    with torch.device("meta"), Unfilled():
        state = registry.create(MODEL, **config).state_dict()
    renamed = {name: _their_name(name) for name in state}
    check_shapes(shapes, {renamed[name]: _their_shape(name, value) for name, value in state.items()})
    ours = {name: theirs[renamed[name]].reshape(value.shape) for name, value in state.items()}
    return Converted(MODEL, config, ours)


def _config(shapes: Shapes, hints: Hints) -> dict[str, object]:
    stem, head = shapes.get("u_init.conv.weight_v", ()), shapes.get("nin_out.lin_a.weight_v", ())
    channels = stem[1] - 1 if len(stem) == 4 else 0
    if channels not in USUAL_SIDE or len(head) != 2:
        raise CheckpointError(f"not a PixelCNN++ for 1 or 3 channels: u_init is {stem}, nin_out is {head}")
    per_mixture = 3 if channels == 1 else 10
    if head[0] == 0 or head[0] % per_mixture:
        raise CheckpointError(f"nin_out has {head[0]} outputs, not a multiple of {per_mixture} per mixture")
    blocks = {name.split(".")[3] for name in shapes if name.startswith("up_layers.0.u_stream.")}
    return {
        "shape": image_shape(hints, channels, USUAL_SIDE[channels]),
        "blocks": len(blocks),
        "filters": stem[0],
        "mixtures": head[0] // per_mixture,
        "deconv_norm": "in",
    }


STEMS = {"stem_vertical": "u_init.conv", "stem_above": "ul_init.0.conv", "stem_left": "ul_init.1.conv"}
LEVELS = {"encoder": "up_layers", "decoder": "down_layers"}
STREAMS = {"vertical": "u_stream", "horizontal": "ul_stream"}
LAYERS = {"conv_in": "conv_input.conv", "skip": "nin_skip.lin_a", "conv_out": "conv_out.conv"}
RESIZERS = {"down": ("downsize", "conv"), "up": ("upsize", "deconv")}


def _their_name(name: str) -> str:
    """The name in this layout of one of our tensors."""
    *path, kind = name.split(".")
    match path:
        case ["head"]:
            return f"nin_out.lin_a.{kind}"
        case [stem]:
            return f"{STEMS[stem]}.{kind}"
        case [level, index, stream, block, layer]:
            return f"{LEVELS[level]}.{index}.{STREAMS[stream]}.{block}.{LAYERS[layer]}.{kind}"
        case [resizer, index]:
            direction, stack = resizer.split("_")
            prefix, layer = RESIZERS[direction]
            return f"{prefix}_{STREAMS[stack]}.{index}.{layer}.{kind}"
    raise AssertionError(f"no name in the {NAME} layout for {name}")


def _their_shape(name: str, ours: Tensor) -> tuple[int, ...]:
    """Magnitudes have their weight's number of axes, and a 1x1 layer is a linear one."""
    shape = tuple(ours.shape)
    linear = name.startswith("head.") or ".skip." in name
    if name.endswith("weight_v"):
        return shape[:2] if linear else shape
    if name.endswith("weight_g"):
        return (*shape, 1) if linear else (*shape, 1, 1, 1)
    return shape
