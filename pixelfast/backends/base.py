"""What a backend is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import torch

from ..likelihoods import Likelihood
from ..program import Program
from ..rng import PIXELS

OnRow = Callable[[int, np.ndarray], None]


@dataclass(frozen=True, eq=False)
class Job:
    """What to sample."""

    samples: int
    seed: int = 0
    sample_ids: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    """(samples,) uint64, which images of the seed."""
    conditions: Sequence[tuple[int, np.ndarray]] = ()
    """(buffer, (samples, slots, channels) float64) for every condition buffer."""
    temperature: float = 1.0
    mode: str = "exact"
    known: np.ndarray | None = None
    """(samples, C, H, W), int64 levels or float32 real numbers, taken where `mask` is true."""
    mask: np.ndarray | None = None
    on_row: OnRow | None = None
    """Called after each image row with its number and the images so far, (samples, C, H, W)."""
    collect_params: bool = False
    """Also return the likelihood's parameters as they were when each number was drawn."""
    threads: int | None = None
    sharing: str = "auto"
    """How threads share a batch, which changes no bit: "images" each their own, "tasks" every task together."""
    last_number: int | None = None
    """Stop before this number."""
    lookahead: int | None = None
    """Numbers of an image row that the network computes together, on guesses that are checked, which changes no bit:
    None as many as pays, 1 none. Backends may ignore it."""
    stream: int = PIXELS
    """The stream of noise, see `rng`."""
    profile: bool = False
    """Also measure where the time goes: `Result.stats["profile"]`. Backends may ignore it."""


@dataclass
class Result:
    """`images`: (N, C, H, W), int64, or float32 where numbers are real. `params`: per channel (N, H * W, P_c), if
    asked for."""

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

    def run(self, job: Job) -> Result:
        """Samples images."""
        ...
