"""Models in stages: networks draw numbers through the engine, one after another, and a decoder may follow them."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from .code_completion import Given, GivenCodes, complete_codes
from .completion import TURNS, Posterior
from .errors import PixelfastError, ShapeError
from .likelihoods.base import check_images
from .stage import PIXELS, Drawn, Stage


class Staged(Protocol):
    """What makes a model one in stages.

    stages: networks in the order they sample in. Unless the last one is called "pixels" and draws the image,
    `autoencoder.decode` maps what they drew, integers (N, 1, h, w) of each, in their order, to levels (N, C, H, W).
    To complete images, a model has `autoencoder.encode`: float (N, C, H, W) in [-1, 1] to such integers, by stage where
    there are several; or `posterior`: levels (N, C, H, W) to the means and log-scales (N, 2 c, h, w) of what
    the last stage before the pixels would have drawn for them.
    """

    shape: tuple[int, int, int]
    levels: int

    @property
    def stages(self) -> tuple[Stage, ...]: ...


@dataclass(frozen=True)
class StagedStats:
    """Of the last call. stages: of the engine, by stage; a code counts as a pixel there. decode_seconds: of the
    decoder, all images, or of the posterior where images were completed or reconstructed; 0 where there is neither."""

    images: int
    stages: Mapping[str, Any]
    decode_seconds: float

    @property
    def seconds(self) -> float:
        return sum(stats.seconds for stats in self.stages.values()) + self.decode_seconds

    @property
    def images_per_second(self) -> float:
        return self.images / max(self.seconds, 1e-9)


class Decoder:
    """A copy of a model's decoder that gives the same image whatever it is decoded together with.

    One image at a time on one thread, because torch's convolutions round differently for other batch sizes and
    numbers of threads; in float64, so that other instruction sets hardly ever give another level.
    """

    def __init__(self, model: Staged) -> None:
        self._names = [stage.name for stage in model.stages]
        self.needed = self._names[-1] != PIXELS
        autoencoder: Any = getattr(model, "autoencoder", None)
        self._autoencoder = copy.deepcopy(autoencoder).cpu().double().eval() if self.needed else None
        self._kind = torch.uint8 if model.levels <= 256 else torch.int64
        self._shape = model.shape

    def __call__(self, drawn: Drawn) -> torch.Tensor:
        """What every stage drew, n of each -> integers (n, C, H, W), uint8 for up to 256 levels, else int64."""
        if self._autoencoder is None:
            return drawn[PIXELS]
        codes = [drawn[name].cpu() for name in self._names]
        images = torch.empty((len(codes[0]), *self._shape), dtype=self._kind)
        with one_thread():
            for index, image in enumerate(images):
                image.copy_(self._autoencoder.decode(*(one[index : index + 1] for one in codes))[0])
        return images


@contextmanager
def one_thread() -> Iterator[None]:
    """torch on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class StagedSampler:
    """Made by `compile` of a model in stages. Image i of a seed is one image, as for `Sampler`.

    samplers: the `Sampler` of every stage by its name, in order; each has noise of its own, see `rng.STREAMS`.
    """

    def __init__(self, model: Staged, samplers: Mapping[str, Any], device: torch.device) -> None:
        self.shape = model.shape
        self.levels = model.levels
        self.samplers = samplers
        self.device = device
        self.stats: StagedStats | None = None
        self._conditions = {stage.name: stage.condition for stage in model.stages}
        self._decoder = Decoder(model)
        self._posterior = Posterior(model, one_thread) if hasattr(model, "posterior") else None
        self._given_codes = GivenCodes(model, one_thread) if self._decoder.needed else None

    @property
    def compile_seconds(self) -> float:
        return sum(sampler.compile_seconds for sampler in self.samplers.values())

    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        seeds: Mapping[str, int] | None = None,
        sample_ids: Sequence[int] | None = None,
        condition: Any = None,
        temperature: float = 1.0,
        known: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        batch_size: int | None = None,
        progress: bool | None = None,
    ) -> torch.Tensor:
        """Draws every stage and decodes: integers (n, C, H, W), uint8 for up to 256 levels, else int64.

        The arguments are those of `Sampler.sample`, for every stage, and

        seeds: other seeds for the noise of some stages, by their names.
        known, mask: given pixels. Latents are then drawn to fit them, see `completion`, and codes, see
            `code_completion`.
        """
        every: dict[str, Any] = {
            "sample_ids": sample_ids,
            "temperature": temperature,
            "batch_size": batch_size,
            "progress": progress,
        }
        if known is not None or mask is not None:
            if self._given_codes is not None:
                return self._complete_codes(n, seed, seeds, condition, known, mask, every)
            return self._complete(n, seed, seeds, condition, known, mask, every)
        drawn = self.draw(n, seed=seed, seeds=seeds, condition=condition, **every)
        started = time.perf_counter()
        images = self._decoder(drawn)
        decoded = time.perf_counter() - started if self._decoder.needed else 0.0
        self.stats = StagedStats(n, {name: sampler.stats for name, sampler in self.samplers.items()}, decoded)
        return images.to(self.device)

    def draw(
        self,
        n: int,
        *,
        seed: int = 0,
        seeds: Mapping[str, int] | None = None,
        condition: Any = None,
        **arguments: Any,
    ) -> dict[str, torch.Tensor]:
        """What every stage draws, by its name, with the arguments of `sample`; `decode` makes images of it."""
        own = stage_seeds(self.samplers, seed, seeds)
        drawn: dict[str, torch.Tensor] = {}
        for name, sampler in self.samplers.items():
            given = self._conditions[name](drawn, condition)
            drawn[name] = sampler.sample(n, seed=own[name], condition=given, **arguments)
        return drawn

    def _complete(
        self,
        n: int,
        seed: int,
        seeds: Mapping[str, int] | None,
        condition: Any,
        known: torch.Tensor | None,
        mask: torch.Tensor | None,
        every: dict[str, Any],
    ) -> torch.Tensor:
        if self._posterior is None:
            raise PixelfastError(
                f"a model with the stages {', '.join(self.samplers)} does not complete images: leave known, mask out"
            )
        own = stage_seeds(self.samplers, seed, seeds)
        *above, last = self.samplers
        drawn: dict[str, torch.Tensor] = {}
        for name in above:
            given = self._conditions[name](drawn, condition)
            drawn[name] = self.samplers[name].sample(n, seed=own[name], condition=given, **every)
        runs, inferring = [], 0.0
        for turn in range(TURNS + 1):
            if turn:
                started = time.perf_counter()
                name = self._posterior.name
                drawn[name] = self._posterior.draw(
                    drawn[last], own[name], every["sample_ids"], every["temperature"], turn
                )
                inferring += time.perf_counter() - started
            given = self._conditions[last](drawn, condition)
            drawn[last] = self.samplers[last].sample(
                n, seed=own[last], condition=given, known=known, mask=mask, **every
            )
            runs.append(self.samplers[last].stats)
        stats = {name: self.samplers[name].stats for name in above}
        stats[last] = _together(runs)
        self.stats = StagedStats(n, stats, inferring)
        return drawn[last].to(self.device)

    def _complete_codes(
        self,
        n: int,
        seed: int,
        seeds: Mapping[str, int] | None,
        condition: Any,
        known: torch.Tensor | None,
        mask: torch.Tensor | None,
        every: dict[str, Any],
    ) -> torch.Tensor:
        assert self._given_codes is not None
        own = stage_seeds(self.samplers, seed, seeds)
        runs: dict[str, list[Any]] = {name: [] for name in self.samplers}

        def draw(given: Given) -> Drawn:
            drawn: dict[str, torch.Tensor] = {}
            for name, sampler in self.samplers.items():
                own_condition = self._conditions[name](drawn, condition)
                drawn[name] = sampler.sample(n, seed=own[name], condition=own_condition, **given.get(name, {}), **every)
                runs[name].append(sampler.stats)
            return drawn

        started = time.perf_counter()
        images = complete_codes(self.shape, self.levels, n, known, mask, self._given_codes, draw, self._decoder)
        elapsed = time.perf_counter() - started
        stats = {name: _together(of) for name, of in runs.items()}
        rest = max(elapsed - sum(one.seconds for one in stats.values()), 0.0)
        self.stats = StagedStats(n, stats, rest)
        return images.to(self.device)

    def decode(self, drawn: Drawn) -> torch.Tensor:
        """The images of what every stage drew: integers (n, C, H, W) as `sample` gives them."""
        missing = [name for name in self.samplers if name not in drawn]
        if missing:
            raise PixelfastError(f"decode needs what {', '.join(missing)} drew too")
        return self._decoder(drawn).to(self.device)

    def reconstruct(
        self,
        images: torch.Tensor,
        *,
        seed: int = 0,
        temperature: float = 1.0,
        batch_size: int | None = None,
        progress: bool | None = None,
    ) -> torch.Tensor:
        """Images, integers (N, C, H, W), drawn again given their latents: integers (N, C, H, W) as of `sample`.

        The latents are the means of their posterior; the other arguments are those of `Sampler.sample`, for the
        pixels. Raises PixelfastError for a model without a posterior, ShapeError for anything else than such images.
        """
        if self._posterior is None:
            raise PixelfastError(f"a model with the stages {', '.join(self.samplers)} has no posterior of latents")
        if not isinstance(images, torch.Tensor) or images.ndim != 4 or tuple(images.shape[1:]) != tuple(self.shape):
            given = tuple(images.shape) if isinstance(images, torch.Tensor) else type(images).__name__
            accepted = ", ".join(map(str, self.shape))
            raise ShapeError(f"images are {given}; reconstruct takes a tensor of integers (N, {accepted})")
        check_images(images, self.levels)
        started = time.perf_counter()
        means = self._posterior.means(images)
        inferring = time.perf_counter() - started
        sampler = self.samplers[PIXELS]
        again = sampler.sample(
            len(images),
            seed=seed,
            condition=self._conditions[PIXELS]({self._posterior.name: means}, None),
            temperature=temperature,
            batch_size=batch_size,
            progress=progress,
        )
        self.stats = StagedStats(len(images), {PIXELS: sampler.stats}, inferring)
        return again

    def describe(self) -> str:
        """The program of every stage as text, and what follows them."""
        parts = [f"{name}: {sampler.describe()}" for name, sampler in self.samplers.items()]
        if self._decoder.needed:
            parts.append(f"then decoded to images {tuple(self.shape)}, one at a time, by torch in float64")
        return "\n".join(parts)


def _together(runs: Sequence[Any]) -> Any:
    """The statistics of one network's runs, all on the same images, as of one run."""
    seconds = sum(run.seconds for run in runs)
    share = runs[-1].seconds / seconds
    return replace(
        runs[-1],
        seconds=seconds,
        images_per_second=runs[-1].images_per_second * share,
        us_per_pixel=runs[-1].us_per_pixel / share,
        gflops=runs[-1].gflops * share * len(runs),
    )


def in_stages(model: Any) -> bool:
    """Whether a model is one in stages."""
    stages = getattr(model, "stages", None)
    return isinstance(stages, tuple) and bool(stages) and all(isinstance(stage, Stage) for stage in stages)


def check_stages(model: Any, **arguments: Any) -> None:
    """PixelfastError for an argument that is given and makes no sense for a model in stages."""
    given = [name for name, value in arguments.items() if value is not None]
    if given:
        names = ", then ".join(stage.name for stage in model.stages)
        raise PixelfastError(
            f"{type(model).__name__} samples in stages ({names}): leave {', '.join(given)} out, or use the network of "
            "one stage"
        )


def stage_seeds(names: Iterable[str], seed: int, seeds: Mapping[str, int] | None) -> dict[str, int]:
    """The seed of each stage: its own in `seeds`, else `seed`. Raises PixelfastError for a stage that is not there."""
    names = list(names)
    seeds = {} if seeds is None else seeds
    if not isinstance(seeds, Mapping):
        raise PixelfastError(f"seeds is {seeds!r}; it takes seeds by stage, such as {{{names[0]!r}: 3}}")
    unknown = [str(name) for name in seeds if name not in names]
    if unknown:
        raise PixelfastError(f"seeds names {', '.join(unknown)}; the stages of this model are {', '.join(names)}")
    return {name: seeds.get(name, seed) for name in names}
