"""Runs that are killed, and what is left of them: kill -9 is real here, and comes at any moment."""

from __future__ import annotations

import builtins
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import TINY, differences, half_written, outcome, partial_files, write_data

from pixelfast.training import train
from pixelfast.training.snapshot import snapshot_paths

# Everything at once: snapshots between log lines, validation, samples, dropout, accumulation.
RECIPE = replace(
    TINY,
    model="pixelcnn_plus_plus",
    config={"shape": [1, 8, 8], "blocks": 1, "filters": 2, "mixtures": 2},
    steps=8,
    micro_batch_size=2,
    flip=True,
    log_every=3,
    snapshot_every=2,
    validate_every=5,
    sample_every=5,
    sample_images=1,
)
PRELOADED = ("pixelfast.training", "torch._dynamo", "matplotlib.figure", "matplotlib.backends.backend_agg")
FILE_OPERATIONS = ("mkdir", "fsync", "rename", "replace", "pwrite", "ftruncate", "unlink", "rmdir")


def _train(data: Path, out: Path, resume: bool, kill_at: int, counted: Any) -> None:
    """One process of a run. It kills itself before file operation `kill_at`, and counts them."""
    torch.set_num_threads(1)
    counted.value = 0

    def watched(operation: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **settings: Any) -> Any:
            if counted.value == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            counted.value += 1
            return operation(*args, **settings)

        return run

    for name in FILE_OPERATIONS:
        setattr(os, name, watched(getattr(os, name)))
    builtins.open = watched(builtins.open)
    train(RECIPE, data=data, out=out, resume=resume, progress=False)


class Runs:
    """Starts processes that have imported everything already, so that a kill costs no second start."""

    def __init__(self, folder: Path) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(PRELOADED))
        self._data = write_data(folder / "blocks.npz")
        self.whole = folder / "whole"
        started = time.monotonic()
        status, self.operations = self.start(self.whole)
        self.seconds = time.monotonic() - started
        assert status == 0

    def start(self, out: Path, *, kill_at: int = -1, kill_after: float | None = None) -> tuple[int, int]:
        """Runs or resumes until the end, or until it is killed. (exit status, file operations counted)."""
        counted = self._context.Value("l", 0)
        resume = bool(snapshot_paths(out))
        process = self._context.Process(target=_train, args=(self._data, out, resume, kill_at, counted))
        process.start()
        process.join(kill_after)
        if process.is_alive():
            assert kill_after is not None
            process.kill()
            process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        return process.exitcode, counted.value


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("killed"))


def survive(runs: Runs, out: Path, kill: Callable[[], int], kills: int) -> None:
    """Kill a run up to `kills` times, let it end, and compare it with the one that was left alone."""
    done = 0
    while done < kills and kill() != 0:
        done += 1
        assert half_written(out) == []
    assert runs.start(out)[0] == 0
    assert half_written(out) == [] and partial_files(out) == []
    assert differences(out, runs.whole) == []


@pytest.mark.parametrize("seed", range(3))
def test_killed_between_file_operations(runs: Runs, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    out = tmp_path / "out"
    survive(runs, out, lambda: runs.start(out, kill_at=chance.randrange(runs.operations))[0], kills=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(25))
def test_killed_at_any_moment(runs: Runs, tmp_path: Path, seed: int) -> None:
    """Twice in one run: 50 kills, half of them by the clock, half of them between two file operations."""
    chance = random.Random(100 + seed)

    def kill() -> int:
        if chance.random() < 0.5:
            return runs.start(tmp_path / "out", kill_after=chance.uniform(0, runs.seconds))[0]
        return runs.start(tmp_path / "out", kill_at=chance.randrange(runs.operations))[0]

    survive(runs, tmp_path / "out", kill, kills=2)


def test_the_comparison_sees_every_difference(runs: Runs, tmp_path: Path) -> None:
    """One flipped bit, a file cut short, missing or too many: whatever differs is named."""
    names = sorted(outcome(runs.whole))
    assert [name.rpartition("/")[2] for name in names] == [
        *("log.jsonl", "model.safetensors"),
        "step-00000005.png",
        *("ema.safetensors", "manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"),
    ]
    copy = Path(shutil.copytree(runs.whole, tmp_path / "copy"))
    assert differences(copy, runs.whole) == []
    for name in names:
        whole = (copy / name).read_bytes()
        middle = len(whole) // 2
        for content in (whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :], whole[:middle], None):
            (copy / name).unlink()
            if content is not None:
                (copy / name).write_bytes(content)
                # What carries a hash is found out by the file alone.
                assert half_written(copy) or name == "log.jsonl" or len(content) == len(whole)
            assert differences(copy, runs.whole) == differences(runs.whole, copy) == [name]
            (copy / name).write_bytes(whole)
    (copy / "samples" / "step-00000007.png").write_bytes(b"")
    assert differences(copy, runs.whole) == ["samples/step-00000007.png"]
    assert len(half_written(copy)) == 1
