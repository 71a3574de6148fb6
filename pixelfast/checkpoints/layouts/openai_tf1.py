"""PixelCNN++ of OpenAI's TensorFlow code (openai/pixel-cnn), as its Saver wrote it.

Layers are numbered by kind in the order in which the network calls them. Of every weight the file has a moving average,
which is what was tested and sampled: it is what is loaded; a file without averages gives its plain weights. Weight norm
is per output channel everywhere, also in the up-sampling layers. Adam's averages, which have no names, are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from pixelfast.checkpoints.containers import brief
from pixelfast.checkpoints.layouts.base import Converted, Hints, Shapes, image_shape
from pixelfast.checkpoints.shapes import check_shapes
from pixelfast.checkpoints.unfilled import Unfilled
from pixelfast.errors import CheckpointError
from pixelfast.models import registry

NAME = "openai-tf1"

MODEL = "pixelcnn_plus_plus"
SCOPE = "model/"
AVERAGE = "/ExponentialMovingAverage"
OPTIMIZER = re.compile(r"Variable(_\d+)?")
USUAL_SIDE = {1: 28, 3: 32}
RESOLUTIONS = 3
KINDS = {"weight_v": "V", "weight_g": "g", "bias": "b"}


def recognises(shapes: Shapes) -> bool:
    """Numbered convolutions and up-sampling layers; PixelSNAIL's files have none of the latter."""
    return f"{SCOPE}conv2d_0/V" in shapes and f"{SCOPE}deconv2d_0/V" in shapes


def convert(tensors: Mapping[str, Tensor], hints: Hints) -> Converted:
    """See `layouts.base.Layout`. The shape is 32 x 32 for colour and 28 x 28 for grey images unless `hints` says
    otherwise."""
    if hints.dilations is not None:
        raise CheckpointError("`dilations` does not apply to PixelCNN++; leave it out")
    theirs = _averages({name: tensor for name, tensor in tensors.items() if not OPTIMIZER.fullmatch(name)})
    shapes = {name: tuple(tensor.shape) for name, tensor in theirs.items()}
    config = _config(shapes, hints)
    with torch.device("meta"), Unfilled():
        state = registry.create(MODEL, **config).state_dict()
    names = _names(config["blocks"], config["classes"] is not None)
    renamed = {name: _their_name(name, names) for name in state}
    check_shapes(shapes, {renamed[name]: _their_shape(renamed[name], value) for name, value in state.items()})
    ours = {name: _ours(renamed[name], theirs[renamed[name]], value) for name, value in state.items()}
    return Converted(MODEL, config, ours)


def _averages(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The moving averages by the names of their weights; the weights themselves where there are no averages."""
    averages = {name.removesuffix(AVERAGE): tensor for name, tensor in tensors.items() if name.endswith(AVERAGE)}
    plain = {name: tensor for name, tensor in tensors.items() if not name.endswith(AVERAGE)}
    if not averages:
        return plain
    without = sorted(plain.keys() ^ averages.keys())
    if without:
        raise CheckpointError(
            f"{brief(without[0])} and {len(without) - 1} others have no moving average, or are one of no weight; a "
            "whole checkpoint has both of every weight"
        )
    return averages


def _config(shapes: Shapes, hints: Hints) -> dict[str, Any]:
    stem = shapes.get(f"{SCOPE}conv2d_0/V", ())
    dense = sum(bool(re.fullmatch(rf"{SCOPE}dense_\d+/V", name)) for name in shapes)
    head = shapes.get(f"{SCOPE}dense_{dense - 1}/V", ())
    channels = stem[2] - 1 if len(stem) == 4 else 0
    if channels not in USUAL_SIDE or len(head) != 2:
        raise CheckpointError(f"not a PixelCNN++ for 1 or 3 channels: conv2d_0 is {stem}, the last dense is {head}")
    per_mixture = 3 if channels == 1 else 10
    if head[1] == 0 or head[1] % per_mixture:
        raise CheckpointError(
            f"the last layer has {head[1]} outputs, not a multiple of {per_mixture} per mixture (networks of the "
            "energy distance have no likelihood)"
        )
    layers = sum(bool(re.fullmatch(rf"{SCOPE}conv2d_\d+/V", name)) for name in shapes)
    blocks, left = divmod(layers - CONVOLUTIONS_WITHOUT_BLOCKS, CONVOLUTIONS_PER_BLOCK)
    if left or blocks < 1:
        raise CheckpointError(f"{layers} convolutions are not those of a PixelCNN++ with some blocks per resolution")
    condition = shapes.get(f"{SCOPE}conditional_weights_0/hw", ())
    return {
        "shape": image_shape(hints, channels, USUAL_SIDE[channels]),
        "blocks": blocks,
        "filters": stem[3],
        "mixtures": head[1] // per_mixture,
        "classes": condition[0] if condition else None,
        "deconv_norm": "out",
    }


# Two stacks, two convolutions in a block, six levels, of which the last two have a block more; stems and down-sampling.
CONVOLUTIONS_PER_BLOCK = 2 * 2 * 2 * RESOLUTIONS
CONVOLUTIONS_WITHOUT_BLOCKS = 2 * 2 * (RESOLUTIONS - 1) + 3 + 2 * (RESOLUTIONS - 1)


def _calls(blocks: int, conditional: bool) -> Iterator[tuple[str, str]]:
    """Our layers with their kind there, in the order in which the network calls them."""

    def block(name: str, skips: bool) -> Iterator[tuple[str, str]]:
        yield f"{name}.conv_in", "conv2d"
        if skips:
            yield f"{name}.skip", "dense"
        yield f"{name}.conv_out", "conv2d"
        if conditional:
            yield f"{name}.condition", "conditional_weights"

    for stem in ("stem_vertical", "stem_above", "stem_left"):
        yield stem, "conv2d"
    for level in range(RESOLUTIONS):
        for index in range(blocks):
            yield from block(f"encoder.{level}.vertical.{index}", False)
            yield from block(f"encoder.{level}.horizontal.{index}", True)
        if level < RESOLUTIONS - 1:
            yield f"down_vertical.{level}", "conv2d"
            yield f"down_horizontal.{level}", "conv2d"
    for level in range(RESOLUTIONS):
        for index in range(blocks + (level > 0)):
            yield from block(f"decoder.{level}.vertical.{index}", True)
            yield from block(f"decoder.{level}.horizontal.{index}", True)
        if level < RESOLUTIONS - 1:
            yield f"up_vertical.{level}", "deconv2d"
            yield f"up_horizontal.{level}", "deconv2d"
    yield "head", "dense"


def _names(blocks: int, conditional: bool) -> dict[str, str]:
    """Our layers' names -> theirs."""
    counts: dict[str, int] = {}
    names = {}
    for ours, kind in _calls(blocks, conditional):
        names[ours] = f"{SCOPE}{kind}_{counts.setdefault(kind, 0)}"
        counts[kind] += 1
    return names


def _their_name(name: str, names: Mapping[str, str]) -> str:
    layer, _, part = name.rpartition(".")
    return f"{names[layer]}/{'hw' if layer.endswith('.condition') else KINDS[part]}"


# Ours: (out, in, rows, columns), of up-sampling layers (in, out, rows, columns). Theirs: (rows, columns, in, out) and
# (rows, columns, out, in); dense (in, out).
TO_THEIRS = (2, 3, 1, 0)
TO_OURS = (3, 2, 0, 1)


def _their_shape(theirs: str, ours: Tensor) -> tuple[int, ...]:
    shape = tuple(ours.shape)
    if not theirs.endswith("/V"):
        return shape
    if "/dense_" in theirs:
        return shape[1], shape[0]
    return tuple(shape[axis] for axis in TO_THEIRS)


def _ours(theirs: str, tensor: Tensor, ours: Tensor) -> Tensor:
    if not theirs.endswith("/V"):
        return tensor
    whole = tensor[None, None] if "/dense_" in theirs else tensor
    return whole.permute(TO_OURS).reshape(ours.shape).contiguous()
