"""The order in which a training run sees its images."""

from __future__ import annotations

from typing import Any

import torch


class BatchOrder:
    """Endless batches of indices: every image once per epoch, in an order drawn anew for each epoch.

    The order depends on `seed` alone. What is left of the last epoch, when it is less than a batch, is
    completed from the next one, so that every batch is full.
    """

    def __init__(self, images: int, batch_size: int, seed: int) -> None:
        self._images = images
        self._batch_size = batch_size
        self._generator = torch.Generator().manual_seed(seed)
        self._waiting = torch.empty(0, dtype=torch.int64)

    def next_batch(self) -> torch.Tensor:
        """Indices of the next images, int64 (batch_size,)."""
        while len(self._waiting) < self._batch_size:
            epoch = torch.randperm(self._images, generator=self._generator)
            self._waiting = torch.cat((self._waiting, epoch))
        batch, self._waiting = self._waiting.split((self._batch_size, len(self._waiting) - self._batch_size))
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Generator state and the indices still to come."""
        return {"generator": self._generator.get_state(), "waiting": self._waiting.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where the order that `state` was taken from stood."""
        self._generator.set_state(state["generator"])
        self._waiting = state["waiting"]
