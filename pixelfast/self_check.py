"""The self-check at the end of `compile`: a program against the model that it was made from."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .causality import Analysis, parameter_scales
from .errors import UnsupportedModelError
from .precision import LOW_PRECISION
from .problem import Problem
from .program import Program
from .requests import Request, check_request

CHECK_FLOPS = 8e9
"""The final self-check runs about this much work, then stops."""
CHECK_TASKS = 6000
LOW_PRECISION_ERROR = 0.05
"""In low precision the self-check allows this error, root mean square, in units of the largest parameter: roundings of
a deep network add up to a tenth of that, a mistake to several times as much."""

Run = Callable[[Request, int | None], torch.Tensor]
"""Parameters (N, P, H, W) of a request, NaN behind the given number of numbers; None for all of them."""


def check_program(
    problem: Problem, analysis: Analysis, program: Program, backend: str, dtype: torch.dtype, run: Run
) -> None:
    """Parameters computed step by step against the model's own, at two batch sizes, and against changed futures.

    Raises:
        UnsupportedModelError: they differ by more than the dtype explains.
    """
    for images, condition, dense in analysis.examples:
        dense = dense.to(torch.float64)
        request = check_request(
            problem, len(images), 0, None, condition, 1.0, "exact", images, torch.ones((), dtype=torch.bool), None
        )
        until = _check_length(program, problem.shape, backend, len(images))
        stepped = run(request, until).to(torch.float64)
        done = torch.isfinite(stepped) | ~torch.isfinite(dense)
        count = (until or problem.numbers) // problem.shape[0]
        done.reshape(*done.shape[:2], -1)[:, :, count:] = False
        scales = parameter_scales(dense)
        error = torch.where(done & torch.isfinite(dense), (stepped - dense).abs() / scales, 0.0)
        missing = (~torch.isfinite(stepped) & torch.isfinite(dense)).reshape(*done.shape[:2], -1)[:, :, :count]
        if dtype in LOW_PRECISION:
            deviation, allowed = float(error[done].square().mean().sqrt()), LOW_PRECISION_ERROR
        else:
            deviation, allowed = float(error.max()), analysis.tolerance
        lost = bool(missing.any())
        if not lost and deviation <= allowed:
            continue
        if dtype in LOW_PRECISION:
            off = f"off by {deviation:.2g} of their size, and at most {allowed} is taken"
            raise UnsupportedModelError(
                f"this model does not bear the rounding of {str(dtype).removeprefix('torch.')}: parameters "
                f"are {'not finite' if lost else off}; compile it with dtype=torch.float32"
            )
        where = divmod(int(error.amax(dim=(0, 1)).argmax()), problem.shape[2])
        raise UnsupportedModelError(
            f"the compiled program does not reproduce the model: parameters differ by {deviation:.3g} "
            f"of their size, most at row {where[0]}, column {where[1]}. Please report this model"
        )


def _check_length(program: Program, shape: tuple[int, int, int], backend: str, images: int) -> int | None:
    """Whole rows that fit the budget of the self-check; None for all of them."""
    work = program.flops * images
    share = min(CHECK_FLOPS / max(work, 1.0), 1.0)
    if backend == "reference":
        share = min(share, CHECK_TASKS / max(1, len(program.tasks)))
    if share >= 1.0:
        return None
    channels, height, width = shape
    return max(1, int(share * height)) * width * channels
