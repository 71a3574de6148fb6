"""Predictive sampling: whatever is guessed, and however many numbers are computed together, the bits are those of
plain sampling, one number at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gallery import IDIOMS, Idiom
from hypothesis import HealthCheck, given, settings
from random_networks import Drawn, networks
from random_numbers import random_array
from torch import Tensor, nn

import pixelfast
from pixelfast import _C
from pixelfast.backends.base import Job
from pixelfast.backends.cpu import CpuBackend
from pixelfast.backends.cpu_packing import build_engine
from pixelfast.backends.registry import backend_class
from pixelfast.causality import analyse
from pixelfast.errors import BackendError
from pixelfast.ir import reads
from pixelfast.models import GatedPixelCNN, PixelCNNPlusPlus
from pixelfast.problem import make_problem
from pixelfast.readiness import NEVER
from pixelfast.sampler import lower_program
from pixelfast.schedule import LOOKAHEAD, Schedule, schedule
from pixelfast.shipped import DEFAULT, weights
from pixelfast.split import split_early

ISAS = _C.available_isas()
PLAIN = 1
AHEAD = (None, 2, 3, 64)
"""As many as pays, and so many whether it pays or not: up to the program's own limit."""


def compiled(model: nn.Module, **arguments: Any) -> pixelfast.Sampler:
    return pixelfast.compile(model.eval(), backend="cpu", **arguments)


def same(one: Any, other: Any) -> bool:
    """Images and parameters, to the bit; parameters that are not numbers too."""
    return np.array_equal(one.images, other.images) and all(
        a.tobytes() == b.tobytes() for a, b in zip(one.params, other.params, strict=True)
    )


def assert_same_bits(
    sampler: pixelfast.Sampler, samples: int = 3, lookaheads: tuple[int | None, ...] = AHEAD, **changes: Any
) -> dict[str, int]:
    """Each image alone, as predictive sampling takes them. Sums of the forced runs' figures."""
    totals = {"forecasts": 0, "forecasts_accepted": 0, "evaluations": 0, "plain_evaluations": 0}
    condition = changes.pop("condition", None)
    for image in range(samples):
        one = slice(image, image + 1)
        rows = None if condition is None else sampler._problem.batch_condition(condition, samples)
        given = {key: changes[key][one] for key in ("known", "mask") if key in changes}
        job = Job(
            samples=1,
            sample_ids=np.array([image], dtype=np.uint64),
            conditions=sampler._conditions(rows, image, image + 1),
            collect_params=True,
            **{"threads": 1, **changes, **given},
        )
        plain = sampler.backend.run(dataclasses.replace(job, lookahead=PLAIN))
        assert plain.stats["forecasts"] == 0 and plain.stats["evaluations"] == plain.stats["plain_evaluations"]
        for lookahead in lookaheads:
            ahead = sampler.backend.run(dataclasses.replace(job, lookahead=lookahead))
            assert same(plain, ahead), (image, lookahead)
            assert 0 <= ahead.stats["forecasts_accepted"] <= ahead.stats["forecasts"]
            if lookahead is not None:
                totals = {key: value + ahead.stats[key] for key, value in totals.items()}
    return totals


def randomised(model: nn.Module, seed: int = 3, scale: float = 0.3) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def gated(shape: tuple[int, int, int], levels: int = 4, **changes: Any) -> nn.Module:
    return randomised(GatedPixelCNN(shape, levels, 6, (1, 2), **changes))


def plus(shape: tuple[int, int, int], **changes: Any) -> nn.Module:
    return randomised(PixelCNNPlusPlus(shape, **{"blocks": 1, "filters": 4, "mixtures": 2} | changes), scale=0.1)


class Shifted(nn.Module):
    """Two rows above and two numbers to the left, for any likelihood."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 8, (2, 3))
        self.second = nn.Conv2d(channels, 8, (1, 2))
        self.head = nn.Conv2d(8, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        above = self.first(nn.functional.pad(x, (1, 1, 2, 0)))[:, :, :-1]
        left = self.second(nn.functional.pad(x, (2, 0)))[..., :-1]
        return self.head(torch.tanh(above + left))


def shifted(shape: tuple[int, int, int], likelihood: Any) -> pixelfast.Sampler:
    model = randomised(Shifted(shape[0], likelihood.parameters(shape[0])))
    outputs = None
    if isinstance(likelihood, pixelfast.Categorical):
        outputs = lambda params: params.unflatten(1, (likelihood.levels, shape[0]))  # noqa: E731
    input = "real" if likelihood.continuous else "signed"
    return compiled(model, shape=shape, likelihood=likelihood, input=input, outputs=outputs)


# -- the same bits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("idiom", IDIOMS.values(), ids=IDIOMS.keys())
def test_every_idiom(idiom: Idiom) -> None:
    try:
        sampler = compiled(idiom.build(), condition=idiom.conditions(1), **idiom.arguments())
    except BackendError as error:
        pytest.skip(str(error))
    assert_same_bits(sampler, 2, condition=idiom.conditions(2))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "gated": lambda: gated((1, 9, 13)),
    "gated, wide": lambda: gated((1, 5, 41)),
    "gated, one column": lambda: gated((1, 5, 1)),
    "gated, one row": lambda: gated((1, 1, 17)),
    "gated, two channels": lambda: gated((2, 5, 11)),
    "gated, three channels": lambda: gated((3, 5, 11)),
    "pixelcnn++, one channel": lambda: plus((1, 8, 28)),
    "pixelcnn++, three channels": lambda: plus((3, 8, 20)),
}


@pytest.mark.parametrize("name", MODELS)
def test_models(name: str) -> None:
    totals = assert_same_bits(compiled(MODELS[name]()), 12)
    if name != "gated, one column":
        assert totals["forecasts"] > 0 and totals["evaluations"] < totals["plain_evaluations"]


@pytest.mark.slow
def test_a_thousand_images() -> None:
    """As sampling by default goes, which learns from the images before."""
    models = [pixelfast.load(weights(DEFAULT)), *(create() for create in MODELS.values())]
    each = -(-1000 // len(models))
    for model in models:
        assert_same_bits(compiled(model), each, lookaheads=(None,))


@pytest.mark.parametrize("isa", ISAS)
def test_every_instruction_set(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXELFAST_ISA", isa)
    for name in ("gated, three channels", "pixelcnn++, one channel"):
        sampler = compiled(MODELS[name]())
        assert sampler.backend.isa == isa
        assert_same_bits(sampler, 10)


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_that_share_tasks_and_threads_with_images_of_their_own(threads: int) -> None:
    sampler = compiled(MODELS["pixelcnn++, three channels"]())
    assert_same_bits(sampler, 4, threads=threads, sharing="tasks")
    job = Job(threads, sample_ids=np.arange(threads, dtype=np.uint64), threads=threads, sharing="images")
    plain = sampler.backend.run(dataclasses.replace(job, lookahead=PLAIN)).images
    for lookahead in AHEAD:
        assert np.array_equal(sampler.backend.run(dataclasses.replace(job, lookahead=lookahead)).images, plain)


HEADS = {
    "categorical": ((1, 7, 12), pixelfast.Categorical(5)),
    "categorical, many levels": ((1, 5, 9), pixelfast.Categorical(256)),
    "categorical, three channels": ((3, 5, 9), pixelfast.Categorical(3)),
    "bernoulli": ((1, 7, 12), pixelfast.Bernoulli()),
    "bernoulli, two channels": ((2, 6, 9), pixelfast.Bernoulli()),
    "mixture": ((1, 7, 12), pixelfast.DiscretizedLogisticMixture(3, 8)),
    "mixture, three channels": ((3, 6, 11), pixelfast.DiscretizedLogisticMixture(3, 8)),
    "mixture, 256 levels": ((3, 5, 9), pixelfast.DiscretizedLogisticMixture(10)),
    "gaussian, two channels": ((2, 5, 9), pixelfast.DiagonalGaussian()),
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    ("temperature", "mode"), [(1.0, "exact"), (0.0, "exact"), (0.6, "exact"), (1.0, "reference"), (0.0, "reference")]
)
def test_heads_temperatures_and_modes(head: str, temperature: float, mode: str) -> None:
    shape, likelihood = HEADS[head]
    sampler = shifted(shape, likelihood)
    totals = assert_same_bits(sampler, 6, temperature=temperature, mode=mode, seed=7)
    assert temperature == 0 or totals["forecasts_accepted"] < totals["forecasts"]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("mode", ["exact", "reference"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_given_numbers(head: str, mode: str, share: float) -> None:
    shape, likelihood = HEADS[head]
    sampler = shifted(shape, likelihood)
    generator = np.random.default_rng(int(100 * share))
    known = random_array(likelihood, (4, *shape), generator)
    assert_same_bits(sampler, 4, known=known, mask=generator.random(known.shape) < share, mode=mode)


@pytest.mark.parametrize("kind", [{"classes": 3}, {"spatial_condition": 2}, {"vector_condition": 3}])
def test_conditions(kind: dict[str, int]) -> None:
    for shape in ((1, 6, 13), (3, 4, 9)):
        sampler = compiled(gated(shape, **kind))
        examples = {
            "classes": torch.tensor([0, 2, 1, 1]),
            "vector_condition": torch.randn(4, 3),
            "spatial_condition": torch.randn(4, 2, *shape[1:]),
        }
        example = examples[next(iter(kind))]
        assert_same_bits(sampler, 4, condition=example)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, "int8"])
def test_the_shipped_model(dtype: Any) -> None:
    sampler = pixelfast.compile(pixelfast.load(weights(DEFAULT)), backend="cpu", dtype=dtype)
    totals = assert_same_bits(sampler, 8, lookaheads=(None, 2, 8))
    assert totals["forecasts_accepted"] > 0.4 * totals["forecasts"]
    assert totals["evaluations"] < 0.6 * totals["plain_evaluations"]


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(networks())
def test_random_networks(drawn: Drawn) -> None:
    assert_same_bits(compiled(drawn.model, **drawn.arguments()), 2, lookaheads=(None, 2, 64))


def test_slots_kept_too_short_would_be_seen() -> None:
    """More steps merged than slots are kept for give other bits: the comparison above can fail."""
    sampler = compiled(gated((1, 4, 40)))
    for number, (usual, ahead) in enumerate(zip(sampler.program.tables, sampler.program.ahead_tables, strict=True)):
        assert ((usual < 0) == (ahead < 0)).all(), number
    careless = dataclasses.replace(sampler.program, lookahead=40)
    sampler.backend = CpuBackend(careless, sampler.likelihood)
    with pytest.raises(AssertionError):
        assert_same_bits(sampler, 3, lookaheads=(40,))


# -- what makes merging steps valid --------------------------------------------------------------------------


def scheduled(model: nn.Module) -> Schedule:
    analysis = analyse(make_problem(model.eval(), None, None, None, None, None))
    return schedule(*split_early(analysis.graph, analysis.ready))


@pytest.mark.parametrize("name", MODELS)
def test_slots_are_kept_while_steps_may_be_merged(name: str) -> None:
    """Within an image row a slot is written again only `lookahead` steps after its last reader, or later."""
    made = scheduled(MODELS[name]())
    graph = made.graph
    row = graph.shape[2] * graph.channels
    assert made.lookahead == graph.channels * min(LOOKAHEAD, graph.shape[2])
    for value, slots in made.ahead_slots.items():
        writer = made.groups[made.group_of[value]]
        last = writer.step.astype(np.int64)
        for group in made.groups:
            for node in group.nodes:
                for source in reads(node):
                    if source.value == value:
                        used = (source.sites >= 0) & (group.step != NEVER)
                        np.maximum.at(last, source.sites[used], group.step[used])
        for channel, output in enumerate(graph.outputs):
            if output == value:
                np.maximum(last, np.arange(graph.pixels) * graph.channels + channel, out=last)
        live = np.flatnonzero(writer.step != NEVER)
        for slot in np.unique(slots[live]):
            mine = live[slots[live] == slot]
            mine = mine[np.argsort(writer.step[mine])]
            written, before = writer.step[mine][1:], last[mine][:-1]
            assert ((written - before >= made.lookahead) | (written // row > before // row)).all()


@pytest.mark.parametrize("name", MODELS)
def test_tasks_of_a_step_are_in_the_order_of_kernels(name: str) -> None:
    tasks = compiled(MODELS[name]()).program.tasks
    same_step = tasks[1:, 0] == tasks[:-1, 0]
    assert (tasks[1:, 1] > tasks[:-1, 1])[same_step].all()


@pytest.mark.parametrize(
    "damage",
    [
        lambda p: dataclasses.replace(p, lookahead=0),
        lambda p: dataclasses.replace(p, lookahead=p.shape[0] * p.shape[2] + 1),
        lambda p: dataclasses.replace(p, ahead_tables=()),
        lambda p: dataclasses.replace(p, ahead_tables=(p.ahead_tables[0][1:], *p.ahead_tables[1:])),
        lambda p: dataclasses.replace(p, ahead_tables=tuple(t + 1000 for t in p.ahead_tables)),
        lambda p: dataclasses.replace(p, tasks=p.tasks[np.lexsort((-p.tasks[:, 1], p.tasks[:, 0]))]),
    ],
    ids=["no step", "more than a row", "no tables", "a short table", "no such slot", "kernels out of order"],
)
def test_malformed_programs_are_refused(damage: Callable[[Any], Any]) -> None:
    sampler = compiled(gated((1, 3, 12)))
    with pytest.raises(ValueError, match="malformed program"):
        build_engine(damage(sampler.program), sampler.likelihood, "", torch.float32)


def test_a_negative_lookahead_is_refused() -> None:
    sampler = compiled(gated((1, 3, 4)))
    with pytest.raises(ValueError, match="lookahead must be 1 or more"):
        sampler.backend.run(Job(1, sample_ids=np.zeros(1, dtype=np.uint64), lookahead=-1))


# -- what is counted -----------------------------------------------------------------------------------------


def test_given_numbers_are_always_guessed_right() -> None:
    sampler = compiled(gated((1, 6, 24)))
    known = np.random.default_rng(0).integers(4, size=(1, 1, 6, 24))
    totals = assert_same_bits(sampler, 1, lookaheads=(8,), known=known, mask=np.ones(known.shape, dtype=bool))
    assert totals["forecasts_accepted"] == totals["forecasts"] > 0
    assert totals["evaluations"] <= 1 + 6 * (24 // 8)  # of the very first number nothing is guessed


def test_statistics_of_a_call() -> None:
    sampler = compiled(gated((1, 6, 24)))
    steps = len(np.unique(sampler.program.tasks[:, 0]))
    sampler._lookahead = 4
    ahead = sampler.sample(3, batch_size=1)
    stats = sampler.stats
    assert stats is not None and stats.plain_evaluations == 3 * steps
    assert 0 < stats.forecasts_accepted <= stats.forecasts and stats.evaluations < stats.plain_evaluations
    sampler._lookahead = PLAIN
    assert torch.equal(sampler.sample(3, batch_size=1), ahead)
    stats = sampler.stats
    assert (stats.forecasts, stats.forecasts_accepted, stats.evaluations) == (0, 0, 3 * steps)


def test_what_is_of_no_use_is_tried_now_and_then_only() -> None:
    """Of 256 equal levels nobody guesses the next; another temperature is another matter."""
    sampler = shifted((1, 12, 24), pixelfast.Categorical(256))
    job = Job(1, sample_ids=np.zeros(1, dtype=np.uint64))

    def tries(**changes: Any) -> list[bool]:
        return [sampler.backend.run(dataclasses.replace(job, **changes)).stats["forecasts"] > 0 for _ in range(6)]

    assert tries() == [True] + 5 * [False]
    assert tries(temperature=0.5) == [True] + 5 * [False]
    assert tries(lookahead=2) == 6 * [True]
    known, mask = np.zeros((1, 1, 12, 24), dtype=np.int64), np.ones((1, 1, 12, 24), dtype=bool)
    assert tries(known=known, mask=mask) == 6 * [True]


def test_several_images_in_a_team_are_sampled_plainly() -> None:
    sampler = compiled(gated((1, 6, 24)))
    sampler.backend.run(Job(3, sample_ids=np.arange(3, dtype=np.uint64), threads=1, lookahead=8))
    assert sampler.backend.stats["forecasts"] == 0


def test_the_reference_backend_has_no_guesses() -> None:
    sampler = pixelfast.compile(gated((1, 3, 5)), backend="reference")
    assert isinstance(sampler.backend, backend_class("reference"))
    sampler.sample(2)
    stats = sampler.stats
    assert stats is not None and stats.forecasts == 0 and stats.evaluations == stats.plain_evaluations > 0


# -- rows and errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("threads", "sharing"), [(1, "images"), (2, "images"), (2, "tasks")])
@pytest.mark.parametrize("lookahead", AHEAD)
def test_rows_are_reported_once_and_in_order(threads: int, sharing: str, lookahead: int | None) -> None:
    sampler = compiled(MODELS["pixelcnn++, one channel"]())
    images = threads if sharing == "images" else 1
    seen: list[tuple[int, np.ndarray]] = []
    result = sampler.backend.run(
        Job(
            images,
            sample_ids=np.arange(images, dtype=np.uint64),
            threads=threads,
            sharing=sharing,
            lookahead=lookahead,
            on_row=lambda row, so_far: seen.append((row, so_far.copy())),
        )
    )
    assert [row for row, _ in seen] == list(range(8))
    for row, so_far in seen:
        assert np.array_equal(so_far[:, :, : row + 1], result.images[:, :, : row + 1])


@pytest.mark.parametrize(("threads", "sharing"), [(1, "images"), (2, "images"), (2, "tasks")])
def test_errors_of_the_callback_come_out_as_they_are(threads: int, sharing: str) -> None:
    sampler = compiled(gated((1, 6, 24)))
    images = threads if sharing == "images" else 1

    def stop(row: int, images: np.ndarray) -> None:
        if row == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sampler.backend.run(
            Job(
                images,
                sample_ids=np.arange(images, dtype=np.uint64),
                threads=threads,
                sharing=sharing,
                lookahead=8,
                on_row=stop,
            )
        )


@pytest.mark.parametrize("last", [0, 1, 5, 12, 17, 24, 36])
def test_last_number_stops_early(last: int) -> None:
    sampler = compiled(gated((1, 6, 12)))
    job = Job(1, sample_ids=np.zeros(1, dtype=np.uint64), last_number=last)
    plain = sampler.backend.run(dataclasses.replace(job, lookahead=PLAIN)).images
    for lookahead in AHEAD:
        assert np.array_equal(sampler.backend.run(dataclasses.replace(job, lookahead=lookahead)).images, plain)


class Treacherous(nn.Module):
    """Row y has the level y % 2 throughout. Any other level to the left gives no number; nor does `sick`."""

    def __init__(self, height: int, width: int, sick: tuple[int, int] | None = None) -> None:
        super().__init__()
        level = torch.arange(height)[:, None].expand(height, width) % 2
        self.register_buffer("logits", 1e4 * (2.0 * level - 1))
        left = level.clone().float()
        left[:, 0] = 0
        self.register_buffer("left", left)
        if sick is not None:
            left[sick] = 1 - left[sick]

    def forward(self, x: Tensor) -> Tensor:
        left = nn.functional.pad(x, (1, 0))[..., :-1]
        return self.logits + torch.log(1 - 4 * (left - self.left) ** 2)


def test_what_follows_a_wrong_guess_is_no_error() -> None:
    sampler = compiled_without_check(Treacherous(6, 12))
    job = Job(1, sample_ids=np.zeros(1, dtype=np.uint64), lookahead=8)
    result = sampler.run(job)
    assert np.array_equal(result.images[0, 0], np.arange(6)[:, None].repeat(12, axis=1) % 2)
    assert result.stats["forecasts_accepted"] < result.stats["forecasts"]


@pytest.mark.parametrize("sharing", ["images", "tasks"])
@pytest.mark.parametrize("sick", [(0, 0), (2, 7), (5, 11)])
def test_parameters_that_are_not_numbers_are_the_error_of_plain_sampling(sick: tuple[int, int], sharing: str) -> None:
    backend = compiled_without_check(Treacherous(6, 12, sick))
    for lookahead in (PLAIN, *AHEAD):
        with pytest.raises(BackendError, match=f"row {sick[0]}, column {sick[1]} of sample 3 are not numbers"):
            backend.run(
                Job(1, sample_ids=np.array([3], dtype=np.uint64), threads=2, sharing=sharing, lookahead=lookahead)
            )


def compiled_without_check(model: nn.Module) -> CpuBackend:
    """A model that gives numbers for few images only would not pass the checks of `compile`."""
    problem = make_problem(model, (1, 6, 12), pixelfast.Bernoulli(), "unit", None, None)
    analysis = analyse(problem)
    return CpuBackend(lower_program(*split_early(analysis.graph, analysis.ready), problem).program, problem.likelihood)
