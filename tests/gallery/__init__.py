"""One tiny causal network per way of writing one that the field uses; each goes through every backend."""

from __future__ import annotations

from . import (
    attention,
    colours,
    conditions,
    constant_masks,
    convolutions,
    gates,
    in_place,
    inputs,
    linear,
    masks,
    normalisation,
    one_hot,
    outputs,
    pooling,
    positions,
    real_numbers,
    recurrence,
    resampling,
    shifts,
    structure,
    weight_norms,
)
from .registry import IDIOMS, Idiom

__all__ = [
    "IDIOMS",
    "Idiom",
    "attention",
    "colours",
    "conditions",
    "constant_masks",
    "convolutions",
    "gates",
    "in_place",
    "inputs",
    "linear",
    "masks",
    "normalisation",
    "one_hot",
    "outputs",
    "pooling",
    "positions",
    "real_numbers",
    "recurrence",
    "resampling",
    "shifts",
    "structure",
    "weight_norms",
]
