"""What a backend is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import torch

from ..likelihoods import Likelihood
from ..program import Program

OnRow = Callable[[int, np.ndarray], None]


@dataclass
class Result:
    """`images`: int64 (N, C, H, W). `params`: per channel (N, H * W, P_c), when asked for."""

    images: np.ndarray
    params: list[np.ndarray] | None = None
    stats: dict[str, Any] = field(default_factory=dict)


class Backend(Protocol):
    """Runs one program. Building it packs the weights; `run` may be called any number of times."""

    name: ClassVar[str]

    def __init__(self, program: Program, likelihood: Likelihood, dtype: torch.dtype = torch.float32) -> None: ...

    @staticmethod
    def unsupported_reasons(program: Program, likelihood: Likelihood, dtype: torch.dtype) -> list[str]:
        """Why this backend cannot run the program; empty if it can."""
        ...

    def run(
        self,
        *,
        samples: int,
        seed: int,
        sample_ids: np.ndarray,
        conditions: Sequence[tuple[int, np.ndarray]],
        temperature: float,
        mode: str,
        known: np.ndarray | None,
        mask: np.ndarray | None,
        on_row: OnRow | None,
        collect_params: bool,
        threads: int | None = None,
        last_number: int | None = None,
    ) -> Result:
        """Samples images.

        Args:
            sample_ids: (N,) uint64, which images of the seed.
            conditions: (buffer, (N, slots, channels) float64) for every condition buffer.
            known: int64 (N, C, H, W) levels, taken where `mask` is true.
            on_row: called after each image row with its number and the images so far, int64 (N, C, H, W).
            collect_params: also return the likelihood's parameters as they were when each number was drawn.
            last_number: stop before this number.
        """
        ...
