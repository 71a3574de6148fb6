"""Whether a sampler's images are naive sampling's, and whether float32 explains where they are not."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pixelfast.likelihoods import PixelState
from pixelfast.naive import naive_params
from pixelfast.problem import Problem
from pixelfast.rng import uniforms
from pixelfast.sampler import Sampler

NEAR = 1e-5
"""Parameters that differ by at most this, relative to the largest, are the same up to float32 rounding."""


@dataclass(frozen=True)
class Agreement:
    """images, numbers: compared. different: images that differ anywhere.

    near_ties: of those, the ones whose first difference is a near-tie of float32: with the same numbers so far,
    both computed the same parameters up to rounding, and the exact draw from either's parameters with that
    number's noise is what either drew.
    """

    images: int
    numbers: int
    different: int
    near_ties: int

    def __str__(self) -> str:
        same = f"{self.images - self.different} of {self.images} images identical ({self.numbers:,} numbers)"
        if not self.different:
            return same
        return f"{same}; {self.near_ties} of {self.different} others part at a near-tie of float32"


@torch.no_grad()
def compare(sampler: Sampler, problem: Problem, fast: torch.Tensor, naive: torch.Tensor, seed: int) -> Agreement:
    """Compare images 0 .. N - 1 of a seed, integers (N, C, H, W), drawn by a sampler and naively.

    Only an image's first difference in sampling order says anything: what follows was drawn from other pasts.
    """
    near = 0
    different = (fast != naive).flatten(1).any(1).nonzero().flatten().tolist()
    for i in different:
        ours, theirs = (images[i].permute(1, 2, 0).flatten(0, 1).long() for images in (fast, naive))
        pixel, channel = (ours != theirs).nonzero()[0].tolist()
        condition = problem.batch_condition(None, 1)
        image = fast[i : i + 1].long()
        params = [
            computed.flatten(2)[0, :, pixel].double()
            for computed in (sampler.params(image, condition), naive_params(problem, image, condition, None))
        ]
        rounding = float((params[0] - params[1]).abs().max()) <= NEAR * float(params[1].abs().max())
        drawn = [draw(problem, values, pixel, channel, seed, i) for values in params]
        near += rounding and drawn == [int(ours[pixel, channel]), int(theirs[pixel, channel])]
    return Agreement(len(fast), fast.numel(), len(different), near)


def draw(problem: Problem, params: torch.Tensor, pixel: int, channel: int, seed: int, image: int) -> int:
    """The number of a pixel's channel, drawn exactly from its parameters (P,) with the noise of seed and image."""
    likelihood, channels = problem.likelihood, problem.shape[0]
    state = PixelState.start(1, channels)
    for c, needed in enumerate(likelihood.needs(channels)[: channel + 1]):
        noise = uniforms(seed, [image], [pixel * channels + c], likelihood.draws(channels))[:, 0]
        state.values[:, c] = likelihood.draw(c, params[None, needed], state, noise)
    return int(state.values[0, channel])
