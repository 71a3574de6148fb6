"""An autoencoder and priors of its codes that were trained apart, as one model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from pixelfast.errors import PixelfastError
from pixelfast.models.conditional_pixel_snail import ConditionalPixelSNAIL
from pixelfast.models.gated_pixelcnn import GatedPixelCNN
from pixelfast.models.vq_vae import VQVAE
from pixelfast.models.vq_vae_2 import VQVAE2
from pixelfast.models.vq_vae_2_prior import DERIVED, VQVAE2WithPriors
from pixelfast.models.vq_vae_prior import VQVAEWithPrior


def with_priors(autoencoder: nn.Module, priors: Sequence[Any]) -> VQVAEWithPrior | VQVAE2WithPriors:
    """The model that samples codes from the priors and decodes them; weights are copied, in the autoencoder's dtype.

    Arguments:
        autoencoder: a `VQVAE`, with one prior, a `GatedPixelCNN`; or a `VQVAE2`, with two, `ConditionalPixelSNAIL`s:
            of the top map and then of the bottom map.
        priors: of the autoencoder's maps of codes.

    Raises PixelfastError for other models, and for priors of other codes.
    """
    wanted = {VQVAE: (GatedPixelCNN,), VQVAE2: (ConditionalPixelSNAIL,) * 2}.get(type(autoencoder))
    if wanted is None or tuple(map(type, priors)) != wanted:
        given = ", ".join(type(prior).__name__ for prior in priors) or "none"
        raise PixelfastError(
            "a VQVAE takes one prior, a GatedPixelCNN, and a VQVAE2 two, ConditionalPixelSNAILs of the top and the "
            f"bottom map; this is a {type(autoencoder).__name__} with {given}"
        )
    model: Any = _model(autoencoder, priors)
    own = [stage.network for stage in model.stages]
    for stage, prior in zip(model.stages, priors, strict=True):
        _check_same(stage.name, stage.network.config, prior.config)
    model = model.to(next(autoencoder.parameters()).dtype)
    for target, source in zip([model.autoencoder, *own], [autoencoder, *priors], strict=True):
        target.load_state_dict(source.state_dict())
    return model.eval()


def _model(autoencoder: Any, priors: Sequence[Any]) -> VQVAEWithPrior | VQVAE2WithPriors:
    if isinstance(autoencoder, VQVAE2):
        top, bottom = ({key: value for key, value in one.config.items() if key not in DERIVED} for one in priors)
        return VQVAE2WithPriors(**autoencoder.config, top=top, bottom=bottom)
    config = priors[0].config
    same = {f"prior_{name}": config[name] for name in ("hidden", "dilations", "kernel_size", "form")}
    return VQVAEWithPrior(**autoencoder.config, **same, classes=config["classes"])


def _check_same(name: str, wanted: dict[str, Any], given: dict[str, Any]) -> None:
    """PixelfastError unless a prior is of the codes that the autoencoder has."""
    for key, value in wanted.items():
        said = given[key]
        if key == "condition_levels":
            value, said = value or wanted["levels"], said or given["levels"]
        if said != value:
            raise PixelfastError(f"the prior of {name} has {key} {said}, the autoencoder's codes ask for {value}")
