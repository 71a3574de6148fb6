"""Training in two stages: first an autoencoder, then priors over the codes of that autoencoder, which is frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pixelfast import checkpoints
from pixelfast.errors import CheckpointError, PixelfastError
from pixelfast.models import registry
from pixelfast.training.recipe import Recipe


def open_autoencoder(recipe: Recipe, path: Path | None, *, needed: bool) -> Any:
    """The trained autoencoder for the recipe's prior, None where `path` is None and none is `needed`.

    Raises PixelfastError when the recipe trains a prior and has no autoencoder, or the other way round, and when
    the file holds another model.
    """
    wanted = registry.AUTOENCODER_OF.get(registry.MODELS[recipe.model])
    if wanted is None:
        if path is not None:
            raise PixelfastError(f"recipe {recipe.name} trains no prior: leave the autoencoder {path} out")
        return None
    if path is None:
        if needed:
            raise PixelfastError(
                f"recipe {recipe.name} learns the codes of a trained VQ-VAE: give its file as --autoencoder"
            )
        return None
    model: Any = checkpoints.load(path)
    name = registry.name_of(model)
    if type(model) in registry.AUTOENCODER_OF:
        model = model.autoencoder
    if type(model) is not wanted:
        needs = next(known for known, kind in registry.MODELS.items() if kind is wanted)
        raise PixelfastError(f"{path} holds a {name}; {recipe.model} needs the codes of a {needs}")
    return model


def completed(recipe: Recipe, autoencoder: Any) -> Recipe:
    """The recipe with the autoencoder's arguments in its config. Raises PixelfastError where it has others."""
    for name, value in recipe.config.items():
        if value != autoencoder.config.get(name, value):
            raise PixelfastError(
                f"config.{name} is {value} and the autoencoder's {autoencoder.config[name]}: leave it out"
            )
    return replace(recipe, config={**autoencoder.config, **recipe.config})


def take_over(model: Any, autoencoder: nn.Module) -> None:
    """Gives the model the autoencoder's weights."""
    model.autoencoder.load_state_dict(autoencoder.state_dict())


def check_same(autoencoder: nn.Module, saved: Mapping[str, Tensor], path: Path | None) -> None:
    """CheckpointError unless the autoencoder, of that file, is the one that a resumed run was started with.

    saved: the tensors of the run's model.
    """
    for name, tensor in autoencoder.state_dict(prefix="autoencoder.").items():
        if not torch.equal(tensor, saved[name]):
            raise CheckpointError(
                f"{path} is not the autoencoder that this run was started with, which the snapshot has: leave "
                "--autoencoder out, or begin a new run in another folder"
            )
