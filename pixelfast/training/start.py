"""Starting a run from the weights of a trained model."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from pixelfast import checkpoints
from pixelfast.errors import PixelfastError


def take_weights(model: nn.Module, path: Path) -> None:
    """Gives the model the weights of the checkpoint at `path`; tensors that it lacks, as those of a condition that is
    new, keep their random start.

    Raises PixelfastError when the checkpoint has a tensor that the model has not, or in another shape.
    """
    own, given = model.state_dict(), checkpoints.load(path).state_dict()
    for name, tensor in given.items():
        if name not in own or own[name].shape != tensor.shape:
            here = f"in shape {tuple(own[name].shape)}" if name in own else "not at all"
            raise PixelfastError(
                f"{path} has {name} in shape {tuple(tensor.shape)} and the recipe's model {here}: start from a model "
                "whose config differs in what it adds at most"
            )
    model.load_state_dict(given, strict=False)
