"""VQ-VAE and its class-conditional Gated PixelCNN prior of the PyTorch port people copy (ritheshkumar95/pytorch-vqvae).

Its batch norms are folded into the convolutions before them. Its residual blocks rectify in place, so that what they
pass on is rectified too. Its own prior takes square maps only, by mistake; ours takes any.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pixelfast.checkpoints.layouts.base import Converted, Hints, Shapes, image_shape
from pixelfast.checkpoints.shapes import check_shapes
from pixelfast.errors import CheckpointError
from pixelfast.models.gated_pixelcnn import GATED_STEM_HEAD, GATED_STEM_KERNEL

NAME = "ritheshkumar95"

PRIOR_SIGNS = {"embedding.weight", "layers.0.vert_to_horiz.weight", "layers.0.class_cond_embedding.weight"}
VQ_VAE_SIGNS = {"codebook.embedding.weight", "encoder.0.weight", "decoder.0.block.1.weight"}
USUAL_MAP = 8
USUAL_SIDE = 32
KERNEL = 3
EPSILON = 1e-5
"""Of torch's batch norm."""


def recognises(shapes: Shapes) -> bool:
    """The prior's embedding and first layer, or the autoencoder's codebook and residual blocks."""
    return set(shapes) >= PRIOR_SIGNS or set(shapes) >= VQ_VAE_SIGNS


def convert(tensors: Mapping[str, Tensor], hints: Hints) -> Converted:
    """See `layouts.base.Layout`. A prior is of 8 x 8 maps and an autoencoder for 32 x 32 images unless `hints` says
    otherwise."""
    if hints.dilations is not None:
        raise CheckpointError(f"`dilations` does not apply to the layout {NAME}; leave it out")
    return _vq_vae(tensors, hints) if "codebook.embedding.weight" in tensors else _prior(tensors, hints)


def _prior(tensors: Mapping[str, Tensor], hints: Hints) -> Converted:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    embedding, classes = (shapes.get(name, ()) for name in ("embedding.weight", "layers.0.class_cond_embedding.weight"))
    if len(embedding) != 2 or len(classes) != 2:
        raise CheckpointError(f"not a prior: embedding is {embedding}, class_cond_embedding is {classes}")
    codes, hidden = embedding
    layers = len({name.split(".")[1] for name in shapes if name.startswith("layers.")})
    check_shapes(shapes, _prior_shapes(codes, hidden, layers, classes[0]))

    ours = {"embedding.weight": tensors["embedding.weight"]}
    for ending in ("weight", "bias"):
        ours[f"before_head.{ending}"] = tensors[f"output_conv.0.{ending}"]
        ours[f"head.{ending}"] = tensors[f"output_conv.2.{ending}"]
    live = GATED_STEM_KERNEL // 2
    for layer in range(layers):
        theirs, block = f"layers.{layer}", "stem" if layer == 0 else f"blocks.{layer - 1}"
        for ending in ("weight", "bias"):
            ours[f"{block}.link.{ending}"] = tensors[f"{theirs}.vert_to_horiz.{ending}"]
            ours[f"{block}.mix.{ending}"] = tensors[f"{theirs}.horiz_resid.{ending}"]
        above, left = tensors[f"{theirs}.vert_stack.weight"], tensors[f"{theirs}.horiz_stack.weight"]
        # The first layer's last row and column are masked; what is stored there counts for nothing.
        ours[f"{block}.vertical.weight"] = above[:, :, :live] if layer == 0 else above
        ours[f"{block}.horizontal.weight"] = left[..., :live] if layer == 0 else left
        ours[f"{block}.vertical.bias"] = tensors[f"{theirs}.vert_stack.bias"]
        ours[f"{block}.horizontal.bias"] = tensors[f"{theirs}.horiz_stack.bias"]
        label = tensors[f"{theirs}.class_cond_embedding.weight"]
        for name in ("condition",) if layer == 0 else ("condition_vertical", "condition_horizontal"):
            ours[f"{block}.{name}.weight"] = label
    config = {
        "shape": image_shape(hints, 1, USUAL_MAP),
        "levels": codes,
        "hidden": hidden,
        "dilations": [1] * (layers - 1),
        "kernel_size": KERNEL,
        "classes": classes[0],
        "input": "levels",
        "form": "gated_stem",
    }
    return Converted("gated_pixelcnn", config, ours)


def _prior_shapes(codes: int, hidden: int, layers: int, classes: int) -> Shapes:
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (codes, hidden)}

    def conv(name: str, outputs: int, *others: int) -> None:
        shapes[f"{name}.weight"] = (outputs, *others)
        shapes[f"{name}.bias"] = (outputs,)

    for layer in range(layers):
        name, kernel = f"layers.{layer}", KERNEL if layer else GATED_STEM_KERNEL
        shapes[f"{name}.class_cond_embedding.weight"] = (classes, 2 * hidden)
        conv(f"{name}.vert_stack", 2 * hidden, hidden, kernel // 2 + 1, kernel)
        conv(f"{name}.vert_to_horiz", 2 * hidden, 2 * hidden, 1, 1)
        conv(f"{name}.horiz_stack", 2 * hidden, hidden, 1, kernel // 2 + 1)
        conv(f"{name}.horiz_resid", hidden, hidden, 1, 1)
    conv("output_conv.0", GATED_STEM_HEAD, hidden, 1, 1)
    conv("output_conv.2", codes, GATED_STEM_HEAD, 1, 1)
    return shapes


# Ours -> convolution, and the batch norm after it or None. Two residual blocks on either side.
VQ_VAE_LAYERS: dict[str, tuple[str, str | None]] = {
    "encoder.halvings.0": ("encoder.0", "encoder.1"),
    "encoder.halvings.1": ("encoder.3", None),
    "decoder.doublings.0": ("decoder.3", "decoder.4"),
    "decoder.doublings.1": ("decoder.6", None),
    **{
        f"{part}.blocks.{block}.{layer}": (
            f"{part}.{first + block}.block.{conv}",
            f"{part}.{first + block}.block.{norm}",
        )
        for part, first in (("encoder", 4), ("decoder", 0))
        for block in (0, 1)
        for layer, conv, norm in (("near", 1, 2), ("mix", 4, 5))
    },
}


def _vq_vae(tensors: Mapping[str, Tensor], hints: Hints) -> Converted:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    codebook, first = shapes["codebook.embedding.weight"], shapes["encoder.0.weight"]
    if len(codebook) != 2 or len(first) != 4:
        raise CheckpointError(f"not a VQ-VAE: its codebook is {codebook}, encoder.0.weight is {first}")
    codes, hidden = codebook
    check_shapes(shapes, _vq_vae_shapes(codes, hidden, first[1]))
    vectors = tensors["codebook.embedding.weight"]
    ours = {"quantizer.vectors": vectors, "quantizer.usage": vectors.new_zeros(codes)}
    for name, (conv, norm) in VQ_VAE_LAYERS.items():
        weight, bias = tensors[f"{conv}.weight"], tensors[f"{conv}.bias"]
        if norm is not None:
            weight, bias = _folded(weight, bias, tensors, norm, outputs=1 if "doublings" in name else 0)
        ours[f"{name}.weight"], ours[f"{name}.bias"] = weight, bias
    config: dict[str, Any] = {
        "shape": image_shape(hints, first[1], USUAL_SIDE),
        "hidden": hidden,
        "residual_blocks": 2,
        "residual_hidden": hidden,
        "halvings": 2,
        "codes": codes,
        "code_width": hidden,
        "codebook": "gradient",
        "form": "rectified",
    }
    return Converted("vq_vae", config, ours)


def _folded(
    weight: Tensor, bias: Tensor, tensors: Mapping[str, Tensor], norm: str, *, outputs: int
) -> tuple[Tensor, Tensor]:
    """A convolution that does what it and the batch norm after it do in eval mode. outputs: the weight's axis."""
    gain, shift, mean, variance = (
        tensors[f"{norm}.{name}"].double() for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gain / torch.sqrt(variance + EPSILON)
    sides = [1] * weight.dim()
    sides[outputs] = -1
    return (weight.double() * scale.view(sides)).to(weight.dtype), ((bias - mean) * scale + shift).to(bias.dtype)


def _vq_vae_shapes(codes: int, hidden: int, channels: int) -> Shapes:
    shapes: dict[str, tuple[int, ...]] = {"codebook.embedding.weight": (codes, hidden)}
    for name, (conv, norm) in VQ_VAE_LAYERS.items():
        side = {"halvings": 4, "doublings": 4}.get(name.split(".")[1], 3 if name.endswith("near") else 1)
        inputs = channels if conv == "encoder.0" else hidden
        outputs = channels if conv == "decoder.6" else hidden
        shapes[f"{conv}.weight"] = (
            (inputs, outputs, side, side) if "doublings" in name else (outputs, inputs, side, side)
        )
        shapes[f"{conv}.bias"] = (outputs,)
        if norm is not None:
            shapes |= {f"{norm}.{each}": (hidden,) for each in ("weight", "bias", "running_mean", "running_var")}
    return shapes
