"""What a call of a sampler took, and the least time that it could have taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from .ir import Graph
from .limit import fewest_attended_bytes, fewest_weight_bytes, limit_seconds, weight_size
from .machine import measured_quickly


@dataclass(eq=False)
class LeastTime:
    """Of a batch on this machine. It keeps the graph, not the sampler: statistics may outlive that."""

    graph: Graph
    ready: Sequence[np.ndarray]
    flops: float
    dtype: torch.dtype
    fewest_bytes: tuple[int, int] | None = None
    """Of weights, and of keys and values. Found at the first question."""

    def seconds(self, batch: int) -> float:
        """See `limit`."""
        if self.fewest_bytes is None:
            weights = fewest_weight_bytes(self.graph, self.ready, weight_size(self.dtype))
            self.fewest_bytes = weights, fewest_attended_bytes(self.graph, self.ready)
        weights, attended = self.fewest_bytes
        return limit_seconds(self.flops, weights, batch, measured_quickly(), self.dtype, attended)


@dataclass(frozen=True)
class Stats:
    """Of the last call. `gflops`: 10^9 floating-point operations per second, padding left out. bytes_per_image: of
    activations that are kept. attended_bytes_per_image: of those among them that attention reads as keys and values.

    Where images are sampled one at a time, numbers may be guessed ahead, the network run for several of them at once,
    and the guesses checked against the draws. forecasts: numbers guessed. forecasts_accepted: those that were right.
    evaluations: runs of the network, on one image each. plain_evaluations: what they would be without guesses.
    """

    backend: str
    isa: str
    dtype: str
    images: int
    seconds: float
    images_per_second: float
    us_per_pixel: float
    gflops: float
    bytes_per_image: int
    attended_bytes_per_image: int
    threads: int
    batch: int
    """Images computed together."""
    forecasts: int
    forecasts_accepted: int
    evaluations: int
    plain_evaluations: int
    _least: LeastTime = field(repr=False)

    @property
    def share_of_limit(self) -> float:
        """The least time this machine could take in this dtype, at the batch size used, over the time taken.

        The machine's rates are measured at the first question, for half a second.
        """
        batches = self.images / max(1, self.batch)
        return self._least.seconds(self.batch) * batches / self.seconds
