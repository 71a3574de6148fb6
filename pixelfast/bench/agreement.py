"""Whether a sampler's images are naive sampling's, and whether float32 explains where they are not."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pixelfast.naive import naive_params
from pixelfast.problem import Problem
from pixelfast.sampler import Sampler

NEAR = 1e-5
"""Parameters that differ by at most this, relative to the largest, are the same up to float32 rounding."""


@dataclass(frozen=True)
class Agreement:
    """images, numbers: compared. different: images that differ anywhere.

    near_ties: of those, the ones whose first difference was a near-tie: both samplers saw the same numbers so
    far and computed the same parameters up to rounding, and the noise fell between the two.
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


def compare(sampler: Sampler, problem: Problem, fast: torch.Tensor, naive: torch.Tensor) -> Agreement:
    """Compare two sets of images, integers (N, C, H, W), of the same noise.

    Only an image's first difference in sampling order says anything: what follows was drawn from other pasts.
    """
    near = 0
    different = (fast != naive).flatten(1).any(1).nonzero().flatten().tolist()
    for i in different:
        image = fast[i : i + 1].long()
        pixel = int((fast[i] != naive[i]).any(0).flatten().nonzero()[0])
        condition = problem.batch_condition(None, 1)
        ours = sampler.params(image, condition).flatten(2)[0, :, pixel].double()
        theirs = naive_params(problem, image, condition, None).flatten(2)[0, :, pixel].double()
        near += float((ours - theirs).abs().max()) <= NEAR * float(theirs.abs().max())
    return Agreement(len(fast), fast.numel(), len(different), near)
