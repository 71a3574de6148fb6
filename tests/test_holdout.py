"""Data without a test split: images are set aside, and never trained on."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import png, write_tree
from training_runs import TINY, differences, write_data

from pixelfast.data import ImageData, open_data
from pixelfast.data.holdout import set_aside
from pixelfast.data.splits import NoSplitsError
from pixelfast.errors import CheckpointError, PixelfastError, ShapeError
from pixelfast.models import registry
from pixelfast.training import report, train
from pixelfast.training.images import Batches, open_splits
from pixelfast.training.run import Run

IMAGES = 14
GREY = replace(TINY, steps=2, validate_every=2, holdout=5)


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "can_plot", lambda: False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of two classes, each of one grey of its own: 10, 11, ..."""
    files = {
        f"{'cat' if number < 6 else 'dog'}/{number:02}.png": png(np.full((8, 8), 10 + number, np.uint8))
        for number in range(IMAGES)
    }
    return write_tree(tmp_path / "pictures", files)


def greys(images: torch.Tensor) -> list[int]:
    return [int(image.float().mean()) for image in images]


def test_every_fifth(folder: Path) -> None:
    data = open_data(folder)
    kept, aside = set_aside(data, 5)
    assert greys(aside.images[:]) == [14, 19]
    assert greys(kept.images[torch.arange(len(kept))]) == [10, 11, 12, 13, 15, 16, 17, 18, 20, 21, 22, 23]
    assert aside.labels is not None and kept.labels is not None
    assert aside.labels.tolist() == [0, 1] and kept.labels.tolist() == [0] * 5 + [1] * 7
    assert aside.classes == kept.classes == ("cat", "dog")
    assert kept.images.shape == (12, 1, 8, 8) and len(kept.images) == 12
    for outside in (12, -1):
        with pytest.raises(IndexError):
            kept.images[torch.tensor([outside])]


def test_nothing_left() -> None:
    with pytest.raises(ShapeError):
        set_aside(ImageData("few", torch.zeros(3, 1, 2, 2, dtype=torch.uint8)), 5)


def test_a_run_never_sees_what_is_set_aside(folder: Path) -> None:
    model = registry.create(GREY.model, **GREY.config)
    splits = open_splits(folder, GREY, model)
    assert splits.set_aside and splits.train.fingerprint() != splits.test.fingerprint()
    batches = Batches(splits.train, GREY)
    seen = {grey for step in range(40) for grey in greys(batches.part(step, 0, GREY.batch_size)[0])}
    tested = set(greys(splits.test.always_the_same(torch.arange(len(splits.test)))[0]))
    assert tested == {14, 19} and seen == set(range(10, 24)) - tested


def test_labels_come_with_their_images(folder: Path) -> None:
    """Cats are the greys up to 15."""
    recipe = replace(GREY, config={**GREY.config, "classes": 2})
    splits = open_splits(folder, recipe, registry.create(recipe.model, **recipe.config))
    batches = Batches(splits.train, recipe)
    for step in range(6):
        images, labels = batches.part(step, 0, recipe.batch_size)
        assert labels is not None and labels.tolist() == [int(grey > 15) for grey in greys(images)]
    images, labels = splits.test.always_the_same(torch.tensor([1, 0]))
    assert greys(images) == [19, 14] and labels is not None and labels.tolist() == [1, 0]


def test_arrays_without_names_of_splits(tmp_path: Path) -> None:
    values = np.broadcast_to(np.arange(10, 20, dtype=np.uint8)[:, None, None], (10, 8, 8))
    np.savez(tmp_path / "a.npz", images=values, labels=np.arange(10) % 3)
    splits = open_splits(tmp_path / "a.npz", GREY, registry.create(GREY.model, **GREY.config))
    assert greys(splits.test.always_the_same(torch.arange(2))[0]) == [14, 19]
    assert greys(splits.train.always_the_same(torch.arange(8))[0]) == [10, 11, 12, 13, 15, 16, 17, 18]


def test_splits_that_names_tell_are_left_alone(tmp_path: Path) -> None:
    path = write_data(tmp_path / "blocks.npz")
    splits = open_splits(path, GREY, registry.create(GREY.model, **GREY.config))
    assert not splits.set_aside and (len(splits.train), len(splits.test)) == (12, 7)


@pytest.mark.parametrize(("holdout", "every"), [(2, "2nd"), (3, "3rd"), (5, "5th"), (12, "12th")])
def test_what_was_set_aside_is_said(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture, holdout: int, every: str
) -> None:
    recipe = replace(GREY, steps=1, holdout=holdout)
    train(recipe, data=folder, out=tmp_path / "out", progress=False)
    line = f"no test split: every {every} image, {IMAGES // holdout} of them, is set aside to validate on"
    assert capsys.readouterr().out.splitlines().count(line) == 1


def test_nothing_is_said_of_a_test_split_that_is_there(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    train(GREY, data=write_data(tmp_path / "blocks.npz"), out=tmp_path / "out", progress=False)
    assert "set aside" not in capsys.readouterr().out


def test_a_resumed_run_has_the_same_split(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(GREY, steps=6, validate_every=3)
    train(recipe, data=folder, out=tmp_path / "whole", progress=False)
    advance = Run.advance

    def stop(run: Run) -> None:
        if run.step == 4:
            signal.raise_signal(signal.SIGINT)
        advance(run)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "advance", stop)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, data=folder, out=tmp_path / "out", progress=False)
    with pytest.raises(CheckpointError, match="holdout 4 here, 5 there"):
        train(replace(recipe, holdout=4), data=folder, out=tmp_path / "out", resume=True, progress=False)
    with pytest.raises(CheckpointError, match="holdout 4 here, 5 there"):
        train(None, changes=["holdout=4"], data=folder, out=tmp_path / "out", resume=True, progress=False)
    train(None, data=folder, out=tmp_path / "out", resume=True, progress=False)
    assert differences(tmp_path / "out", tmp_path / "whole") == []


def test_refused_without(folder: Path, tmp_path: Path) -> None:
    model = registry.create(GREY.model, **GREY.config)
    with pytest.raises(NoSplitsError, match=r"no test split.*or set holdout"):
        open_splits(folder, replace(GREY, holdout=0), model)
    with pytest.raises(PixelfastError, match="14 images are too few for holdout=15: set a smaller one"):
        open_splits(folder, replace(GREY, holdout=15), model)
    with pytest.raises(PixelfastError, match="holdout must be 0 or at least 2"):
        replace(GREY, holdout=1)
    # A split that names promise and nothing holds is no reason to make one.
    only_train = write_tree(tmp_path / "named", {"train/a.png": png(np.zeros((8, 8), np.uint8))})
    with pytest.raises(PixelfastError, match="has no test split; by their names its parts are: train") as error:
        open_splits(only_train, GREY, model)
    assert not isinstance(error.value, NoSplitsError)


@pytest.mark.parametrize("named", ["train", "test"])
def test_a_folder_named_as_a_split_beside_others_is_refused(folder: Path, named: str) -> None:
    """It is read as a class, and may be meant as a split."""
    write_tree(folder, {f"{named}/a.png": png(np.zeros((8, 8), np.uint8))})
    assert open_data(folder).classes == tuple(sorted(("cat", "dog", named)))
    with pytest.raises(PixelfastError, match=f"no test split: its folder {named} counts as a class") as error:
        open_splits(folder, GREY, registry.create(GREY.model, **GREY.config))
    assert not isinstance(error.value, NoSplitsError)
