"""Is a model causal? Records it, follows every dependency, and names the position that leaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from . import receptive_field
from .errors import CausalityError, PixelfastError, ShapeError, UnsupportedModelError
from .ir import Graph
from .likelihoods import Likelihood
from .problem import Problem, make_problem
from .readiness import find_leak
from .rules.common import is_pointwise
from .simplify import Prologue, Simplifier
from .trace import Recording, Ref, leaves_of

LARGE_NUMBER = 4.0
"""A real number as large as latents usually get."""


@dataclass(frozen=True)
class CausalityReport:
    """`causal`; if not, `message` names the operation, the output position and the input position that leaks.

    `notes`: what looked odd on the way, such as layers whose weights are all zero (they carry no dependency).
    """

    causal: bool
    message: str
    operation: str | None
    output: tuple[int, int, int] | None
    """(channel, row, column)."""
    reads: tuple[int, int, int] | None
    notes: tuple[str, ...]
    graph: Graph | None = field(default=None, repr=False, compare=False)
    """What was followed; None where images mix across the batch, so that there is nothing to follow."""

    def receptive_field(self, row: int | None = None, column: int | None = None) -> np.ndarray:
        """Which inputs reach the outputs at one pixel, by default the one in the middle: bool (C, H, W).

        Raises ShapeError for a position outside the image, PixelfastError where images mix across the batch.
        """
        return receptive_field.receptive_field(self._graph(), *self._pixel(row, column))

    def plot(self, file: str | Path | BinaryIO, row: int | None = None, column: int | None = None) -> None:
        """Draws the receptive field of one pixel, by default the one in the middle, as a PNG.

        Marked: what the pixel reads, what is known by then and not read (the blind spot of a single masked stack, or
        too far away), and what is read although it is sampled later. Arguments and errors as for `receptive_field`.
        """
        row, column = self._pixel(row, column)
        receptive_field.plot(np.asarray(self.receptive_field(row, column).any(axis=0)), row, column, file)

    def _graph(self) -> Graph:
        if self.graph is None:
            raise PixelfastError(f"there is no receptive field to follow: {self.message}")
        return self.graph

    def _pixel(self, row: int | None, column: int | None) -> tuple[int, int]:
        _, height, width = self._graph().shape
        row, column = height // 2 if row is None else row, width // 2 if column is None else column
        if not (0 <= row < height and 0 <= column < width):
            raise ShapeError(f"there is no pixel at row {row}, column {column} of an image of {height} x {width}")
        return row, column

    def __str__(self) -> str:
        return "\n".join([self.message, *(f"note: {note}" for note in self.notes)])


@dataclass
class Analysis:
    """A causal model as a graph."""

    graph: Graph
    ready: list[Any]
    prologue: Prologue
    tolerance: float
    examples: list[tuple[torch.Tensor, Any, torch.Tensor]]
    """Levels (N, C, H, W), the condition, and the model's own parameters (N, P, H, W), at several batch sizes."""


def check_causality(
    model: Any,
    shape: tuple[int, int, int] | None = None,
    likelihood: Likelihood | None = None,
    input: Any = None,
    outputs: Callable[[Any], Any] | None = None,
    condition: Any = None,
) -> CausalityReport:
    """Checks every output against every input by following the recorded operations; arguments as for `compile`.

    Raises:
        UnsupportedModelError: an operation cannot be followed.
    """
    problem = make_problem(model, shape, likelihood, input, outputs, condition)
    try:
        simplifier = _follow(problem)[0]
    except CausalityError as error:
        return CausalityReport(False, str(error), error.operation, error.output, error.reads, ())
    graph = simplifier.graph
    found = _leak(simplifier)
    if found is not None:
        return CausalityReport(False, str(found), found.operation, found.output, found.reads, (), graph)
    return CausalityReport(
        True, "causal: no output reads a number sampled later", None, None, None, tuple(graph.notes), graph
    )


def analyse(problem: Problem) -> Analysis:
    """Records the model at three batch sizes and follows it.

    Raises:
        CausalityError: an output depends on a number sampled later, or images mix.
        UnsupportedModelError: an operation cannot be followed, or the model behaves differently on different inputs.
    """
    simplifier, tolerance, examples = _follow(problem)
    found = _leak(simplifier)
    if found is not None:
        raise found
    return Analysis(simplifier.graph, simplifier.builder.ready, simplifier.prologue, tolerance, examples)


def _follow(problem: Problem) -> tuple[Simplifier, float, list[tuple[torch.Tensor, Any, torch.Tensor]]]:
    """The model as a graph, causal or not; the recording's tolerance and the examples of an `Analysis`."""
    highest = highest_image(problem)
    single = problem.record(highest[None])
    examples = _agree(problem, single, highest)
    simplifier = Simplifier(single, problem.shape)
    simplifier.run()
    simplifier.outputs(problem.likelihood.needs(problem.shape[0]))
    return simplifier, single.tolerance, examples


def _leak(simplifier: Simplifier) -> CausalityError | None:
    """The first output that depends on a number sampled later."""
    leak = find_leak(simplifier.graph, simplifier.builder.ready)
    if leak is None:
        return None
    width = simplifier.graph.shape[2]
    out = (leak.channel, leak.pixel // width, leak.pixel % width)
    reads = (leak.reads_channel, leak.reads_pixel // width, leak.reads_pixel % width)
    return CausalityError(
        f"the output at channel {out[0]}, row {out[1]}, column {out[2]} depends on the input at "
        f"channel {reads[0]}, row {reads[1]}, column {reads[2]}, which is not known then; it comes in at "
        f"{leak.where}",
        leak.where,
        out,
        reads,
    )


def highest_image(problem: Problem) -> torch.Tensor:
    """The image (C, H, W) of the highest levels; where numbers are real, of ones that are seldom exceeded."""
    if problem.likelihood.continuous:
        return torch.full(problem.shape, LARGE_NUMBER)
    return torch.full(problem.shape, problem.likelihood.levels - 1)


def example_levels(problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
    """Two random images that agree up to a random number, and differ from there on everywhere."""
    generator = torch.Generator().manual_seed(20161128)
    levels = problem.likelihood.levels
    channels, height, width = problem.shape
    if problem.likelihood.continuous:
        first = torch.randn(height * width, channels, generator=generator)
        other = first + 1 + torch.rand(first.shape, generator=generator)
    else:
        first = torch.randint(levels, (height * width, channels), generator=generator)
        other = (first + torch.randint(1, levels, first.shape, generator=generator)) % levels
    number = torch.arange(first.numel()).reshape(first.shape)
    start = int(torch.randint(problem.numbers, (), generator=generator))
    changed = torch.where(number >= start, other, first)
    return (first.T.reshape(problem.shape), changed.T.reshape(problem.shape))


def _agree(problem: Problem, single: Recording, highest: torch.Tensor) -> list[tuple[torch.Tensor, Any, torch.Tensor]]:
    """The same operations and constants whatever the images; images of a batch do not see each other."""
    first, changed = example_levels(problem)
    lowest = torch.zeros_like(first)
    three = torch.stack([highest, first, changed])
    varied = problem.varied_condition(3)
    others = [problem.record(torch.stack([lowest, highest])), problem.record(three, condition=varied)]
    _same_calls(*others)
    _same_arithmetic(single, others[0])
    alone, together = single.output_tensor, others[1].output_tensor
    if alone is None or together is None:
        return []
    if not _close(together[0], alone[0], single.tolerance, alone):
        raise _mixing_error(problem, 0, first, lowest, highest)
    two = others[0].output_tensor
    # In another place: where every image sees the first one, that one alone is as it should be.
    if two is not None and not _close(two[1], alone[0], single.tolerance, alone):
        raise _mixing_error(problem, 1, first, lowest, highest)
    lone = problem.batch_condition(None, 1)
    examples = [(highest[None], lone, alone), (three, varied, together)]
    return examples if two is None else [*examples, (lowest[None], lone, two[:1])]


def _close(a: torch.Tensor, b: torch.Tensor, tolerance: float, typical: torch.Tensor) -> bool:
    """Parameters (P, H, W) of the same image alike, compared with how large `typical` ones (N, P, H, W) get."""
    same = (a - b).abs() <= tolerance * parameter_scales(typical)[0]
    return bool((same | (a == b) | ~torch.isfinite(a) & ~torch.isfinite(b)).all())


def parameter_scales(params: torch.Tensor) -> torch.Tensor:
    """How large each parameter gets, (1, P, 1, 1) of (N, P, H, W): what differences are to be compared with.

    Parameters smaller than most are compared with the median one; a few huge constants, such as the logits of classes
    that are masked out, do not count for the others.
    """
    finite = torch.where(torch.isfinite(params), params.abs(), 0.0).amax(dim=(0, 2, 3))
    return finite.clamp_min(float(finite.median())).clamp_min(1e-3)[None, :, None, None]


def _mixing_error(
    problem: Problem, seen: int, first: torch.Tensor, lowest: torch.Tensor, highest: torch.Tensor
) -> CausalityError:
    """Names the first operation whose result for image `seen` changes with the other one of two."""

    def record(other: torch.Tensor) -> Recording:
        return problem.record(torch.stack([first, other] if seen == 0 else [other, first]), keep=True)

    one, two = record(lowest), record(highest)
    where, position = "the model", (0, 0, 0)
    for call, a, b in zip(one.calls, one.results, two.results, strict=False):
        if any(isinstance(x, torch.Tensor) and _mixed(x, y, seen) for x, y in zip(a, b, strict=False)):
            where = str(call)
            break
    if one.output_tensor is not None and two.output_tensor is not None:
        change = (one.output_tensor[seen] - two.output_tensor[seen]).abs()
        at = int(change.reshape(len(change), -1).amax(0).argmax())
        position = (0, at // problem.shape[2], at % problem.shape[2])
    return CausalityError(
        f"images mix across the batch at {where}: the output of image {seen} at row {position[1]}, column "
        f"{position[2]} changes when only image {1 - seen} does",
        where,
        position,
        None,
    )


def _mixed(one: torch.Tensor, other: torch.Tensor, seen: int) -> bool:
    """Of two batches that differ in one image: did image `seen` change, or a result that has no axis of images left?"""
    if one.shape[:1] == (2,):
        return not torch.equal(one[seen], other[seen])
    lost = one.ndim > 0 and one.shape[0] % 2 == 1
    return lost and not torch.equal(one, other)


def _same_calls(two: Recording, three: Recording) -> None:
    """Batches of two and three: names of operations, plain numbers, and sizes up to the batch."""
    for mine, its in zip(two.calls, three.calls, strict=False):
        if mine.op is not its.op:
            raise UnsupportedModelError(
                f"the model does different things for different images or batch sizes: {mine} became {its}"
            )
        for a, b in zip(mine.outputs, its.outputs, strict=False):
            if isinstance(a, Ref) and isinstance(b, Ref):
                n, m = _numel(a), _numel(b)
                if m != n and 2 * m != 3 * n:
                    raise UnsupportedModelError(f"the size of a tensor depends on the image: {mine}")
        for a, b in zip(_numbers(mine), _numbers(its), strict=False):
            if a != b and not (a != a and b != b):
                raise UnsupportedModelError(
                    f"a number depends on the image: {mine} has {a} for one image and {b} for another"
                )
    if len(two.calls) != len(three.calls):
        raise UnsupportedModelError(
            "the model does different things for different images or batch sizes: more operations"
        )
    for number, leaf in two.leaves.items():
        twin = three.leaves.get(number)
        if twin is None or leaf.shape != twin.shape:
            raise UnsupportedModelError(
                "a tensor is made from the image outside torch (numpy, tolist) and would be frozen; keep to torch"
            )
        if leaf.numel() < 65536 and not _equal(leaf, twin):
            raise UnsupportedModelError("a constant of the model depends on the image it is given")


def _same_arithmetic(single: Recording, batch: Recording) -> None:
    """A single image may be viewed where a batch is copied, and multiplied as a matrix; the rest is the same."""

    def arithmetic(recording: Recording) -> list[Any]:
        return [
            c
            for c in recording.calls
            if c.name == "aten.convolution" or (is_pointwise(c.name) and c.name not in _REPLACED)
        ]

    one, many = arithmetic(single), arithmetic(batch)
    for mine, its in zip(one, many, strict=False):
        same = all(a == b or (a != a and b != b) for a, b in zip(_numbers(mine), _numbers(its), strict=False))
        if mine.op is not its.op or not same:
            raise UnsupportedModelError(
                f"the model does different things for one image and for a batch: {mine} became {its}"
            )
    if len(one) != len(many):
        raise UnsupportedModelError("the model does different things for one image and for a batch: more operations")


_REPLACED = ("aten.add", "aten.add_", "aten._to_copy", "aten.copy_", "aten.clone")
"""Elementwise operations that a matrix product may swallow, and copies."""


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool(torch.equal(a, b) or (a.is_floating_point() and torch.allclose(a, b, equal_nan=True)))


def _numel(ref: Ref) -> int:
    count = 1
    for size in ref.size:
        count *= size
    return count


def _numbers(call: Any) -> list[float]:
    """Numbers among the arguments that cannot be sizes, which change with the batch."""
    kinds = (int, float) if is_pointwise(call.name) else (float,)
    return [a for a in leaves_of((call.args, call.kwargs)) if isinstance(a, kinds)]
