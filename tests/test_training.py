"""The training loop on a handful of images: it learns, resumes to the same bits, refuses what it must."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pixelfast import checkpoints
from pixelfast.errors import CheckpointError, PixelfastError
from pixelfast.models import GatedPixelCNN
from pixelfast.training import RECIPES, Recipe, bits_per_dim, find_recipe, loop, train
from pixelfast.training.batches import BatchOrder
from pixelfast.training.snapshot import read_snapshot, write_snapshot

TINY = Recipe(
    name="tiny",
    model="gated_pixelcnn",
    config={"hidden": 4, "dilations": [1, 2]},
    steps=9,
    batch_size=5,
    learning_rate=1e-2,
    warmup_steps=2,
    ema_decay=0.5,
    snapshot_every=3,
    validate_every=4,
    validation_images=2,
)
# Dropout draws from torch's global generator, so its state has to travel with the snapshot.
WITH_DROPOUT = replace(
    TINY, name="dropout", model="pixelcnn_plus_plus", config={"shape": [1, 28, 28], "blocks": 1, "filters": 2}
)


class Killed(Exception):
    """Stands for the process dying in the middle of a run."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MNIST's four files with 12 training and 7 test images: a bright block in front of black."""
    folder = tmp_path_factory.mktemp("mnist")
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 12), ("t10k", 7)):
        images = np.zeros((count, 28, 28), dtype=np.uint8)
        images[:, 8:20, 8:20] = rng.integers(200, 256, (count, 12, 12))
        for kind, values in (("images-idx3", images), ("labels-idx1", np.zeros(count, dtype=np.uint8))):
            header = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
            (folder / f"{prefix}-{kind}-ubyte").write_bytes(header + values.tobytes())
    return folder


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make the run die instead of taking the given step; kill_at(-1) lets it live."""
    advance = loop._Run.advance

    def arrange(step: int) -> None:
        def advance_or_die(run: Any, images: torch.Tensor) -> float:
            if run.step == step:
                raise Killed
            return advance(run, images)

        monkeypatch.setattr(loop._Run, "advance", advance_or_die)

    return arrange


def one_line(error: pytest.ExceptionInfo[PixelfastError]) -> str:
    message = str(error.value)
    assert message and "\n" not in message
    return message


def assert_same(first: Any, second: Any) -> None:
    """Equal to the last bit, through nested dicts and lists."""
    assert type(first) is type(second)
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    elif isinstance(first, torch.Tensor):
        assert first.dtype == second.dtype and torch.equal(first, second)
    else:
        assert first == second


@pytest.mark.parametrize("recipe", [TINY, WITH_DROPOUT], ids=lambda recipe: recipe.name)
def test_resumed_equals_uninterrupted(
    data: Path, tmp_path: Path, kill_at: Callable[[int], None], recipe: Recipe
) -> None:
    whole = train(recipe, data=data, out=tmp_path / "whole", progress=False)

    out = tmp_path / "killed"
    for step, resume in ((5, False), (8, True)):
        kill_at(step)
        with pytest.raises(Killed):
            train(recipe, data=data, out=out, resume=resume, progress=False)
    kill_at(-1)
    resumed = train(recipe, data=data, out=out, resume=True, progress=False)

    assert resumed.steps == whole.steps == recipe.steps
    assert resumed.bits_per_dim == whole.bits_per_dim
    assert_same(read_snapshot(out / loop.SNAPSHOT), read_snapshot(tmp_path / "whole" / loop.SNAPSHOT))
    assert_same(
        checkpoints.load(resumed.path).state_dict(),
        checkpoints.load(whole.path).state_dict(),
    )


def test_ctrl_c_loses_no_step(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(TINY, data=data, out=tmp_path / "whole", progress=False)
    advance = loop._Run.advance

    def interrupted(run: Any, images: torch.Tensor) -> float:
        if run.step == 2:
            signal.raise_signal(signal.SIGINT)
        return advance(run, images)

    monkeypatch.setattr(loop._Run, "advance", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(TINY, data=data, out=tmp_path / "stopped", progress=False)
    assert signal.getsignal(signal.SIGINT) is handler
    assert read_snapshot(tmp_path / "stopped" / loop.SNAPSHOT)["step"] == 3
    monkeypatch.setattr(loop._Run, "advance", advance)
    resumed = train(TINY, data=data, out=tmp_path / "stopped", resume=True, progress=False)
    assert resumed.bits_per_dim == whole.bits_per_dim
    assert_same(checkpoints.load(resumed.path).state_dict(), checkpoints.load(whole.path).state_dict())


def test_every_part_of_the_snapshot_matters(
    data: Path, tmp_path: Path, kill_at: Callable[[int], None]
) -> None:
    """The comparison above can fail: a resume that restores less does not give the same bits."""
    whole = train(WITH_DROPOUT, data=data, out=tmp_path / "whole", progress=False)
    out = tmp_path / "killed"
    kill_at(5)
    with pytest.raises(Killed):
        train(WITH_DROPOUT, data=data, out=out, progress=False)
    kill_at(-1)
    state = read_snapshot(out / loop.SNAPSHOT)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(WITH_DROPOUT.seed)
        fresh = loop._Run(WITH_DROPOUT, 12).state()
    for lost in ("model", "average", "optimizer", "order", "rng"):
        write_snapshot({**state, lost: fresh[lost]}, out / loop.SNAPSHOT)
        resumed = train(WITH_DROPOUT, data=data, out=out, resume=True, progress=False)
        assert resumed.bits_per_dim != whole.bits_per_dim, lost
    write_snapshot(state, out / loop.SNAPSHOT)
    resumed = train(WITH_DROPOUT, data=data, out=out, resume=True, progress=False)
    assert resumed.bits_per_dim == whole.bits_per_dim


def test_a_finished_run_resumes_to_its_result(data: Path, tmp_path: Path) -> None:
    first = train(TINY, data=data, out=tmp_path, progress=False)
    first.path.unlink()
    assert train(TINY, data=data, out=tmp_path, resume=True, progress=False) == first
    assert first.path.exists()


def test_the_seed_decides(data: Path, tmp_path: Path) -> None:
    one, same, other = (
        train(replace(TINY, seed=seed), data=data, out=tmp_path / name, progress=False).bits_per_dim
        for name, seed in (("one", 1), ("same", 1), ("other", 2))
    )
    assert one == same != other


def test_the_global_generator_is_left_alone(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    train(replace(WITH_DROPOUT, steps=2), data=data, out=tmp_path, progress=False)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_loss_falls(data: Path, tmp_path: Path) -> None:
    """Black but for a fifth of the pixels, which are spread over 56 levels."""
    recipe = replace(TINY, steps=60, learning_rate=3e-2, snapshot_every=100, validate_every=100)
    result = train(recipe, data=data, out=tmp_path, progress=False)
    uniform = math.log2(256)
    assert 144 / 784 * math.log2(56) < result.bits_per_dim < 0.4 * uniform


def test_the_saved_model_is_the_one_that_was_evaluated(data: Path, tmp_path: Path) -> None:
    result = train(TINY, data=data, out=tmp_path, progress=False)
    assert result.path == tmp_path / "model.safetensors"
    model = checkpoints.load(result.path)
    test_images = loop.load_mnist(data, "test").images
    assert bits_per_dim(model, test_images) == result.bits_per_dim
    live = GatedPixelCNN(**TINY.config)
    live.load_state_dict(read_snapshot(tmp_path / loop.SNAPSHOT)["model"])
    assert bits_per_dim(live, test_images) != result.bits_per_dim


def test_bits_per_dim_weighs_every_image_the_same() -> None:
    torch.manual_seed(0)
    model = GatedPixelCNN(hidden=4, dilations=[1]).double()
    images = torch.cat(
        [torch.zeros(6, 1, 28, 28, dtype=torch.uint8), torch.full((1, 1, 28, 28), 255, dtype=torch.uint8)]
    )
    singly = [bits_per_dim(model, image[None]) for image in images]
    assert abs(singly[0] - singly[-1]) > 1e-2
    assert bits_per_dim(model, images, batch_size=3) == pytest.approx(sum(singly) / 7, rel=1e-12)


def test_bits_per_dim_leaves_the_mode() -> None:
    model = GatedPixelCNN(hidden=4, dilations=[1])
    images = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    for training in (True, False):
        model.train(training)
        bits_per_dim(model, images)
        assert model.training is training


def test_wrong_data_folder(tmp_path: Path) -> None:
    with pytest.raises(PixelfastError) as error:
        train(TINY, data=tmp_path / "nowhere", out=tmp_path / "out", progress=False)
    assert "nowhere does not exist" in one_line(error)
    assert not (tmp_path / "out").exists()


def test_output_that_cannot_be_made(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PixelfastError) as error:
        train(TINY, data=data, out=tmp_path / "file" / "out", progress=False)
    assert "cannot make the output folder" in one_line(error)


def test_output_that_cannot_be_written_shows_at_once(
    data: Path, tmp_path: Path, kill_at: Callable[[int], None]
) -> None:
    (tmp_path / f"{loop.SNAPSHOT}.part").mkdir()
    kill_at(0)
    with pytest.raises(CheckpointError) as error:
        train(TINY, data=data, out=tmp_path, progress=False)
    assert "cannot write the snapshot" in one_line(error)


def test_a_run_killed_before_its_first_step_resumes(
    data: Path, tmp_path: Path, kill_at: Callable[[int], None]
) -> None:
    kill_at(0)
    with pytest.raises(Killed):
        train(TINY, data=data, out=tmp_path, progress=False)
    kill_at(-1)
    assert train(TINY, data=data, out=tmp_path, resume=True, progress=False).steps == TINY.steps


def test_a_run_is_not_overwritten(data: Path, tmp_path: Path) -> None:
    (tmp_path / loop.SNAPSHOT).write_bytes(b"hours of work")
    with pytest.raises(PixelfastError) as error:
        train(TINY, data=data, out=tmp_path, progress=False)
    assert "resume it, or choose another folder" in one_line(error)
    assert (tmp_path / loop.SNAPSHOT).read_bytes() == b"hours of work"


def test_nothing_to_resume(data: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as error:
        train(TINY, data=data, out=tmp_path / "out", resume=True, progress=False)
    assert "nothing to resume" in one_line(error)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["truncated", "text", "other tensors", "incomplete"])
def test_a_damaged_snapshot_is_refused(data: Path, tmp_path: Path, damage: str) -> None:
    snapshot = tmp_path / loop.SNAPSHOT
    train(TINY, data=data, out=tmp_path, progress=False)
    if damage == "truncated":
        snapshot.write_bytes(snapshot.read_bytes()[:-1000])
    elif damage == "text":
        snapshot.write_text("not a snapshot")
    elif damage == "other tensors":
        torch.save(torch.zeros(3), snapshot)
    else:
        write_snapshot({"recipe": read_snapshot(snapshot)["recipe"]}, snapshot)
    with pytest.raises(CheckpointError) as error:
        train(TINY, data=data, out=tmp_path, resume=True, progress=False)
    assert loop.SNAPSHOT in one_line(error)


def test_another_recipe_is_refused(data: Path, tmp_path: Path) -> None:
    train(TINY, data=data, out=tmp_path, progress=False)
    with pytest.raises(CheckpointError) as error:
        train(replace(TINY, steps=20, seed=3), data=data, out=tmp_path, resume=True, progress=False)
    assert "different: seed, steps" in one_line(error)


def test_a_loss_that_explodes_stops_the_run(data: Path, tmp_path: Path) -> None:
    with pytest.raises(PixelfastError) as error:
        train(replace(TINY, learning_rate=1e30), data=data, out=tmp_path, progress=False)
    assert "the loss is nan" in one_line(error)


def test_a_failed_write_leaves_the_old_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "snapshot.pt"
    write_snapshot({"step": 1}, path)

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(CheckpointError) as error:
        write_snapshot({"step": 2}, path)
    assert "No space left on device" in one_line(error)
    assert read_snapshot(path) == {"step": 1}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["snapshot.pt"]


def test_a_snapshot_cannot_run_code(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    path = tmp_path / "snapshot.pt"
    torch.save({"step": Payload()}, path)
    with pytest.raises(CheckpointError):
        read_snapshot(path)
    assert not (tmp_path / "ran").exists()


def test_batches_show_every_image_once_per_epoch() -> None:
    order = BatchOrder(images=10, batch_size=4, seed=0)
    seen = torch.cat([order.next_batch() for _ in range(5)])
    assert sorted(seen[:10].tolist()) == sorted(seen[10:].tolist()) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()


def test_batches_larger_than_the_data_set() -> None:
    batch = BatchOrder(images=3, batch_size=8, seed=0).next_batch()
    assert len(batch) == 8 and torch.bincount(batch).tolist() in ([3, 3, 2], [3, 2, 3], [2, 3, 3])


def test_batches_continue_from_their_state() -> None:
    order, other = BatchOrder(10, 4, seed=0), BatchOrder(10, 4, seed=9)
    order.next_batch()
    other.load_state_dict(order.state_dict())
    for _ in range(6):
        assert torch.equal(order.next_batch(), other.next_batch())


def test_the_learning_rate_rises_then_falls_to_zero() -> None:
    recipe = replace(TINY, steps=1000, warmup_steps=100, learning_rate=1.0)
    rates = [recipe.learning_rate_at(step) for step in range(recipe.steps)]
    peak = rates.index(max(rates))
    assert 90 <= peak <= 100 and max(rates) > 0.97
    assert rates[:peak] == sorted(rates[:peak]) and rates[peak:] == sorted(rates[peak:], reverse=True)
    assert 0 < rates[0] < 0.011 and 0 < rates[-1] < 1e-5
    assert rates[500] == pytest.approx(0.5)


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"batch_size": 0},
        {"snapshot_every": 0},
        {"validate_every": 0},
        {"warmup_steps": -1},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"clip_norm": 0.0},
        {"ema_decay": 1.0},
    ],
)
def test_recipes_are_checked(change: dict[str, Any]) -> None:
    with pytest.raises(PixelfastError, match=next(iter(change))):
        replace(TINY, **change)


def test_recipes_are_found_by_name() -> None:
    assert find_recipe("gated-pixelcnn-mnist") is RECIPES["gated-pixelcnn-mnist"]
    with pytest.raises(PixelfastError) as error:
        find_recipe("gated")
    assert "gated-pixelcnn-mnist" in one_line(error)
