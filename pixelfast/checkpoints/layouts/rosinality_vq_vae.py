"""The autoencoder of rosinality/vq-vae-2-pytorch. Codebooks are there with their averages, transposed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pixelfast.checkpoints.layouts.base import Converted, Hints, Shapes, image_shape
from pixelfast.checkpoints.shapes import check_shapes
from pixelfast.checkpoints.unfilled import Unfilled
from pixelfast.errors import CheckpointError
from pixelfast.models import registry

MODEL = "vq_vae_2"
SIGNS = {"quantize_t.embed", "quantize_b.embed", "enc_b.blocks.0.weight"}
USUAL_SIDE = 256
HALVINGS = 2


def convert(theirs: Mapping[str, Tensor], hints: Hints) -> Converted:
    """See `layouts.base.Layout`."""
    shapes = {name: tuple(tensor.shape) for name, tensor in theirs.items()}
    config = _config(shapes, hints)
    with torch.device("meta"), Unfilled():
        state = registry.create(MODEL, **config).state_dict()
    renamed = {name: _their_name(name, config["residual_blocks"]) for name in state}
    check_shapes(shapes, {their: _their_shape(name, state[name]) for name, their in renamed.items()})
    ours = {name: theirs[their].T if _transposed(name) else theirs[their] for name, their in renamed.items()}
    return Converted(MODEL, config, ours)


def _config(shapes: Shapes, hints: Hints) -> dict[str, Any]:
    first, last, codebook = (
        shapes.get(name, ()) for name in ("enc_b.blocks.0.weight", "enc_b.blocks.4.weight", "quantize_t.embed")
    )
    if len(first) != 4 or len(last) != 4 or len(codebook) != 2:
        raise CheckpointError(f"not a VQ-VAE-2: enc_b starts with {first}, then {last}, quantize_t.embed is {codebook}")
    inner = [one for name, one in shapes.items() if name.startswith("enc_b.") and name.endswith(".conv.1.bias")]
    return {
        "shape": image_shape(hints, first[1], USUAL_SIDE),
        "hidden": last[0],
        "residual_blocks": len(inner),
        "residual_hidden": inner[0][0] if inner and inner[0] else 1,
        "halvings": HALVINGS,
        "codes": codebook[1],
        "code_width": codebook[0],
    }


ENCODERS = {"encoder_bottom": ("enc_b", HALVINGS), "encoder_top": ("enc_t", 1)}
DECODERS = {"decoder_top": "dec_t", "decoder": "dec"}
LAYERS = {"to_top": "quantize_conv_t", "to_bottom": "quantize_conv_b", "doubling_top": "upsample_t"}
QUANTIZERS = {"quantizer_top": "quantize_t", "quantizer_bottom": "quantize_b"}
BUFFERS = {"vectors": "embed", "usage": "cluster_size", "sums": "embed_avg"}
RESIDUAL = {"near": "conv.1", "mix": "conv.3"}


def _their_name(name: str, blocks: int) -> str:
    """The name in this layout of one of our tensors: their layers are numbered, activations included."""
    *path, kind = name.split(".")
    match path:
        case [quantizer] if quantizer in QUANTIZERS:
            return f"{QUANTIZERS[quantizer]}.{BUFFERS[kind]}"
        case [layer]:
            return f"{LAYERS[layer]}.{kind}"
        case [part, *rest] if part in ENCODERS:
            prefix, halvings = ENCODERS[part]
            near = 2 * halvings
            match rest:
                case ["halvings", index]:
                    return f"{prefix}.blocks.{2 * int(index)}.{kind}"
                case ["near"]:
                    return f"{prefix}.blocks.{near}.{kind}"
                case ["blocks", index, layer]:
                    return f"{prefix}.blocks.{near + 1 + int(index)}.{RESIDUAL[layer]}.{kind}"
        case [part, *rest]:
            prefix = DECODERS[part]
            match rest:
                case ["near"]:
                    return f"{prefix}.blocks.0.{kind}"
                case ["blocks", index, layer]:
                    return f"{prefix}.blocks.{1 + int(index)}.{RESIDUAL[layer]}.{kind}"
                case ["doublings", index]:
                    return f"{prefix}.blocks.{blocks + 2 + 2 * int(index)}.{kind}"
    raise AssertionError(f"no name in this layout for {name}")


def _transposed(name: str) -> bool:
    return name.endswith((".vectors", ".sums"))


def _their_shape(name: str, ours: Tensor) -> tuple[int, ...]:
    shape = tuple(ours.shape)
    return shape[::-1] if _transposed(name) else shape
