"""The list of idioms: what each module is, and what it takes and returns."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from random_numbers import random_images
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from pixelfast import Categorical
from pixelfast.likelihoods import Likelihood

FOUR_LEVELS = Categorical(4)


@dataclass(frozen=True, eq=False)
class Idiom:
    """One module of the gallery.

    Attributes:
        make: the module, with whatever its constructor initialises.
        shape: (C, H, W) of its images.
        condition: n, generator -> a condition for n images; None for an unconditional module.
        outputs: as for `pixelfast.compile`.
        runs_in_double: False where the module insists on float32, so that `.double()` breaks it.
    """

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, int, int]
    likelihood: Likelihood
    input: Any
    condition: Callable[[int, torch.Generator], Any] | None
    outputs: Callable[[Any], Any] | None
    runs_in_double: bool

    def build(self) -> nn.Module:
        """The same weights every time, none of them zero or one, in evaluation mode."""
        with torch.random.fork_rng():
            torch.manual_seed(zlib.crc32(self.name.encode()))
            model = self.make()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.3 * torch.randn_like(parameter))
                for module in model.modules():
                    if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
                        module.running_mean.normal_()
                        module.running_var.uniform_(0.5, 2.0)
        return model.eval()

    def arguments(self) -> dict[str, Any]:
        """Keywords of `compile`, `naive_sample` and `check_causality`, but for the condition."""
        return {
            "shape": self.shape,
            "likelihood": self.likelihood,
            "input": self.input,
            "outputs": self.outputs,
        }

    def images(self, n: int, seed: int = 0) -> Tensor:
        """Random levels, int64 (n, C, H, W), or real numbers, float32."""
        return random_images(self.likelihood, (n, *self.shape), seed)

    def other_images(self, images: Tensor) -> Tensor:
        """Images of which every number differs."""
        return images + 1 if self.likelihood.continuous else (images + 1) % self.likelihood.levels

    def conditions(self, n: int, seed: int = 0) -> Any:
        """Conditions for n images, or None."""
        if self.condition is None:
            return None
        return self.condition(n, torch.Generator().manual_seed(seed))

    def forward(self, model: nn.Module, levels: Tensor, condition: Any, dtype: torch.dtype) -> Tensor:
        """What the module itself says of images: parameters (N, P, H, W)."""

        def cast(a: Any) -> Any:
            return a.to(dtype) if isinstance(a, Tensor) and a.is_floating_point() else a

        with torch.no_grad():
            result = call(model, cast(self.encode(levels)), tree_map(cast, condition))
            if self.outputs is not None:
                result = self.outputs(result)
            return self.likelihood.flatten(result, self.shape)

    def encode(self, levels: Tensor) -> Tensor:
        """Levels or real numbers (N, C, H, W) as the module takes them; float64 unless integers."""
        if self.likelihood.continuous:
            return levels.double()
        if isinstance(self.input, Tensor):
            channels = torch.arange(self.shape[0])[:, None, None]
            return self.input.double().expand(self.shape[0], -1)[channels, levels]
        unit = levels.double() / (self.likelihood.levels - 1)
        return {"levels": levels, "index": levels[:, 0], "unit": unit, "signed": 2 * unit - 1}[self.input]


def call(model: nn.Module, x: Tensor, condition: Any) -> Any:
    """A dict goes in as keywords, a tuple as positional arguments, another condition as one argument."""
    if condition is None:
        return model(x)
    if isinstance(condition, dict):
        return model(x, **condition)
    return model(x, *condition) if isinstance(condition, tuple) else model(x, condition)


IDIOMS: dict[str, Idiom] = {}


def idiom(
    shape: tuple[int, int, int] = (1, 4, 5),
    likelihood: Likelihood = FOUR_LEVELS,
    input: Any = "signed",
    condition: Callable[[int, torch.Generator], Any] | None = None,
    outputs: Callable[[Any], Any] | None = None,
    runs_in_double: bool = True,
) -> Callable[[Callable[[], nn.Module]], Callable[[], nn.Module]]:
    """Adds a class, or a function that makes a module, under its own name in snake case."""

    def add(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", make.__name__).lower()
        assert name not in IDIOMS, f"two idioms are called {name}"
        IDIOMS[name] = Idiom(name, make, shape, likelihood, input, condition, outputs, runs_in_double)
        return make

    return add
