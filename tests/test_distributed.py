"""Two processes of torchrun over gloo: the same loss curve as one, and nothing is lost when one of them goes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from training_runs import CODES, CODES_BY_GRADIENT, CURVE, NOISY, SHARED, differences, half_written, losses, write_data

from pixelfast import checkpoints
from pixelfast.training import Recipe, meeting, report, train
from pixelfast.training.meeting import fresh_store
from pixelfast.training.snapshot import newest_snapshot, read_snapshot, snapshot_paths

HANGS_AFTER = 400.0
"""Seconds until processes that wait for each other are given up: far more than a busy machine needs."""
WORKER = Path(__file__).with_name("distributed_worker.py")
RECIPES = pytest.mark.parametrize("recipe", SHARED, ids=lambda recipe: recipe.name)
PARALLEL = pytest.mark.parametrize("parallel", ["ddp", "fsdp"])


def torchrun(*arguments: str, restarts: int = 0) -> subprocess.CompletedProcess[str]:
    """Two processes on this machine, one thread each."""
    path = os.pathsep.join(folder for folder in sys.path if folder)
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", str(restarts), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        out, err = process.communicate(timeout=HANGS_AFTER)
    except subprocess.TimeoutExpired:
        # Asked to end, torchrun ends the processes it has started; killed, it would leave them.
        process.terminate()
        out, err = process.communicate()
        pytest.fail(f"hangs: {err}")
    return subprocess.CompletedProcess(command, process.returncode, out, err)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "blocks.npz")


@pytest.fixture(scope="module")
def two(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes leave of every job of `distributed_worker.curves`."""
    out = tmp_path_factory.mktemp("two")
    ended = torchrun(str(WORKER), str(data), str(out), "curves")
    assert ended.returncode == 0, ended.stderr
    return out


@pytest.fixture(scope="module")
def one(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same recipes in this process alone."""
    out = tmp_path_factory.mktemp("one")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "can_plot", lambda: False)
        for recipe in (*SHARED, CODES_BY_GRADIENT):
            train(recipe, data=data, out=out / recipe.name, progress=False)
        yield out
    torch.set_num_threads(threads)


@RECIPES
@PARALLEL
def test_the_same_loss_curve(one: Path, two: Path, recipe: Recipe, parallel: str) -> None:
    """Sums in another order are all that differs: relative 2^-24 each, which ten steps of training amplify."""
    alone, together = one / recipe.name, two / f"{recipe.name}-{parallel}"
    loss = "squared_error" if recipe.model == CODES.model else "bits_per_dim"
    for field in (loss, "gradient_norm", f"validation_{loss}", f"test_{loss}"):
        assert losses(together, field) == pytest.approx(losses(alone, field), rel=1e-4), field
    assert half_written(together) == []
    first, last = losses(together, loss)[0], losses(together, loss)[-1]
    assert first - last > 100 * 1e-4 * first, "a curve that does not fall says nothing"


@RECIPES
@PARALLEL
def test_the_same_weights(one: Path, two: Path, recipe: Recipe, parallel: str) -> None:
    found, expected = (
        read_snapshot(snapshot_paths(run)[0]).tensors for run in (two / f"{recipe.name}-{parallel}", one / recipe.name)
    )
    for part, tensors in expected.items():
        assert found[part].keys() == tensors.keys()
        for name, tensor in tensors.items():
            torch.testing.assert_close(found[part][name], tensor, rtol=1e-2, atol=1e-3)
    checkpoints.load(two / f"{recipe.name}-{parallel}" / "model.safetensors")


def test_a_codebook_by_gradient_is_the_same(one: Path, two: Path) -> None:
    alone, together = one / CODES_BY_GRADIENT.name, two / f"{CODES_BY_GRADIENT.name}-ddp"
    assert losses(together, "squared_error") == pytest.approx(losses(alone, "squared_error"), rel=1e-4)


def test_noise_belongs_to_pieces_and_not_to_processes(one: Path, two: Path) -> None:
    """The comparison can fail: other noise is far outside of it."""
    alone, together = losses(one / NOISY.name), losses(two / f"{NOISY.name}-ddp")
    other = [bits + 1e-3 for bits in alone]
    assert other != pytest.approx(alone, rel=1e-4)
    assert together[0] == pytest.approx(alone[0], rel=1e-6)


def test_one_process_told_to_stop_stops_all(two: Path) -> None:
    # The signal came to one of them.
    notes = {path.name: path.read_text() for path in two.glob("stopped-*")}
    assert notes == {"stopped-0": "SIGTERM", "stopped-1": "SIGTERM"}
    assert differences(two / "stopped", two / f"{NOISY.name}-ddp") == []


def test_recomputing_shards_changes_no_bit(two: Path) -> None:
    names = {name.rpartition("/")[2] for name in differences(two / "recomputed", two / f"{NOISY.name}-fsdp")}
    assert names == {"manifest.json", "state.json"}


def test_one_process_goes_on_for_two(one: Path, two: Path, data: Path) -> None:
    assert newest_snapshot(two / "fewer", pytest.fail)[1].state["step"] == 3
    train(NOISY, data=data, out=two / "fewer", resume=True, progress=False)
    assert losses(two / "fewer") == pytest.approx(losses(one / NOISY.name), rel=1e-4)


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("full", "CheckpointError: cannot write the snapshot", "SaidByFirst: cannot write the snapshot"),
        ("uneven", "PixelfastError: batch_size 3", "SaidByFirst: batch_size 3"),
        ("codebook", "PixelfastError: parallel=fsdp does not shard", "SaidByFirst: parallel=fsdp does not shard"),
        ("nan", "PixelfastError: step 1: the loss is nan", "SaidByFirst: step 1: the loss is nan"),
    ],
)
def test_an_error_ends_all(two: Path, name: str, first: str, second: str) -> None:
    for rank, message in enumerate((first, second)):
        assert (two / f"{name}-{rank}").read_text().startswith(message)


def test_processes_that_are_started_again_resume(two: Path, data: Path, tmp_path: Path) -> None:
    ended = torchrun(str(WORKER), str(data), str(tmp_path), "elastic", restarts=1)
    assert ended.returncode == 0, ended.stderr
    assert "SIGKILL" in ended.stderr or "exitcode: -9" in ended.stderr
    assert half_written(tmp_path / "elastic") == []
    assert differences(tmp_path / "elastic", two / f"{CURVE.name}-ddp") == []


def meet(store: dist.Store, ranks: range, world: int, seconds: float = 60.0) -> list[str]:
    """What becomes of each process: it came, it was not there, or the error it raised."""
    told = [""] * world

    def come(rank: int) -> None:
        try:
            fresh_store(store, rank, world, seconds).set("name", "")
            told[rank] = "came"
        except Exception as error:
            told[rank] = type(error).__name__

    threads = [threading.Thread(target=come, args=(rank,)) for rank in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told


def test_a_meeting_forgets_those_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever was there before, and whatever became of them: all of one start share a part nobody has used."""
    store = dist.HashStore()
    used: set[str] = set()
    wrapped = meeting.PrefixStore
    names: list[str] = []
    monkeypatch.setattr(meeting, "PrefixStore", lambda name, inner: names.append(name) or wrapped(name, inner))
    for _ in range(5):
        names.clear()
        assert meet(store, range(3), 3) == ["came"] * 3
        assert len(names) == 3 and len(set(names)) == 1 and not used & set(names)
        used.update(names)
    # The first process comes alone, then the others alone: their traces must not mislead the next start.
    assert meet(store, range(1), 3, 0.2) == ["PixelfastError", "", ""]
    assert meet(store, range(1, 3), 3, 0.2) == ["", "PixelfastError", "PixelfastError"]
    names.clear()
    assert meet(store, range(3), 3) == ["came"] * 3
    assert len(set(names)) == 1 and not used & set(names)


def test_the_command_line(one: Path, data: Path, tmp_path: Path) -> None:
    """`torchrun -m pixelfast train`: one process talks."""
    settings = [
        f"--set={name}={value}"
        for name, value in (("steps", 2), ("batch_size", 4), ("config.hidden", 2), ("config.shape", [1, 8, 8]))
    ]
    command = ["-m", "pixelfast", "train", "gated-pixelcnn-mnist", "--data", str(data), "--out", str(tmp_path / "out")]
    ended = torchrun(*command, *settings)
    assert ended.returncode == 0, ended.stderr
    begins, announced, figures = ended.stdout.splitlines()
    assert "gated_pixelcnn, " in begins and "from step 0 to 2" in begins
    assert "now the whole test set" in announced and "bits/dim on the test split, 2 steps" in figures
    assert half_written(tmp_path / "out") == []
