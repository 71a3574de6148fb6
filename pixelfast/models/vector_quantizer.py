"""A codebook: feature vectors become the nearest of K learned vectors, and gradients pass straight through."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelfast.models import checks

CODEBOOKS = ("ema", "gradient")
MAX_CODES = 1 << 16
DEAD_SHARE = 0.01
"""A code is dead when it is used less than this share of the average."""


class Quantised(NamedTuple):
    """vectors: (N, D, h, w), codebook vectors, whose gradient is that of the features. codes: int64 (N, h, w).
    loss: a scalar, what keeps features and codebook together."""

    vectors: Tensor
    codes: Tensor
    loss: Tensor


class Seen(NamedTuple):
    """What one forward in training mode showed a codebook of K vectors of width D.

    counts: (K,), features assigned to each code. sums: (K, D), their sums. candidates: (K, D), for each code a
    feature drawn at random, to start anew from if it is dead.
    """

    counts: Tensor
    sums: Tensor
    candidates: Tensor


class VectorQuantizer(nn.Module):
    """The discrete bottleneck of a VQ-VAE (van den Oord et al. 2017, "Neural Discrete Representation Learning").

    Input: features (N, width, h, w). In training mode each forward also notes what it has seen; `take_seen` hands
    that over and `update` learns from it, once per optimiser step, so that a batch may be cut into pieces and shared
    between processes in between.

    Arguments:
        codes: K, the number of vectors.
        width: D, their length.
        codebook: "ema": vectors are moving averages of the features assigned to them (appendix A.1); "gradient":
            they are parameters, pulled to their features by the loss (equation 3).
        decay: of the averages; without effect on the vectors when codebook is "gradient".
        commitment: weight of the squared distance that pulls features to their vectors (beta of equation 3).

    Raises PixelfastError for a bad argument.
    """

    vectors: Tensor
    usage: Tensor
    sums: Tensor

    def __init__(
        self, codes: int, width: int, codebook: str = "ema", decay: float = 0.99, commitment: float = 0.25
    ) -> None:
        super().__init__()
        self.codes = checks.integer("codes", codes, 2, MAX_CODES)
        self.width = checks.integer("code_width", width, 1, checks.MAX_WIDTH)
        self.codebook = checks.choice("codebook", codebook, CODEBOOKS)
        self.decay = checks.fraction("decay", decay)
        self.commitment = checks.positive("commitment", commitment)
        vectors = torch.empty(self.codes, self.width)
        nn.init.normal_(vectors, std=1 / math.sqrt(self.width))
        if self.codebook == "ema":
            self.register_buffer("vectors", vectors)
            self.register_buffer("sums", torch.zeros(self.codes, self.width))
        else:
            self.vectors = nn.Parameter(vectors)
        # Features per step that each code gets, averaged over steps; nothing at the start, so that codes the first
        # step does not use begin as features of it.
        self.register_buffer("usage", torch.zeros(self.codes))
        self._seen: list[Seen] = []

    def forward(self, features: Tensor) -> Quantised:
        # Distances of vectors that are almost the same need float32.
        with torch.autocast(features.device.type, enabled=False):
            features = features.to(self.vectors.dtype)
            codes = self.nearest(features)
            vectors = self.lookup(codes)
            loss = self.commitment * F.mse_loss(features, vectors.detach())
            if self.codebook == "gradient":
                loss = loss + F.mse_loss(vectors, features.detach())
            if self.training:
                self._note(features, codes)
            # The value is the codebook's vector, to the bit; the gradient goes to the features.
            through = vectors.detach() + (features - features.detach())
        return Quantised(through, codes, loss)

    def nearest(self, features: Tensor) -> Tensor:
        """The code of the nearest vector, the lowest where several are as near: (N, D, h, w) -> int64 (N, h, w)."""
        rows = features.detach().movedim(1, -1).flatten(0, -2)
        vectors = self.vectors.detach()
        # |z - e|^2 without |z|^2, which is the same for all codes.
        distances = torch.addmm(vectors.square().sum(1), rows, vectors.T, alpha=-2)
        return distances.argmin(1).view(features.shape[0], *features.shape[2:])

    def lookup(self, codes: Tensor) -> Tensor:
        """The vectors of codes: int64 (N, h, w) -> (N, D, h, w)."""
        return F.embedding(codes, self.vectors).movedim(-1, 1)

    def take_seen(self) -> list[Seen]:
        """What the forwards since the last call have seen, in their order."""
        seen, self._seen = self._seen, []
        return seen

    @torch.no_grad()
    def update(self, seen: Seen) -> None:
        """Learns from one step: the averages move, and dead codes start anew as features of this step.

        seen: counts and sums of the whole batch. New vectors get the average usage, so that they have time to win
        features of their own.
        """
        self.usage.lerp_(seen.counts, 1 - self.decay)
        if self.codebook == "ema":
            self.sums.lerp_(seen.sums, 1 - self.decay)
            used = self.usage[:, None] > 0
            self.vectors.copy_(torch.where(used, self.sums / self.usage[:, None], self.vectors))
        average = self.usage.mean()
        dead = self.usage < DEAD_SHARE * average
        self.usage.masked_fill_(dead, float(average))
        self.vectors.copy_(torch.where(dead[:, None], seen.candidates, self.vectors))
        if self.codebook == "ema":
            self.sums.copy_(torch.where(dead[:, None], self.vectors * average, self.sums))

    @torch.no_grad()
    def _note(self, features: Tensor, codes: Tensor) -> None:
        rows, flat = features.detach().movedim(1, -1).flatten(0, -2), codes.flatten()
        counts = torch.bincount(flat, minlength=self.codes).to(rows.dtype)
        sums = torch.zeros_like(self.vectors).index_add_(0, flat, rows)
        candidates = rows[torch.randint(len(rows), (self.codes,), device=rows.device)]
        self._seen.append(Seen(counts, sums, candidates))


def perplexity(counts: Sequence[int] | Tensor) -> float:
    """exp of the entropy in nats of codes that occur `counts` times: how many are used, in effect."""
    share = torch.as_tensor(counts, dtype=torch.float64)
    share = share / share.sum()
    return math.exp(float(torch.special.entr(share).sum()))
