"""compile() and Sampler: from an eager model to fast exact samples."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import torch
from torch.utils._pytree import tree_flatten

from .backends.base import Job, Result
from .backends.registry import choose
from .bars import row_bar
from .causality import Analysis, analyse
from .describe import describe_program
from .errors import BackendError, PixelfastError, ShapeError
from .likelihoods import Likelihood
from .lower import lower
from .precision import LOW_PRECISION
from .problem import Problem, make_problem
from .program import Program
from .prologue import run_prologue
from .requests import Request, as_tensor, check_request
from .rng import PIXELS
from .schedule import schedule
from .self_check import check_program
from .split import split_early
from .stages import Staged, StagedSampler, check_stages, in_stages
from .statistics import LeastTime, Stats

BATCH_BYTES = 2 << 30
"""Activations of one batch take at most this much memory unless the caller chooses batch_size."""
LARGEST_BATCH = 64
DTYPES = (torch.float32, torch.float64, *LOW_PRECISION)


@overload
def compile(
    model: Staged, *, backend: str = ..., dtype: torch.dtype | str = ..., device: torch.device | str | None = ...
) -> StagedSampler: ...
@overload
def compile(
    model: Any,
    shape: tuple[int, int, int] | None = ...,
    likelihood: Likelihood | None = ...,
    input: Any = ...,
    outputs: Callable[[Any], Any] | None = ...,
    condition: Any = ...,
    backend: str = ...,
    dtype: torch.dtype | str = ...,
    device: torch.device | str | None = ...,
    stream: int = ...,
) -> Sampler: ...
def compile(
    model: Any,
    shape: tuple[int, int, int] | None = None,
    likelihood: Likelihood | None = None,
    input: Any = None,
    outputs: Callable[[Any], Any] | None = None,
    condition: Any = None,
    backend: str = "auto",
    dtype: torch.dtype | str = torch.float32,
    device: torch.device | str | None = None,
    stream: int = PIXELS,
) -> Any:
    """Compiles any causal model into a sampler; a model in stages (`VQVAEWithPrior`) into a `StagedSampler`.

    Args:
        model: a torch.nn.Module, or a function of tensors. Its weights are copied; it is left unchanged.
        shape: (C, H, W) of an image. pixelfast's own models know shape, likelihood and input.
        likelihood: how the parameters that the model returns describe a number.
        input: what forward takes: "levels" (integers (N, C, H, W)), "index" (integers (N, H, W), C = 1), "unit"
            (level / (levels - 1)), "signed" (2 * unit - 1), "real" (the floats that a DiagonalGaussian draws), or a
            table of values (levels,) or (C, levels).
        outputs: turns what forward returns into the likelihood's parameters; traced along.
        condition: an example (a tensor, tuple or dict with a leading batch axis), passed on to forward as positional or
            keyword arguments. Its values do not matter; `sample` gets the real ones.
        backend: "auto" takes the best that can run the program, and warns if that is a slow one; a name never falls
            back.
        dtype: torch.float32, torch.float64 (slow), torch.bfloat16 or "int8" (the same as torch.int8). In the last two
            most contractions take bfloat16 numbers, or 8-bit codes, and sum in float32 (see `precision`). That changes
            the distribution a little, int8 more than bfloat16; `pixelfast eval --dtype` measures it.
        device: where images are returned; default the CPU.
        stream: of noise, 0 to 2**16 - 1; whoever samples several networks for one image gives each its own.

    Raises:
        CausalityError: an output depends on a number sampled later; names operation, output and input position.
        UnsupportedModelError: an operation cannot be compiled; names it.
        BackendError, ShapeError, PixelfastError: an argument is wrong.
    """
    if dtype == "int8":
        dtype = torch.int8
    if dtype not in DTYPES:
        raise BackendError(f"dtype is {dtype!r}; it takes {', '.join(map(str, DTYPES))}")
    place = _device(device)
    if in_stages(model):
        check_stages(model, shape=shape, likelihood=likelihood, input=input, outputs=outputs, condition=condition)
        samplers = {
            stage.name: compile(stage.network, backend=backend, dtype=dtype, stream=stage.stream)
            for stage in model.stages
        }
        return StagedSampler(model, samplers, place)
    problem = make_problem(model, shape, likelihood, input, outputs, condition)
    started = time.perf_counter()
    analysis = analyse(problem)
    graph, ready = split_early(analysis.graph, analysis.ready)
    lowered = lower_program(graph, ready, problem)
    chosen, refused = choose(backend, lowered.program, problem.likelihood, dtype)
    if refused and dtype == torch.float32:
        reasons = "; ".join(f"{name}: {reason}" for name, reasons in refused.items() for reason in reasons)
        warnings.warn(f"sampling on the slow backend {chosen.name!r}, because {reasons}", stacklevel=2)
    sampler = Sampler(
        problem,
        analysis,
        lowered,
        chosen(lowered.program, problem.likelihood, dtype),
        refused,
        dtype,
        place,
        stream,
    )
    sampler._check_itself()
    sampler.compile_seconds = time.perf_counter() - started
    return sampler


def _device(device: torch.device | str | None) -> torch.device:
    try:
        place = torch.device(device or "cpu")
        torch.zeros(1, device=place).cpu()
    except (RuntimeError, TypeError, AssertionError, NotImplementedError):
        raise BackendError(
            f"device is {device!r}; images can be returned on the CPU or an accelerator that torch has"
        ) from None
    return place


@dataclass(frozen=True, eq=False)
class Lowered:
    program: Program
    condition_buffers: dict[int, int]
    """value -> buffer"""


def lower_program(graph: Any, ready: Any, problem: Problem) -> Lowered:
    code = problem.input
    program, buffer_of = lower(schedule(graph, ready), code.scale, code.offset, code.table)
    conditions = {v: b for v, b in buffer_of.items() if graph.values[v].kind == "condition"}
    return Lowered(program, conditions)


class Sampler:
    """Made by `compile`. Image i of a seed is one image, whatever the batch, its place in it, or the threads."""

    def __init__(
        self,
        problem: Problem,
        analysis: Analysis,
        lowered: Lowered,
        backend: Any,
        refused: dict[str, list[str]],
        dtype: torch.dtype,
        device: torch.device,
        stream: int,
    ) -> None:
        self.shape = problem.shape
        self.likelihood = problem.likelihood
        self.program = lowered.program
        self.backend = backend
        self.refused = refused
        """Backends passed over, with reasons."""
        self.dtype = dtype
        self.device = device
        self.stats: Stats | None = None
        self.compile_seconds = 0.0
        self.notes = tuple(analysis.graph.notes)
        self._stream = stream
        self._problem = problem
        self.analysis = analysis
        """What `causality.analyse` found out about the model."""
        self._lowered = lowered
        self._threads: int | None = None
        self._lookahead: int | None = None
        self._least = LeastTime(analysis.graph, analysis.ready, lowered.program.flops, dtype)

    # -- sampling -----------------------------------------------------------------------------------------------------

    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        sample_ids: Sequence[int] | None = None,
        condition: Any = None,
        temperature: float = 1.0,
        mode: str = "exact",
        known: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        batch_size: int | None = None,
        progress: bool | None = None,
        on_row: Callable[[int, torch.Tensor], None] | None = None,
    ) -> torch.Tensor:
        """Draws images: integers (n, C, H, W), uint8 for up to 256 levels, else int64; float32 where numbers are real.

        Args:
            sample_ids: which images of the seed; default 0 to n - 1.
            condition: as compiled, with n rows or one row for all.
            temperature: logits / T, scales * T; 0 is the mode.
            mode: "exact", or "reference": the published PixelCNN++ sampler, which feeds unrounded values back.
            known, mask: numbers (N, C, H, W) that are given where the boolean mask is true; both broadcast. The
                rest is sampled given what precedes it in order, with the noise it would have had anyway.
            batch_size: images at a time; default chosen by memory. It does not change any image.
            progress: show a bar; default only on a terminal and after a second.
            on_row: called with (row, images so far) after each image row of a batch; the images are one tensor that
                goes on changing, so clone it to keep a frame.
        """
        request = check_request(
            self._problem, n, seed, sample_ids, condition, temperature, mode, known, mask, batch_size
        )
        out = torch.zeros((n, *self.shape), dtype=self.likelihood.dtype)
        if on_row is not None and not callable(on_row):
            raise PixelfastError(f"on_row is {type(on_row).__name__}; it takes a function of (row, images)")
        bar = row_bar(progress, n * self.shape[1])

        def row_done(first: int) -> Callable[[int, np.ndarray], None]:
            def done(y: int, images: np.ndarray) -> None:
                bar.update(len(images))
                if on_row is not None:
                    out[first : first + len(images)] = torch.from_numpy(images).to(out.dtype)
                    on_row(y, out.to(self.device))

            return done

        started = time.perf_counter()
        runs = []
        with bar:
            for first, last in self._batches(request):
                result = self._run(request, first, last, row_done(first))
                out[first:last] = torch.from_numpy(result.images).to(out.dtype)
                runs.append(result.stats)
        self._note(n, time.perf_counter() - started, self._batches(request)[0][1] if n else 0, runs)
        return out.to(self.device)

    def params(self, x: torch.Tensor, condition: Any = None) -> torch.Tensor:
        """The likelihood's parameters (N, P, H, W), computed step by step while x is fed in.

        x: images (N, C, H, W), integers, or floats where numbers are real (rounded to float32).
        """
        x = self._images(x)
        request = check_request(
            self._problem, len(x), 0, None, condition, 1.0, "exact", x, torch.ones((), dtype=torch.bool), None
        )
        started = time.perf_counter()
        parts, runs = [], []
        for first, last in self._batches(request):
            result = self._run(request, first, last, collect=True)
            parts.append(self._collected(result))
            runs.append(result.stats)
        self._note(len(x), time.perf_counter() - started, self._batches(request)[0][1] if len(x) else 0, runs)
        return torch.cat(parts) if parts else torch.zeros(0, self.likelihood.parameters(self.shape[0]), *self.shape[1:])

    def log_prob(self, x: torch.Tensor, condition: Any = None) -> torch.Tensor:
        """Log-probability of images (N, C, H, W) in nats, (N,); where numbers are real, of their density."""
        x = self._images(x)
        params = self.likelihood.unflatten(self.params(x, condition), self.shape)
        return self.likelihood.log_prob(params, x).sum(dim=(1, 2, 3))

    def bits_per_dim(self, x: torch.Tensor, condition: Any = None) -> torch.Tensor:
        """-log_prob / (C * H * W * ln 2), (N,).

        Raises:
            PixelfastError: the likelihood is a density.
        """
        if self.likelihood.continuous:
            raise PixelfastError(f"{self.likelihood} is a density, which has no bits per dimension; use log_prob")
        return -self.log_prob(x, condition) / (self._problem.numbers * float(np.log(2.0)))

    def describe(self) -> str:
        """The program as text: buffers, kernels, and how many tasks run each."""
        return describe_program(self.program, self.backend.name, self.dtype, self.refused, self.notes)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _images(self, x: torch.Tensor) -> torch.Tensor:
        x = as_tensor("x", x)
        real = self.likelihood.continuous
        if (
            x.is_floating_point() != real
            or x.is_complex()
            or x.dtype == torch.bool
            or x.ndim != 4
            or tuple(x.shape[1:]) != self.shape
        ):
            wanted = f"{'floats' if real else 'integers'} of shape (N, {', '.join(map(str, self.shape))})"
            raise ShapeError(f"x is {x.dtype} {tuple(x.shape)}; it takes {wanted}")
        return x.to(torch.float32 if real else torch.int64)

    def _batches(self, request: Request) -> list[tuple[int, int]]:
        size = request.batch_size
        if size is None:
            size = max(1, min(LARGEST_BATCH, BATCH_BYTES // max(1, self.program.bytes_per_image())))
        return [(first, min(first + size, request.samples)) for first in range(0, request.samples, size)]

    def _run(
        self,
        request: Request,
        first: int,
        last: int,
        on_row: Any = None,
        collect: bool = False,
        until: int | None = None,
    ) -> Result:
        part = slice(first, last)
        job = Job(
            samples=last - first,
            seed=request.seed,
            sample_ids=request.sample_ids[part],
            conditions=self._conditions(request.condition, first, last),
            temperature=request.temperature,
            mode=request.mode,
            known=None if request.known is None else request.known[part],
            mask=None if request.mask is None else request.mask[part],
            on_row=on_row,
            collect_params=collect,
            threads=self._threads,
            last_number=until,
            lookahead=self._lookahead,
            stream=self._stream,
        )
        return self.backend.run(job)

    def _conditions(self, condition: Any, first: int, last: int) -> list[tuple[int, np.ndarray]]:
        buffers = self._lowered.condition_buffers
        if not buffers:
            return []
        values = self.analysis.graph.values
        sizes = {v: (values[v].sites, values[v].channels) for v in values_of(self.analysis)}
        rows = [t for t in tree_flatten(condition)[0] if isinstance(t, torch.Tensor)]
        images = []
        for i in range(first, last):
            try:
                images.append(run_prologue(self.analysis.prologue, [t[i : i + 1].cpu() for t in rows], sizes))
            except (IndexError, RuntimeError) as error:
                raise ShapeError(
                    f"the condition of image {i} is refused by the model: {str(error).splitlines()[0]}"
                ) from error
        return [(b, np.stack([image[v] for image in images])) for v, b in buffers.items()]

    def _collected(self, result: Result) -> torch.Tensor:
        channels, height, width = self.shape
        dtype = torch.float64 if self.dtype == torch.float64 else torch.float32
        images = len(result.images)
        out = torch.full((images, self.likelihood.parameters(channels), height * width), torch.nan, dtype=dtype)
        for needed, values in zip(self.likelihood.needs(channels), result.params or [], strict=True):
            done = values.shape[1]
            out[:, needed, :done] = torch.from_numpy(np.ascontiguousarray(values)).transpose(1, 2).to(dtype)
        return out.reshape(images, -1, height, width)

    def _note(self, images: int, seconds: float, batch: int, runs: list[dict[str, Any]]) -> None:
        last = runs[-1] if runs else {}
        plain = len(np.unique(self.program.tasks[:, 0])) * images
        seconds = max(seconds, 1e-9)
        pixels = self.shape[1] * self.shape[2]
        self.stats = Stats(
            backend=self.backend.name,
            isa=str(last.get("isa", "torch")),
            dtype=str(self.dtype).removeprefix("torch."),
            images=images,
            seconds=seconds,
            images_per_second=images / seconds,
            us_per_pixel=1e6 * seconds / max(1, images * pixels),
            gflops=self.program.flops * images / seconds / 1e9,
            bytes_per_image=int(last.get("bytes_per_image", self.program.bytes_per_image(self.dtype.itemsize))),
            attended_bytes_per_image=self.program.attended_bytes_per_image(
                max(self.dtype.itemsize, torch.float32.itemsize)
            ),
            threads=int(last.get("threads", torch.get_num_threads())),
            batch=batch,
            forecasts=sum(run.get("forecasts", 0) for run in runs),
            forecasts_accepted=sum(run.get("forecasts_accepted", 0) for run in runs),
            evaluations=sum(run["evaluations"] for run in runs) if "evaluations" in last else plain,
            plain_evaluations=plain,
            _least=self._least,
        )

    def _check_itself(self) -> None:
        def run(request: Request, until: int | None) -> torch.Tensor:
            return self._collected(self._run(request, 0, request.samples, collect=True, until=until))

        check_program(self._problem, self.analysis, self.program, self.backend.name, self.dtype, run)


def values_of(analysis: Analysis) -> list[int]:
    """Values that the prologue computes."""
    return [item[0] for what, item in analysis.prologue.steps if what == "capture"]
