"""Models in stages: a prior draws codes through the engine, and a decoder turns them into images."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from .errors import PixelfastError


class Staged(Protocol):
    """What makes a model one in stages: `prior` is a causal network over codes, integers (N, 1, h, w), and
    `autoencoder.decode` maps codes to levels (N, C, H, W)."""

    prior: Any
    autoencoder: Any
    shape: tuple[int, int, int]
    levels: int


@dataclass(frozen=True)
class StagedStats:
    """Of the last call. codes: of the engine, its pixels being codes. decode_seconds: of the decoder, all images."""

    codes: Any
    decode_seconds: float

    @property
    def seconds(self) -> float:
        return self.codes.seconds + self.decode_seconds

    @property
    def images_per_second(self) -> float:
        return self.codes.images / max(self.seconds, 1e-9)


class Decoder:
    """A copy of a model's decoder that gives the same image whatever it is decoded together with.

    One image at a time on one thread, because torch's convolutions round differently for other batch sizes and
    numbers of threads; in float64, so that other instruction sets hardly ever give another level.
    """

    def __init__(self, model: Staged) -> None:
        self._autoencoder = copy.deepcopy(model.autoencoder).cpu().double().eval()
        self._kind = torch.uint8 if model.levels <= 256 else torch.int64
        self._shape = model.shape

    def __call__(self, codes: torch.Tensor) -> torch.Tensor:
        """Integers (n, 1, h, w) -> integers (n, C, H, W), uint8 for up to 256 levels, else int64."""
        images = torch.empty((len(codes), *self._shape), dtype=self._kind)
        with _one_thread():
            for image, code in zip(images, codes.cpu().split(1), strict=True):
                image.copy_(self._autoencoder.decode(code)[0])
        return images


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class StagedSampler:
    """Made by `compile` of a model in stages. Image i of a seed is one image, as for `Sampler`.

    codes: the prior's `Sampler`, for whoever wants the codes themselves; noise comes from `rng.CODES`.
    """

    def __init__(self, model: Staged, codes: Any, device: torch.device) -> None:
        self.shape = model.shape
        self.levels = model.levels
        self.codes = codes
        self.device = device
        self.stats: StagedStats | None = None
        self._decoder = Decoder(model)

    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        sample_ids: Sequence[int] | None = None,
        condition: Any = None,
        temperature: float = 1.0,
        batch_size: int | None = None,
        progress: bool | None = None,
    ) -> torch.Tensor:
        """Draws codes and decodes them: integers (n, C, H, W), uint8 for up to 256 levels, else int64.

        The arguments are those of `Sampler.sample`; temperature and batch_size are the prior's.
        """
        codes = self.codes.sample(
            n,
            seed=seed,
            sample_ids=sample_ids,
            condition=condition,
            temperature=temperature,
            batch_size=batch_size,
            progress=progress,
        )
        started = time.perf_counter()
        images = self._decoder(codes)
        self.stats = StagedStats(self.codes.stats, time.perf_counter() - started)
        return images.to(self.device)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """The images of codes, integers (n, 1, h, w): integers (n, C, H, W) as `sample` gives them."""
        return self._decoder(codes).to(self.device)

    def describe(self) -> str:
        """The prior's program as text, and what follows it."""
        return (
            f"{self.codes.describe()}\nthen decoded to images {tuple(self.shape)}, one at a time, by torch in float64"
        )


def in_stages(model: Any) -> bool:
    """Whether a model is one in stages."""
    return hasattr(model, "prior") and hasattr(model, "autoencoder")


def check_stages(model: Any, **arguments: Any) -> None:
    """PixelfastError for an argument that is given and makes no sense for a model in stages."""
    given = [name for name, value in arguments.items() if value is not None]
    if given:
        raise PixelfastError(
            f"{type(model).__name__} samples codes and decodes them: leave {', '.join(given)} out, or use its prior"
        )
