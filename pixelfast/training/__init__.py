"""Training: a plain loop that can be stopped at any moment and resumed to the same bits."""

from pixelfast.training.evaluate import bits_per_dim
from pixelfast.training.loop import TrainResult, train
from pixelfast.training.overrides import override
from pixelfast.training.recipe import Recipe
from pixelfast.training.recipes import RECIPES, find_recipe

__all__ = ["RECIPES", "Recipe", "TrainResult", "bits_per_dim", "find_recipe", "override", "train"]
