"""VQ-VAE-2 and its PixelSNAIL priors of the PyTorch port most people have (rosinality/vq-vae-2-pytorch).

The autoencoder's file is a bare state_dict; a prior's holds its training's arguments too, an argparse.Namespace.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from pixelfast.checkpoints.layouts import rosinality_prior, rosinality_vq_vae
from pixelfast.checkpoints.layouts.base import Converted, Hints, Shapes, weight_norm_name
from pixelfast.errors import CheckpointError

NAME = "rosinality"


def recognises(shapes: Shapes) -> bool:
    """A prior's stem and blocks, or the autoencoder's codebook and encoder."""
    names = {weight_norm_name(name) for name in shapes}
    return rosinality_prior.SIGNS <= names or rosinality_vq_vae.SIGNS <= names


def convert(tensors: Mapping[str, Tensor], hints: Hints) -> Converted:
    """See `layouts.base.Layout`. The autoencoder is for 256 x 256 images unless `hints` says otherwise; a prior knows
    the size of its map."""
    if hints.dilations is not None:
        raise CheckpointError("`dilations` does not apply to VQ-VAE-2; leave it out")
    theirs = {weight_norm_name(name): tensor for name, tensor in tensors.items()}
    if len(theirs) < len(tensors):
        raise CheckpointError("the same tensor is there under the old and the present name of weight norm")
    if "quantize_t.embed" in theirs:
        return rosinality_vq_vae.convert(theirs, hints)
    return rosinality_prior.convert(theirs, hints)
