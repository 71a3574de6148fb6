"""The recipes that `pixelfast train` knows by name, one file for each kind of model."""

from __future__ import annotations

from pixelfast.errors import PixelfastError
from pixelfast.training.recipe import Recipe
from pixelfast.training.recipes.codes import CODES
from pixelfast.training.recipes.latents import LATENTS
from pixelfast.training.recipes.pixels import PIXELS

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (*PIXELS, *CODES, *LATENTS)}


def find_recipe(name: str) -> Recipe:
    """A recipe by name. Raises PixelfastError, naming those that exist."""
    if name not in RECIPES:
        raise PixelfastError(f"unknown recipe {name!r}; the recipes are {', '.join(RECIPES)}")
    return RECIPES[name]
