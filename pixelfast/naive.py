"""The reference loop: the whole network once per number. Slow, and what every fast sampler must agree with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from .bars import row_bar
from .code_completion import Given, GivenCodes, complete_codes
from .completion import TURNS, Posterior
from .errors import PixelfastError
from .likelihoods import Likelihood
from .likelihoods.base import PixelState, check_drawn
from .problem import Problem, make_problem
from .replay import Replay, float_kind
from .requests import Request, check_request
from .rng import PIXELS, uniforms
from .stage import Stage
from .stages import Decoder, check_stages, in_stages, one_thread, stage_seeds

Forward = Callable[[torch.Tensor, Any], torch.Tensor]


def naive_sample(
    model: Any,
    n: int,
    *,
    shape: tuple[int, int, int] | None = None,
    likelihood: Likelihood | None = None,
    input: Any = None,
    outputs: Callable[[Any], Any] | None = None,
    condition: Any = None,
    seed: int = 0,
    seeds: Mapping[str, int] | None = None,
    sample_ids: Sequence[int] | None = None,
    temperature: float = 1.0,
    mode: str = "exact",
    known: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
    batch_size: int | None = None,
    progress: bool | None = None,
    on_row: Callable[[int, torch.Tensor], None] | None = None,
    dtype: torch.dtype | None = None,
    stream: int = PIXELS,
) -> torch.Tensor:
    """Draws images by one full forward per pixel (per channel where a number may condition on its pixel's channels).

    The same noise and arguments as `Sampler.sample`, whose model arguments are those of `compile`. dtype: compute in
    torch.float32 or torch.float64 instead of the model's own type. A model that cannot be copied and
    cast is recorded, and the recording run in that type. stream: of noise, as in `compile`.

    A model in stages (`VQVAEWithPrior`) has each stage drawn like that, in its own stream, and then decoded. seeds: as
    in `StagedSampler.sample`.
    """
    if in_stages(model):
        check_stages(
            model,
            shape=shape,
            likelihood=likelihood,
            input=input,
            outputs=outputs,
            on_row=on_row,
        )
        own = stage_seeds([stage.name for stage in model.stages], seed, seeds)
        drawn: dict[str, torch.Tensor] = {}

        def draw(stage: Stage, **given: Any) -> None:
            drawn[stage.name] = naive_sample(
                stage.network,
                n,
                condition=stage.condition(drawn, condition),
                seed=own[stage.name],
                sample_ids=sample_ids,
                temperature=temperature,
                mode=mode,
                batch_size=batch_size,
                progress=progress,
                dtype=dtype,
                stream=stage.stream,
                **given,
            )

        def draw_all(given: Given) -> dict[str, torch.Tensor]:
            for stage in model.stages:
                draw(stage, **given.get(stage.name, {}))
            return drawn

        decoder = Decoder(model)
        if known is None and mask is None:
            return decoder(draw_all({}))
        if decoder.needed:
            encode = GivenCodes(model, one_thread)
            return complete_codes(model.shape, model.levels, n, known, mask, encode, draw_all, decoder)
        posterior = Posterior(model, one_thread)
        *above, last = model.stages
        for stage in above:
            draw(stage)
        for turn in range(TURNS + 1):
            if turn:
                drawn[posterior.name] = posterior.draw(
                    drawn[last.name], own[posterior.name], sample_ids, temperature, turn
                )
            draw(last, known=known, mask=mask)
        return drawn[last.name]
    if seeds is not None:
        raise PixelfastError(f"{type(model).__name__} does not sample in stages: give seed, and leave seeds out")
    example = condition if getattr(model, "condition_example", None) is None else None
    problem = make_problem(model, shape, likelihood, input, outputs, example)
    request = check_request(problem, n, seed, sample_ids, condition, temperature, mode, known, mask, batch_size)
    images = torch.zeros((n, *problem.shape), dtype=problem.likelihood.dtype)
    size = batch_size or max(n, 1)
    with row_bar(progress, n * problem.shape[1]) as bar:
        for first in range(0, n, size):
            last = min(first + size, n)

            def done(y: int, part: torch.Tensor, first: int = first, last: int = last) -> None:
                images[first:last] = part.to(images.dtype)
                bar.update(last - first)
                if on_row is not None:
                    on_row(y, images)

            _sample_batch(problem, request, first, last, dtype, stream, done)
    return images


def naive_params(problem: Problem, x: torch.Tensor, condition: Any, dtype: torch.dtype | None) -> torch.Tensor:
    """One forward in `dtype`: parameters (N, P, H, W) of integers x (N, C, H, W)."""
    return _forward_in(problem, x.to(torch.float64), condition, dtype)(x.to(torch.float64), condition)


def _sample_batch(
    problem: Problem,
    request: Request,
    first: int,
    last: int,
    dtype: torch.dtype | None,
    stream: int,
    done: Callable[[int, torch.Tensor], None],
) -> None:
    channels, _, width = problem.shape
    samples = last - first
    levels = torch.zeros((samples, *problem.shape), dtype=torch.float64)
    leaves, spec = tree_flatten(request.condition)
    condition = tree_unflatten([t[first:last] if isinstance(t, torch.Tensor) else t for t in leaves], spec)
    forward = _forward_in(problem, levels, condition, dtype)
    needs = problem.likelihood.needs(channels)
    once = all(need == needs[0] for need in needs)
    draws = problem.likelihood.draws(channels)
    params = torch.zeros(0)
    for number in range(problem.numbers):
        position, channel = divmod(number, channels)
        y, x = divmod(position, width)
        if channel == 0:
            pixel = PixelState.start(samples, channels)
        if channel == 0 or not once:
            params = forward(levels, condition)[:, :, y, x].cpu()
        noise = uniforms(request.seed, request.sample_ids[first:last], [number], draws, stream)[:, 0]
        drawn = problem.likelihood.draw(
            channel, params[:, needs[channel]], pixel, noise, request.temperature, request.mode
        )
        nobody = np.zeros(samples, dtype=bool)
        check_drawn(
            drawn, nobody if request.mask is None else request.mask[first:last, channel, y, x], number, problem.shape
        )
        if request.mask is not None and request.known is not None:
            given = torch.from_numpy(request.mask[first:last, channel, y, x])
            fixed = torch.from_numpy(request.known[first:last, channel, y, x]).to(torch.float64)
            drawn = torch.where(given, fixed, drawn)
            pixel.known[:, channel] = given
        pixel.values[:, channel] = drawn
        levels[:, channel, y, x] = drawn
        if channel == channels - 1 and x == width - 1:
            done(y, problem.likelihood.settle(levels))


def _forward_in(problem: Problem, levels: torch.Tensor, condition: Any, dtype: torch.dtype | None) -> Forward:
    """The model's forward in the wanted float type."""
    if dtype is None or dtype == problem.dtype or not isinstance(problem.model, torch.nn.Module):
        return problem.forward
    try:
        cast = copy.deepcopy(problem.model).to(dtype)
        twin = Problem(cast, problem.shape, problem.likelihood, problem.input, problem.outputs, problem.condition)
        wanted = tree_map(lambda t: t.to(float_kind(t.dtype, dtype)) if isinstance(t, torch.Tensor) else t, condition)
        twin.forward(levels, wanted)
    except Exception:
        return _replayed(problem, levels, condition, dtype)
    return lambda x, _: twin.forward(x, wanted)


def _replayed(problem: Problem, levels: torch.Tensor, condition: Any, dtype: torch.dtype) -> Forward:
    replay = Replay(problem.record(levels, condition=condition), dtype)
    tensors = [t for t in tree_flatten(condition)[0] if isinstance(t, torch.Tensor)]
    return lambda x, _: replay(problem.input.encode(x, dtype), tensors)
