"""The training loop."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from pixelfast import checkpoints
from pixelfast.data import load_mnist
from pixelfast.errors import CheckpointError, PixelfastError
from pixelfast.models import registry
from pixelfast.training.batches import BatchOrder
from pixelfast.training.evaluate import bits_per_dim, mean_bits
from pixelfast.training.recipe import Recipe
from pixelfast.training.snapshot import read_snapshot, write_snapshot

SNAPSHOT = "snapshot.pt"
MODEL = "model.safetensors"
SNAPSHOT_SECONDS = 60.0


@dataclass(frozen=True)
class TrainResult:
    """bits_per_dim: of the averaged weights over the whole test set. path: the model that was written."""

    bits_per_dim: float
    steps: int
    path: Path


def train(recipe: Recipe, *, data: Path, out: Path, resume: bool = False, progress: bool = True) -> TrainResult:
    """Train on MNIST's IDX files in `data`; write snapshots and the finished model into the folder `out`.

    `out/snapshot.pt` is written at the start, every `recipe.snapshot_every` steps, every minute, and on Ctrl-C,
    which stops after the step under way. It holds all that the run depends on: with `resume`, training goes on
    from it and ends with the same bits as if it had never stopped (on the CPU, with the same number of
    threads). `out/model.safetensors` holds the averaged weights,
    in the package's own checkpoint format. `progress` shows bars.

    Raises PixelfastError when the data or `out` cannot be used, when `out` holds a snapshot and `resume` is
    not asked for, or when the loss stops being a number; CheckpointError when there is no snapshot to resume
    from, or it is damaged or of another recipe.
    """
    data, out = Path(data), Path(out)
    train_images = load_mnist(data, "train").images
    test_images = load_mnist(data, "test").images
    snapshot = out / SNAPSHOT
    if snapshot.exists() and not resume:
        raise PixelfastError(
            f"{out} already holds a training run (--resume goes on with it): resume it, or choose another folder"
        )
    saved = read_snapshot(snapshot) if resume else None
    _make_folder(out)

    with _seeded(recipe.seed):
        run = _Run(recipe, len(train_images))
        if saved is None:
            # A folder that cannot be written shows now, not after the first steps.
            write_snapshot(run.state(), snapshot)
        else:
            run.load(saved, snapshot)
        bar = tqdm(total=recipe.steps, initial=run.step, desc=recipe.name, unit="step", disable=not progress)
        with bar, _asked_to_stop() as stop:
            validation = "-"
            written = time.monotonic()
            while run.step < recipe.steps:
                bits = run.advance(train_images)
                due = run.step % recipe.snapshot_every == 0 or time.monotonic() - written > SNAPSHOT_SECONDS
                if due or run.step == recipe.steps or stop.is_set():
                    write_snapshot(run.state(), snapshot)
                    written = time.monotonic()
                if stop.is_set():
                    bar.write(
                        f"stopped at step {run.step:,} of {recipe.steps:,}, saved in {snapshot}; go on with --resume"
                    )
                    raise KeyboardInterrupt
                if run.step % recipe.validate_every == 0:
                    sample = test_images[: recipe.validation_images]
                    validation = f"{bits_per_dim(run.average.module, sample):.4f}"
                    if not progress:
                        print(
                            f"step {run.step:,} of {recipe.steps:,}: {bits:.3f} bits/dim, test {validation}", flush=True
                        )
                bar.set_postfix(bits=f"{bits:.3f}", test=validation, refresh=False)
                bar.update()
        bits = bits_per_dim(run.average.module, test_images, progress=progress)
        checkpoints.save(run.average.module, out / MODEL)
    return TrainResult(bits_per_dim=bits, steps=run.step, path=out / MODEL)


@contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """Set by Ctrl-C, so that no step is cut in two. A second Ctrl-C stops at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(*_: Any) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


class _Run:
    """What changes from step to step, and nothing else."""

    def __init__(self, recipe: Recipe, images: int) -> None:
        self.recipe = recipe
        self.step = 0
        self.model: nn.Module = registry.create(recipe.model, **recipe.config)
        self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay))
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=recipe.learning_rate,
            betas=recipe.betas,
            weight_decay=recipe.weight_decay,
        )
        self.order = BatchOrder(images, recipe.batch_size, recipe.seed)

    def advance(self, images: Tensor) -> float:
        """One optimiser step; returns the batch's bits per dimension before it."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate_at(self.step)
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        loss = mean_bits(self.model, images[self.order.next_batch()])
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        bits = float(loss.detach())
        if not (math.isfinite(bits) and math.isfinite(norm)):
            raise PixelfastError(
                f"step {self.step}: the loss is {bits} and its gradient's norm {float(norm)}; "
                "lower the recipe's learning rate and start anew in another folder"
            )
        self.optimizer.step()
        self.average.update_parameters(self.model)
        self.step += 1
        return bits

    def state(self) -> dict[str, Any]:
        return {
            "recipe": _as_json(self.recipe),
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "order": self.order.state_dict(),
            "rng": torch.get_rng_state(),
        }

    def load(self, state: dict[str, Any], path: Path) -> None:
        """Raises CheckpointError when `state` is of another recipe, or incomplete."""
        try:
            given, found = json.loads(_as_json(self.recipe)), json.loads(state["recipe"])
            different = sorted(key for key in given.keys() | found.keys() if given.get(key) != found.get(key))
            if different:
                raise CheckpointError(
                    f"{path} is of another recipe (different: {', '.join(different)}); resume with the same one"
                )
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.order.load_state_dict(state["order"])
            torch.set_rng_state(state["rng"])
            self.step = state["step"]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{path} is not a snapshot of this training: {error}") from error


def _as_json(recipe: Recipe) -> str:
    return json.dumps(asdict(recipe), sort_keys=True)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """torch's global generator (initial weights, dropout) seeded, and given back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PixelfastError(f"cannot make the output folder {out}: {error.strerror or error}") from error
