"""Is a model causal? Records it, follows every dependency, and names the position that leaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from .errors import CausalityError, UnsupportedModelError
from .ir import Graph
from .likelihoods import Likelihood
from .problem import Problem, make_problem
from .readiness import find_leak
from .rules.common import is_pointwise
from .simplify import Prologue, Simplifier
from .trace import Recording, Ref


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

    def __str__(self) -> str:
        return "\n".join([self.message, *(f"note: {note}" for note in self.notes)])


@dataclass
class Analysis:
    """A causal model as a graph."""

    graph: Graph
    ready: list[Any]
    prologue: Prologue
    examples: list[tuple[torch.Tensor, torch.Tensor]]
    """Levels (N, C, H, W) and the model's own parameters (N, P, H, W) for them, at two batch sizes."""


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
        analysis = analyse(problem)
    except CausalityError as error:
        where = getattr(error, "leak", (None, None, None))
        return CausalityReport(False, str(error), where[0], where[1], where[2], ())
    return CausalityReport(True, "causal: no output reads a number sampled later", None, None, None, tuple(analysis.graph.notes))


def analyse(problem: Problem) -> Analysis:
    """Records the model at three batch sizes and follows it.

    Raises:
        CausalityError: an output depends on a number sampled later, or images mix.
        UnsupportedModelError: an operation cannot be followed, or the model behaves differently on different inputs.
    """
    first, changed = example_levels(problem)
    single = problem.record(first[None])
    examples = _agree(problem, single, first, changed)
    simplifier = Simplifier(single, problem.shape)
    simplifier.run()
    simplifier.outputs(problem.likelihood.needs(problem.shape[0]))
    leak = find_leak(simplifier.graph, simplifier.builder.ready)
    if leak is not None:
        width = problem.shape[2]
        out = (leak.channel, *divmod(leak.pixel, width))
        reads = (leak.reads_channel, *divmod(leak.reads_pixel, width))
        raise _leak_error(
            f"the output at channel {out[0]}, row {out[1]}, column {out[2]} depends on the input at channel {reads[0]}, row "
            f"{reads[1]}, column {reads[2]}, which is sampled later; it comes in at {leak.where}",
            leak.where,
            out,
            reads,
        )
    return Analysis(simplifier.graph, simplifier.builder.ready, simplifier.prologue, examples)


def _leak_error(message: str, operation: str, out: Any, reads: Any) -> CausalityError:
    error = CausalityError(message)
    error.leak = (operation, out, reads)  # type: ignore[attr-defined]
    return error


def example_levels(problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
    """Two random images that agree up to a random number, and differ from there on everywhere."""
    generator = torch.Generator().manual_seed(20161128)
    levels = problem.likelihood.levels
    channels, height, width = problem.shape
    first = torch.randint(levels, (height * width, channels), generator=generator)
    shift = torch.randint(1, levels, first.shape, generator=generator)
    number = torch.arange(first.numel()).reshape(first.shape)
    start = int(torch.randint(problem.numbers, (), generator=generator))
    changed = torch.where(number >= start, (first + shift) % levels, first)
    return (first.T.reshape(problem.shape), changed.T.reshape(problem.shape))


def _agree(
    problem: Problem, single: Recording, first: torch.Tensor, changed: torch.Tensor
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The same operations and constants whatever the images; images of a batch do not see each other."""
    lowest, highest = torch.zeros_like(first), torch.full_like(first, problem.likelihood.levels - 1)
    batches = [torch.stack([first, lowest]), torch.stack([first, highest, changed])]
    others = [problem.record(batch) for batch in batches]
    _same_calls(*others)
    _same_arithmetic(single, others[0])
    outputs = [r.output_tensor for r in (single, *others) if r.output_tensor is not None]
    reference = outputs[0][0]
    finite = torch.isfinite(reference)
    scale = float(reference[finite].abs().max()) + 1e-30 if bool(finite.any()) else 1.0
    for output in outputs[1:]:
        same = (output[0] - reference).abs() <= 1e-3 * scale
        if not bool((same | (output[0] == reference) | (~finite & ~torch.isfinite(output[0]))).all()):
            raise _mixing_error(problem, first, lowest, highest)
    return [(first[None], outputs[0]), (batches[1], outputs[2])]


def _mixing_error(
    problem: Problem, first: torch.Tensor, lowest: torch.Tensor, highest: torch.Tensor
) -> CausalityError:
    """Names the first operation whose result for image 0 changes with image 1."""
    one = problem.record(torch.stack([first, lowest]), keep=True)
    two = problem.record(torch.stack([first, highest]), keep=True)
    where, position = "the model", (0, 0, 0)
    for call, a, b in zip(one.calls, one.results, two.results, strict=False):
        if any(
            isinstance(x, torch.Tensor) and x.shape[:1] == (2,) and not torch.equal(x[0], y[0]) for x, y in zip(a, b, strict=False)
        ):
            where = str(call)
            break
    if one.output_tensor is not None and two.output_tensor is not None:
        change = (one.output_tensor[0] - two.output_tensor[0]).abs()
        at = int(change.reshape(len(change), -1).amax(0).argmax())
        position = (0, *divmod(at, problem.shape[2]))
    return _leak_error(
        f"images mix across the batch at {where}: the output of image 0 at row {position[1]}, column {position[2]} changes when "
        "only image 1 does",
        where,
        position,
        None,
    )


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
                raise UnsupportedModelError(f"a number depends on the image: {mine} has {a} for one image and {b} for another")
    if len(two.calls) != len(three.calls):
        raise UnsupportedModelError("the model does different things for different images or batch sizes: more operations")
    for number, leaf in two.leaves.items():
        twin = three.leaves.get(number)
        if twin is not None and leaf.shape == twin.shape and leaf.numel() < 65536 and not _equal(leaf, twin):
            raise UnsupportedModelError("a constant of the model depends on the image it is given")


def _same_arithmetic(single: Recording, batch: Recording) -> None:
    """A single image may be viewed where a batch is copied, and multiplied as a matrix; the rest is the same."""

    def arithmetic(recording: Recording) -> list[Any]:
        return [c for c in recording.calls if c.name == "aten.convolution" or (is_pointwise(c.name) and c.name not in _REPLACED)]

    one, many = arithmetic(single), arithmetic(batch)
    for mine, its in zip(one, many, strict=False):
        if mine.op is not its.op or _numbers(mine) != _numbers(its):
            raise UnsupportedModelError(f"the model does different things for one image and for a batch: {mine} became {its}")
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
    return [a for a in [*call.args, *call.kwargs.values()] if isinstance(a, float)]
