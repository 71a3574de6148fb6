"""What the processes of test_distributed.py run: several small trainings, one after another, in one process group.

Arguments: the folder of the data, the folder for results, and which of the jobs below.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from training_runs import CODES_BY_GRADIENT, CURVE, NOISY, SHARED

from pixelfast.errors import PixelfastError
from pixelfast.training import Recipe, report, train
from pixelfast.training import snapshot as snapshots
from pixelfast.training.run import Run
from pixelfast.training.stop import Stopped


@contextmanager
def before_step(step: int, what: Any) -> Iterator[None]:
    """Something happens before a step is taken."""
    advance = Run.advance

    def advance_or_not(run: Run) -> None:
        if run.step == step:
            what()
        advance(run)

    Run.advance = advance_or_not  # type: ignore[method-assign]
    try:
        yield
    finally:
        Run.advance = advance  # type: ignore[method-assign]


def curves(data: Path, out: Path) -> None:
    """The recipes, each replicated and sharded, and what happens when one process is told to stop."""
    dist.init_process_group("gloo")
    last = dist.get_rank() == dist.get_world_size() - 1
    for recipe in (*SHARED, CODES_BY_GRADIENT):
        for parallel in ("ddp", "fsdp") if recipe in SHARED else ("ddp",):
            train(replace(recipe, parallel=parallel), data=data, out=out / f"{recipe.name}-{parallel}", progress=False)
    with before_step(2, lambda: last and signal.raise_signal(signal.SIGTERM)):
        stopped(replace(NOISY, parallel="ddp"), data, out / "stopped")
    train(NOISY, data=data, out=out / "stopped", resume=True, progress=False)
    # Sharded over two processes; one process goes on with it.
    with before_step(2, lambda: signal.raise_signal(signal.SIGINT)):
        stopped(replace(NOISY, parallel="fsdp"), data, out / "fewer")
    recompute = replace(NOISY, parallel="fsdp", checkpoint_activations=True, name="recomputed")
    train(recompute, data=data, out=out / "recomputed", progress=False)
    failures(data, out)
    dist.destroy_process_group()


def stopped(recipe: Recipe, data: Path, out: Path) -> None:
    """A run that is told to stop; each process notes by which signal."""
    try:
        train(recipe, data=data, out=out, progress=False)
    except Stopped as stop:
        out.with_name(f"{out.name}-{dist.get_rank()}").write_text(str(stop))


def failures(data: Path, out: Path) -> None:
    """An error of the process that writes ends the others too, and each says what it knows."""

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    rename, snapshots.os.rename = snapshots.os.rename, full  # type: ignore[assignment]
    for name, recipe in (
        ("full", CURVE),
        ("uneven", replace(CURVE, batch_size=3)),
        ("nan", replace(CURVE, learning_rate=1e30)),
        ("codebook", replace(CODES_BY_GRADIENT, parallel="fsdp")),
    ):
        if name != "full":
            snapshots.os.rename = rename  # type: ignore[assignment]
        try:
            train(recipe, data=data, out=out / name, progress=False)
        except PixelfastError as error:
            (out / f"{name}-{dist.get_rank()}").write_text(f"{type(error).__name__}: {error}")


def elastic(data: Path, out: Path) -> None:
    """The second process is killed once; torchrun starts both again."""

    def die() -> None:
        if os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)

    with before_step(3, die):
        train(CURVE, data=data, out=out / "elastic", progress=False)


if __name__ == "__main__":
    torch.set_num_threads(1)
    report.can_plot = lambda: False  # type: ignore[assignment]
    {"curves": curves, "elastic": elastic}[sys.argv[3]](Path(sys.argv[1]), Path(sys.argv[2]))
