"""The training loop."""

from __future__ import annotations

import shlex
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch
from torch import nn

from pixelfast import checkpoints
from pixelfast.errors import PixelfastError
from pixelfast.models import registry
from pixelfast.training import overrides, stages
from pixelfast.training.distribution import Processes, processes
from pixelfast.training.evaluate import loss_unit, total_loss
from pixelfast.training.images import ImageSet, Splits, open_splits
from pixelfast.training.noise import Use, derived_seed
from pixelfast.training.recipe import Recipe
from pixelfast.training.report import Report, remove_leftovers
from pixelfast.training.run import Run
from pixelfast.training.snapshot import (
    Snapshot,
    newest_snapshot,
    read_snapshot,
    remove_partial,
    snapshot_paths,
    write_snapshot,
)
from pixelfast.training.start import take_weights
from pixelfast.training.stop import Stopped, Wish, asked_to_stop

MODEL = "model.safetensors"
SNAPSHOT_SECONDS = 60.0
SNAPSHOT_SHARE = 0.05
"""A snapshot is also written when the last one is this old, but writing takes no more than this share of the time."""


@dataclass(frozen=True)
class TrainResult:
    """loss: of the averaged weights over the whole test set, in `unit`. path: the model that was written."""

    loss: float
    unit: str
    steps: int
    path: Path


def train(
    recipe: Recipe | None,
    *,
    data: Path,
    out: Path,
    changes: Iterable[str] = (),
    start: Path | None = None,
    autoencoder: Path | None = None,
    resume: bool = False,
    progress: bool = True,
    device: str | torch.device | None = None,
) -> TrainResult:
    """Train on the images in `data`; write snapshots, log and the finished model into the folder `out`.

    A snapshot (`snapshot.py`) is written at the start, every `recipe.snapshot_every` steps, every minute or so,
    at the end, and on Ctrl-C or SIGTERM, which stop after the step under way. It holds all that the run depends
    on: with `resume`, training goes on from the newest whole one and ends with the same bits as if it had never
    stopped (on the CPU, with the same number of threads and processes). A snapshot that cannot be written on the
    way is said and the run goes on. Beside them, in `out`: `log.jsonl`; `loss.png` and `tensorboard/` where
    matplotlib and tensorboard are installed; `samples/` where the recipe asks for it; at the end
    `model.safetensors`, the averaged weights in the package's own checkpoint format.

    Under torchrun every process calls this with the same arguments and sees the same folders; the first one
    writes. Processes that torchrun starts again resume by themselves.

    recipe: None takes the snapshot's, with `resume`. changes: texts like "steps=100", as `override` takes them, for
    fields of the recipe; a resumed run can change those that do not decide what it has done so far. start: a
    checkpoint whose weights a new run begins with (see `start`). autoencoder: one of a trained VQ-VAE, whose codes a
    prior learns (see `stages`). A resumed run has both already. device: default a GPU where there is one. `progress`
    shows bars.

    Raises PixelfastError when data or `out` cannot be used, when `out` holds a run and `resume` is not asked for,
    or when the loss stops being a number; CheckpointError when there is nothing to resume from, it is of another
    recipe, or the last snapshot cannot be written. `stop.Stopped`, a KeyboardInterrupt, after Ctrl-C or SIGTERM.
    """
    data, out = Path(data), Path(out)
    with processes(device) as group, _own_generator(group.device):
        saved = _find_snapshot(group, out, resume)
        try:
            recipe, frozen = _whole_recipe(recipe, saved, changes, autoencoder)
            torch.manual_seed(derived_seed(recipe.seed, Use.WEIGHTS))
            model = registry.create(recipe.model, **recipe.config)
            if start is not None and resume:
                raise PixelfastError(f"a resumed run goes on with its own weights: leave --start {start} out")
            if start is not None and saved is None:
                # Not when torchrun has started the processes again: they have the same arguments, and a snapshot.
                _check_start(recipe, start)
                take_weights(model, start)
            if frozen is not None:
                stages.take_over(model, frozen)
        except PixelfastError as error:
            raise group.common(error) from None
        if recipe.parallel == "fsdp" and not group.grouped:
            raise PixelfastError(
                "parallel=fsdp shards over the processes of torchrun: torchrun -m pixelfast train ..., or parallel=ddp"
            )
        images = _open_images(group, data, recipe, model)
        run = Run(recipe, model, images.train, group)
        if saved is not None:
            run.load(saved)
            if frozen is not None:
                stages.check_same(frozen, saved.tensors["model"], autoencoder)
        group.by_first(lambda: _make_folder(out))
        log_bytes = saved.state["log_bytes"] if saved is not None else 0
        report = Report(recipe, loss_unit(model), out, run.step, log_bytes, progress) if group.first else None
        try:
            if report is not None:
                parameters = sum(parameter.numel() for parameter in model.parameters())
                report.begins(parameters, len(images.train), len(images.test))
                if images.set_aside:
                    report.set_aside(len(images.test))
            with asked_to_stop() as wish:
                trainer = _Trainer(run, group, data, out, report, images.test, wish)
                if saved is None:
                    # A folder that cannot be written shows now, not after the first steps.
                    trainer.save(required=True)
                trainer.take_steps()
                loss = trainer.evaluate_at_the_end()
        finally:
            if report is not None:
                report.close()
    return TrainResult(loss=loss, unit=loss_unit(model), steps=run.step, path=out / MODEL)


class _Trainer:
    """A run and all that goes on around its steps, in one process."""

    def __init__(
        self,
        run: Run,
        group: Processes,
        data: Path,
        out: Path,
        report: Report | None,
        test_images: ImageSet,
        wish: Wish,
    ) -> None:
        self._run = run
        self._recipe = run.recipe
        self._group = group
        self._data = data
        self._out = out
        self._report = report
        self._test_images = test_images
        self._wish = wish
        self._saved_step = run.step
        self._next_save = time.monotonic() + SNAPSHOT_SECONDS

    def take_steps(self) -> None:
        """To the last step, with everything that is due on the way. Stopped when asked to stop."""
        run, recipe = self._run, self._recipe
        while run.step < recipe.steps or run.reported < run.step:
            # A run that was stopped before its reports were made makes them before the next step.
            if run.reported == run.step:
                run.advance()
                self._log()
            stop, late = self._group.any(self._wish.uttered(), self._group.first and time.monotonic() > self._next_save)
            stop = stop or not self._make_reports()
            ended = run.step == recipe.steps
            if stop or late or ended or run.step % recipe.snapshot_every == 0:
                self.save(required=stop or ended)
            if stop:
                self._interrupt()

    def save(self, *, required: bool) -> None:
        """A snapshot. One that cannot be written is an error if it is `required`, else it is said."""
        started = time.monotonic()
        snapshot = self._run.snapshot()

        def write() -> str:
            assert self._report is not None
            state = {**snapshot.state, "log_bytes": self._report.log.synced_length()}
            kept = self._recipe.keep_snapshots
            return str(write_snapshot(self._out, self._run.step, Snapshot(state, snapshot.tensors), kept))

        try:
            self._group.by_first(write)
            self._saved_step = self._run.step
        except PixelfastError as error:
            if required:
                raise
            if self._report is not None:
                self._report.say(f"{error}; going on, the newest snapshot is of step {self._saved_step:,}")
        took = time.monotonic() - started
        self._next_save = time.monotonic() + max(SNAPSHOT_SECONDS, took / SNAPSHOT_SHARE)

    def evaluate_at_the_end(self) -> float:
        """The loss over the whole test set; writes the model."""
        model = self._run.averaged_model()
        if self._report is not None:
            self._report.evaluating(len(self._test_images))
        loss = self._loss(model, len(self._test_images))
        if loss is None:
            self._interrupt()

        def write() -> str:
            assert self._report is not None
            self._report.result(loss)
            checkpoints.save(model, self._out / MODEL)
            return ""

        self._group.by_first(write)
        return loss

    def _log(self) -> None:
        run = self._run
        if run.step % self._recipe.log_every == 0 or run.step == self._recipe.steps:
            loss, norm = run.take_means()
            if self._report is not None:
                self._report.advanced(run.step)
                self._report.losses(loss, norm, self._recipe.learning_rate_at(run.step - 1))
        elif self._report is not None:
            self._report.advanced(run.step)

    def _make_reports(self) -> bool:
        """Validation and samples of this step, where they are due. False when asked to stop on the way."""
        run, recipe = self._run, self._recipe
        if run.step % recipe.validate_every == 0:
            loss = self._loss(run.averaged_model(), recipe.validation_images)
            if loss is None:
                return False
            if self._report is not None:
                self._report.validation(loss)
        if recipe.sample_every and run.step % recipe.sample_every == 0:
            model = run.averaged_model()
            if self._report is not None:
                shown = torch.arange(min(recipe.sample_images, len(self._test_images)))
                self._report.samples(model, self._test_images.always_the_same(shown)[0])
        run.reported = run.step
        return True

    def _loss(self, model: nn.Module, count: int) -> float | None:
        """The loss of the first `count` test images, each process taking its share.

        None when asked to stop on the way.
        """
        count = min(count, len(self._test_images))
        mine = torch.arange(self._group.rank, count, self._group.world)
        show = self._report is not None and not self._report.bar.disable
        total = total_loss(model, self._test_images.always_the_same, mine, progress=show, stop=self._wish.uttered)
        if any(self._group.any(self._wish.uttered())):
            return None
        return float(self._group.sum(torch.tensor([total], dtype=torch.float64))) / count

    def _interrupt(self) -> NoReturn:
        if self._report is not None:
            self._report.say(
                f"stopped at step {self._run.step:,} of {self._recipe.steps:,}, saved in {self._out}; "
                f"go on with: pixelfast train --resume --data {shlex.quote(str(self._data))} "
                f"--out {shlex.quote(str(self._out))}"
            )
        # The signal may have come to another process: all end with its status.
        (terminated,) = self._group.any(self._wish.number == signal.SIGTERM)
        raise Stopped(signal.SIGTERM if terminated else signal.SIGINT)


def _find_snapshot(group: Processes, out: Path, resume: bool) -> Snapshot | None:
    """The snapshot to go on from, the same for every process; None for a new run."""

    def find() -> str:
        remove_partial(out)
        remove_leftovers(out)
        if not resume and not (group.restarted and snapshot_paths(out)):
            if snapshot_paths(out):
                raise PixelfastError(
                    f"{out} already holds a training run (--resume goes on with it): "
                    "resume it, or choose another folder"
                )
            return ""
        return str(newest_snapshot(out, lambda text: print(text, flush=True))[0])

    path = group.by_first(find)
    return read_snapshot(Path(path)) if path else None


def _whole_recipe(
    recipe: Recipe | None, saved: Snapshot | None, changes: Iterable[str], autoencoder: Path | None
) -> tuple[Recipe, nn.Module | None]:
    """The recipe with all changes, and the autoencoder whose codes a new run is about."""
    if recipe is None:
        if saved is None:
            raise PixelfastError("a new run needs a recipe; only a resumed one has its own")
        recipe = overrides.from_json(saved.state["recipe"])
    recipe = overrides.override(recipe, changes)
    frozen = stages.open_autoencoder(recipe, autoencoder, needed=saved is None)
    return (recipe if frozen is None else stages.completed(recipe, frozen)), frozen


def _check_start(recipe: Recipe, start: Path) -> None:
    if recipe.data_init:
        raise PixelfastError(f"data_init would replace the weights of {start}: set data_init=false")


def _open_images(group: Processes, data: Path, recipe: Recipe, model: nn.Module) -> Splits:
    """Both splits. The first process looks first, so that what is wrong with them is said once."""
    opened: list[Splits] = []

    def look() -> str:
        opened.append(open_splits(data, recipe, model))
        return ""

    group.by_first(look)
    if not opened:
        look()
    return opened[0]


@contextmanager
def _own_generator(device: torch.device) -> Iterator[None]:
    """torch's global generators are the run's own inside, and given back as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def _make_folder(out: Path) -> str:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PixelfastError(f"cannot make the output folder {out}: {error.strerror or error}") from error
    return str(out)
