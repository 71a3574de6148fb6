"""Gated PixelCNN of the UvA deep-learning notebooks, tutorial 12.

Its kernels are stored whole, with a mask buffer beside each; the masks are checked and only the live taps
are kept. The dilations are not in the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pixelfast.checkpoints.layouts.base import Converted, Hints, Shapes, image_shape
from pixelfast.checkpoints.shapes import check_shapes
from pixelfast.errors import CheckpointError

NAME = "uvadlc"

TUTORIAL_DILATIONS = (1, 2, 1, 4, 1, 2, 1)
TUTORIAL_SIDE = 28


def recognises(shapes: Shapes) -> bool:
    """Masked stacks with a mask buffer each."""
    return "conv_vstack.mask" in shapes and "conv_layers.0.conv_vert_to_horiz.weight" in shapes


def convert(tensors: Mapping[str, Tensor], hints: Hints) -> Converted:
    """See `layouts.base.Layout`. The shape is 28 x 28 and, for 7 layers, the dilations are the tutorial's
    unless `hints` says otherwise."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    hidden, channels, kernel = _stem(shapes)
    layers = len({name.split(".")[1] for name in shapes if name.startswith("conv_layers.")})
    outputs = (shapes.get("conv_out.bias") or (0,))[0]
    if outputs < 2 * channels or outputs % channels:
        raise CheckpointError(f"conv_out has {outputs} outputs, not a whole number of levels for {channels} channels")
    check_shapes(shapes, _needed_shapes(channels, hidden, kernel, layers, outputs))
    _check_masks(tensors, kernel, layers)

    live = kernel // 2
    ours = {
        "stem_vertical.weight": tensors["conv_vstack.conv.weight"][:, :, :live],
        "stem_vertical.bias": tensors["conv_vstack.conv.bias"],
        "stem_horizontal.weight": tensors["conv_hstack.conv.weight"][..., :live],
        "stem_horizontal.bias": tensors["conv_hstack.conv.bias"],
        "head.weight": tensors["conv_out.weight"],
        "head.bias": tensors["conv_out.bias"],
    }
    for layer in range(layers):
        block, theirs = f"blocks.{layer}", f"conv_layers.{layer}"
        ours[f"{block}.vertical.weight"] = tensors[f"{theirs}.conv_vert.conv.weight"][:, :, : live + 1]
        ours[f"{block}.vertical.bias"] = tensors[f"{theirs}.conv_vert.conv.bias"]
        ours[f"{block}.horizontal.weight"] = tensors[f"{theirs}.conv_horiz.conv.weight"][..., : live + 1]
        ours[f"{block}.horizontal.bias"] = tensors[f"{theirs}.conv_horiz.conv.bias"]
        for name, their_name in (("link", "conv_vert_to_horiz"), ("mix", "conv_horiz_1x1")):
            ours[f"{block}.{name}.weight"] = tensors[f"{theirs}.{their_name}.weight"]
            ours[f"{block}.{name}.bias"] = tensors[f"{theirs}.{their_name}.bias"]
    config = {
        "shape": image_shape(hints, channels, TUTORIAL_SIDE),
        "levels": outputs // channels,
        "hidden": hidden,
        "dilations": _dilations(hints.dilations, layers),
        "kernel_size": kernel,
        "channel_order": "independent",
    }
    return Converted("gated_pixelcnn", config, ours)


def _stem(shapes: Shapes) -> tuple[int, int, int]:
    shape = shapes.get("conv_vstack.conv.weight", ())
    if len(shape) != 4 or shape[2] % 2 == 0 or 0 in shape:
        raise CheckpointError(
            f"conv_vstack.conv.weight must be (hidden, channels, k, k), k odd, not {shape or 'missing'}"
        )
    return shape[0], shape[1], shape[2]


def _dilations(given: Sequence[int] | None, layers: int) -> list[int]:
    if given is None and layers != len(TUTORIAL_DILATIONS):
        raise CheckpointError(
            f"the file has {layers} layers and does not record their dilations: give `dilations` "
            f"(the tutorial's {len(TUTORIAL_DILATIONS)} layers have {TUTORIAL_DILATIONS})"
        )
    dilations = list(TUTORIAL_DILATIONS if given is None else given)
    if len(dilations) != layers:
        raise CheckpointError(f"`dilations` has {len(dilations)} entries, the file has {layers} layers")
    return dilations


def _needed_shapes(channels: int, hidden: int, kernel: int, layers: int, outputs: int) -> Shapes:
    def masked(name: str, inputs: int, features: int, rows: int) -> dict[str, tuple[int, ...]]:
        return {
            f"{name}.mask": (1, 1, rows, kernel),
            f"{name}.conv.weight": (features, inputs, rows, kernel),
            f"{name}.conv.bias": (features,),
        }

    def plain(name: str, inputs: int, features: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (features, inputs, 1, 1), f"{name}.bias": (features,)}

    shapes = masked("conv_vstack", channels, hidden, kernel) | masked("conv_hstack", channels, hidden, 1)
    for layer in range(layers):
        name = f"conv_layers.{layer}"
        shapes |= masked(f"{name}.conv_vert", hidden, 2 * hidden, kernel)
        shapes |= masked(f"{name}.conv_horiz", hidden, 2 * hidden, 1)
        shapes |= plain(f"{name}.conv_vert_to_horiz", 2 * hidden, 2 * hidden)
        shapes |= plain(f"{name}.conv_horiz_1x1", hidden, hidden)
    return shapes | plain("conv_out", hidden, outputs)


def _check_masks(tensors: Mapping[str, Tensor], kernel: int, layers: int) -> None:
    live = kernel // 2
    expected = {"conv_vstack": (live, kernel), "conv_hstack": (1, live)}
    for layer in range(layers):
        expected[f"conv_layers.{layer}.conv_vert"] = (live + 1, kernel)
        expected[f"conv_layers.{layer}.conv_horiz"] = (1, live + 1)
    for name, (rows, columns) in expected.items():
        mask = tensors[f"{name}.mask"][0, 0]
        wanted = torch.zeros_like(mask)
        wanted[:rows, :columns] = 1
        if not torch.equal(mask, wanted):
            raise CheckpointError(f"{name}.mask is not the tutorial's: {mask.tolist()}")
