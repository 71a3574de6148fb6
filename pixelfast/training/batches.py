"""The order in which a training run sees its images."""

from __future__ import annotations

import torch

from pixelfast.training.noise import Use, derived_seed


class BatchOrder:
    """Endless batches of indices: every image once per epoch, in an order drawn anew for each epoch.

    A batch depends on `seed` and its step alone. What is left of an epoch, when it is less than a batch, is
    completed from the next one, so that every batch is full.
    """

    def __init__(self, images: int, batch_size: int, seed: int) -> None:
        self._images = images
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def batch(self, step: int) -> torch.Tensor:
        """Indices of the images of optimiser step `step`, int64 (batch_size,)."""
        at, end = step * self._batch_size, (step + 1) * self._batch_size
        parts = []
        while at < end:
            epoch, first = divmod(at, self._images)
            part = self._order_of(epoch)[first : first + end - at]
            parts.append(part)
            at += len(part)
        return torch.cat(parts)

    def _order_of(self, epoch: int) -> torch.Tensor:
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(derived_seed(self._seed, Use.ORDER, epoch))
            self._order = torch.randperm(self._images, generator=generator)
            self._epoch = epoch
        return self._order
