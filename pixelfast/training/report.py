"""What the first process leaves beside the snapshots: log, plot, grids of samples, TensorBoard, and words."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pixelfast import bars
from pixelfast.checkpoints.atomic import remove_partial_files, write_atomically
from pixelfast.errors import PixelfastError
from pixelfast.training.log import Log
from pixelfast.training.plot import can_plot, field_of, loss_plot
from pixelfast.training.recipe import Recipe
from pixelfast.training.samples import sample_grid

LOG = "log.jsonl"
PLOT = "loss.png"
SAMPLES = "samples"
TENSORBOARD = "tensorboard"


class Report:
    """The visible side of a run in folder `out`, which goes on at `step` with `log_bytes` of log.

    Only the log is needed to go on; a plot or a grid that cannot be made is said, and the run goes on.
    """

    def __init__(self, recipe: Recipe, unit: str, out: Path, step: int, log_bytes: int, progress: bool) -> None:
        self._recipe = recipe
        self._unit = unit
        self._out = out
        self._progress = progress
        self._step = step
        self.bar = bars.bar(progress=progress, total=recipe.steps, initial=step, desc=recipe.name, unit="step")
        self.log = Log(out / LOG, log_bytes, self.say)
        self._dashboard = _dashboard(out / TENSORBOARD, step)
        self._shown = {"loss": "-", "test": "-"}

    def say(self, text: str) -> None:
        """One line to whoever watches; lost where nobody does, as in a pipe that is gone or a file on a full disk."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: it was closed
            self.bar.write(text)

    def begins(self, parameters: int, train_images: int, test_images: int) -> None:
        """What is trained on what, and where the losses go."""
        self.say(
            f"{self._recipe.model}, {parameters:,} parameters; {train_images:,} images to train on, {test_images:,} to "
            f"test on; from step {self._step:,} to {self._recipe.steps:,}; losses are in {self._out / LOG}"
        )

    def set_aside(self, images: int) -> None:
        """So many images were made the test split."""
        every = f"{self._recipe.holdout}{_ordinal_ending(self._recipe.holdout)}"
        self.say(f"no test split: every {every} image, {images:,} of them, is set aside to validate on")

    def advanced(self, step: int) -> None:
        """A step was taken."""
        self.bar.update(step - self._step)
        self._step = step

    def losses(self, loss: float, norm: float, rate: float) -> None:
        """Means over the last steps."""
        self._write(loss, gradient_norm=norm, learning_rate=rate)
        self._show(loss=f"{loss:.3f}")

    def validation(self, loss: float) -> None:
        """The loss on the part of the test set that is looked at on the way."""
        self._write(loss, "validation_")
        self._show(test=f"{loss:.4f}")
        self.plot()
        if not self._progress:
            self.say(
                f"step {self._step:,} of {self._recipe.steps:,}: {self._shown['loss']} {self._unit}, test {loss:.4f}"
            )

    def evaluating(self, images: int) -> None:
        """The whole test set is looked at next, which a bar shows by itself."""
        if not self._progress:
            self.say(f"step {self._step:,} of {self._recipe.steps:,}: now the whole test set, {images:,} images")

    def result(self, loss: float) -> None:
        """The loss on the whole test set, at the end."""
        self._write(loss, "test_")
        self.plot()

    def samples(self, model: nn.Module, images: Tensor) -> None:
        """A grid of samples of the model, or of `images` and their reconstructions, see `sample_grid`."""
        path = self._out / SAMPLES / f"step-{self._step:08d}.png"
        try:
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, sample_grid(model, self._recipe.sample_images, images))
        except (OSError, PixelfastError) as error:
            self.say(f"no samples at step {self._step:,}: {error}")

    def plot(self) -> None:
        """The loss plot, where matplotlib is installed."""
        if not can_plot():
            return
        try:
            write_atomically(self._out / PLOT, loss_plot(self._recipe.name, self._unit, self.log.lines))
        except OSError as error:
            self.say(f"no plot: {error}")

    def close(self) -> None:
        """Closes bar, log and dashboard."""
        self.bar.close()
        self.log.close()
        if self._dashboard is not None:
            self._dashboard.close()

    def _write(self, loss: float, of: str = "", **others: float) -> None:
        values = {of + field_of(self._unit): loss, **others}
        self.log.write(step=self._step, **values)
        if self._dashboard is not None:
            for name, value in values.items():
                self._dashboard.add_scalar(name, value, self._step)

    def _show(self, **values: str) -> None:
        self._shown.update(values)
        self.bar.set_postfix(self._shown, refresh=False)


def remove_leftovers(out: Path) -> None:
    """Removes what a report of a run that was killed had begun to write."""
    for folder in (out, out / SAMPLES):
        remove_partial_files(folder)


def _ordinal_ending(number: int) -> str:
    """As in 1st, 12th and 23rd."""
    return "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")


def _dashboard(folder: Path, step: int) -> Any:
    """TensorBoard's writer, where it is installed, else None."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    # What a run that was killed had shown after its last snapshot is shown again.
    return SummaryWriter(str(folder), purge_step=step + 1)
