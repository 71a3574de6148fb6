"""Everything that decides the outcome of a training run, by name."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, Literal, get_args, get_type_hints

from pixelfast.errors import PixelfastError
from pixelfast.models import registry

Optimizer = Literal["adamw", "adam"]
Schedule = Literal["cosine", "constant"]
Binarise = Literal["threshold", "stochastic"]
Precision = Literal["float32", "bfloat16"]
Parallel = Literal["ddp", "fsdp"]
CHOICES: dict[str, Any] = {
    "binarise": Binarise,
    "optimizer": Optimizer,
    "schedule": Schedule,
    "precision": Precision,
    "parallel": Parallel,
}

HIGHEST_RATE = 1e30
MOST_STEPS = 10**9
MOST_IMAGES = 1 << 20
"""In a batch: more fit into no machine's memory."""
"""Of learning: near float32's largest number an optimiser cannot even take its step."""


def _about(text: str, *, free: bool = False) -> dict[str, Any]:
    """A field's metadata: what --help says, and whether a resumed run may change it."""
    return {"about": text, "free": free}


@dataclass(frozen=True)
class Recipe:
    """One training run. Two runs of one recipe on the same data, machine and thread count give the same bits.

    Each field's meaning is in its metadata, which `pixelfast train --help` prints. Lengths of time are counted
    in optimiser steps. Raises PixelfastError for a value that makes no sense.
    """

    name: str = field(metadata=_about("what the run is called"))
    model: str = field(metadata=_about("the model's name, see `pixelfast models`"))
    steps: int = field(
        metadata=_about("optimiser steps of the whole run; a resumed run may get another number", free=True)
    )
    config: Mapping[str, Any] = field(default_factory=dict, metadata=_about("the model's constructor arguments"))

    batch_size: int = field(default=16, metadata=_about("images per step, over all processes"))
    micro_batch_size: int | None = field(
        default=None,
        metadata=_about(
            "images per forward and backward pass, whose gradients accumulate to a step; none: a process's whole share"
        ),
    )
    levels: int | None = field(default=None, metadata=_about("quantise the images to so many levels; none: leave them"))
    binarise: Binarise | None = field(
        default=None, metadata=_about("two levels, at the middle or drawn anew every step; none: leave them")
    )
    holdout: int = field(
        default=20,
        metadata=_about(
            "where nothing in the data is named train or test, every so many-th image is set aside to validate and "
            "test on; 0: refuse such data"
        ),
    )
    flip: bool = field(default=False, metadata=_about("mirror half of the training images, drawn anew every step"))

    optimizer: Optimizer = field(default="adamw", metadata=_about("they differ in how weight_decay acts"))
    learning_rate: float = field(default=2e-3, metadata=_about("peak of the schedule"))
    warmup_steps: int = field(default=200, metadata=_about("of a linear rise"))
    schedule: Schedule = field(
        default="cosine", metadata=_about("half a cosine that reaches zero at the last step, or constant")
    )
    learning_rate_decay: float = field(
        default=1.0, metadata=_about("factor per step on top of the schedule; PixelCNN++ takes 0.999995")
    )
    betas: tuple[float, float] = field(default=(0.9, 0.99), metadata=_about("of Adam's two averages"))
    weight_decay: float = field(default=0.0, metadata=_about("decoupled for adamw, added to the gradient for adam"))
    clip_norm: float | None = field(
        default=1.0, metadata=_about("limit of the gradient's norm, the loss being in bits per dimension")
    )
    ema_decay: float = field(
        default=0.999,
        metadata=_about(
            "of the moving average of the weights, which is what is evaluated and saved; less in the first steps"
        ),
    )
    seed: int = field(default=0, metadata=_about("of first weights, order of images, augmentation and dropout"))
    data_init: bool = field(
        default=False, metadata=_about("data-dependent initialisation of weight-normalised layers by the first batch")
    )

    precision: Precision = field(default="float32", metadata=_about("of the forward pass, by autocast"))
    compile: bool = field(default=False, metadata=_about("run the model through torch.compile"))
    checkpoint_activations: bool = field(
        default=False,
        metadata=_about("recompute each block in the backward pass: less memory, a third more work", free=True),
    )
    parallel: Parallel = field(
        default="ddp",
        metadata=_about("under torchrun: every process has the whole model, or a shard (fully_shard)", free=True),
    )

    log_every: int = field(default=10, metadata=_about("steps between lines of the log"))
    validate_every: int = field(default=2000, metadata=_about("steps between looks at the test set"))
    validation_images: int = field(default=1000, metadata=_about("how many of the first test images"))
    sample_every: int = field(
        default=0, metadata=_about("steps between grids of samples, or of reconstructions; 0: none", free=True)
    )
    sample_images: int = field(default=16, metadata=_about("images in such a grid", free=True))
    snapshot_every: int = field(default=500, metadata=_about("steps between snapshots", free=True))
    keep_snapshots: int = field(default=2, metadata=_about("how many of the last snapshots stay", free=True))

    def __post_init__(self) -> None:
        for name in (
            "steps batch_size log_every validate_every validation_images sample_images snapshot_every keep_snapshots"
        ).split():
            _check(getattr(self, name) >= 1, name, "at least 1", self)
        _check(self.steps <= MOST_STEPS, "steps", f"at most {MOST_STEPS:,}", self)
        _check(self.batch_size <= MOST_IMAGES, "batch_size", f"at most {MOST_IMAGES:,}", self)
        _check(self.sample_images <= MOST_IMAGES, "sample_images", f"at most {MOST_IMAGES:,}", self)
        for name in ("warmup_steps", "weight_decay", "sample_every"):
            _check(getattr(self, name) >= 0, name, "at least 0", self)
        _check(0 < self.learning_rate <= HIGHEST_RATE, "learning_rate", f"positive and at most {HIGHEST_RATE:g}", self)
        clip = self.clip_norm
        _check(clip is None or (clip > 0 and math.isfinite(clip)), "clip_norm", "positive and finite", self)
        for name, kind in CHOICES.items():
            choices = get_args(kind)
            chosen = getattr(self, name)
            _check(chosen in choices or (name == "binarise" and chosen is None), name, f"one of {choices}", self)
        _check(self.levels is None or self.levels >= 2, "levels", "at least 2", self)
        _check(0 <= self.ema_decay < 1, "ema_decay", "at least 0 and less than 1", self)
        _check(0 < self.learning_rate_decay <= 1, "learning_rate_decay", "more than 0 and at most 1", self)
        _check(all(0 <= beta < 1 for beta in self.betas), "betas", "at least 0 and less than 1", self)
        _check(0 <= self.seed < 2**64, "seed", "from 0 to 2**64 - 1", self)
        _check(self.holdout == 0 or self.holdout >= 2, "holdout", "0 or at least 2", self)
        micro = self.micro_batch_size
        _check(
            micro is None or (micro >= 1 and self.batch_size % micro == 0),
            "micro_batch_size",
            f"a divisor of batch_size = {self.batch_size}",
            self,
        )
        if self.model not in registry.MODELS:
            raise PixelfastError(f"unknown model {self.model!r}; the models are {', '.join(registry.MODELS)}")
        accepted = inspect.signature(registry.MODELS[self.model]).parameters
        for key in self.config:
            if key not in accepted:
                raise PixelfastError(f"config.{key}: {self.model} takes {', '.join(accepted)}")

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of optimiser step `step`, counted from 0.

        Cosine: Loshchilov and Hutter, "SGDR". Constant with a decay of 0.999995 per step: Salimans et al. 2017.
        """
        warmup = min(1.0, (step + 1) / (self.warmup_steps + 1))
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.steps)) if self.schedule == "cosine" else 1.0
        return self.learning_rate * warmup * cosine * self.learning_rate_decay**step


HINTS: dict[str, Any] = get_type_hints(Recipe)
"""The type of every field."""

FIELDS: dict[str, Field] = {one.name: one for one in fields(Recipe)}


def _check(holds: bool, name: str, accepted: str, recipe: Recipe) -> None:
    if not holds:
        raise PixelfastError(f"{name} must be {accepted}, not {getattr(recipe, name)}")
