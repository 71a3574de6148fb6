"""Data without a test split: images are set aside, and never trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import png, write_tree
from training_runs import TINY

from pixelfast.data import ImageData, open_data
from pixelfast.data.holdout import set_aside
from pixelfast.data.splits import NoSplitsError
from pixelfast.errors import CheckpointError, PixelfastError, ShapeError
from pixelfast.models import registry
from pixelfast.training import report, train
from pixelfast.training.images import Batches, open_splits

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
    with pytest.raises(IndexError):
        kept.images[torch.tensor([12])]


def test_nothing_left() -> None:
    with pytest.raises(ShapeError):
        set_aside(ImageData("few", torch.zeros(3, 1, 2, 2, dtype=torch.uint8)), 5)


def test_a_run_never_sees_what_is_set_aside(folder: Path) -> None:
    model = registry.create(GREY.model, **GREY.config)
    splits = open_splits(folder, GREY, model)
    assert splits.set_aside
    batches = Batches(splits.train, GREY)
    seen = {grey for step in range(40) for grey in greys(batches.part(step, 0, GREY.batch_size)[0])}
    tested = set(greys(splits.test.always_the_same(torch.arange(len(splits.test)))[0]))
    assert tested == {14, 19} and seen == set(range(10, 24)) - tested


def test_a_whole_run(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    train(GREY, data=folder, out=tmp_path / "out", progress=False)
    said = capsys.readouterr().out
    assert f"{folder} has no test split: 1 in 5 images, 2 of them, is set aside to test on, 12 are left" in said
    with pytest.raises(CheckpointError, match="holdout"):
        train(replace(GREY, steps=3, holdout=4), data=folder, out=tmp_path / "out", resume=True, progress=False)


def test_refused_without(folder: Path, tmp_path: Path) -> None:
    model = registry.create(GREY.model, **GREY.config)
    with pytest.raises(NoSplitsError, match=r"no test split.*or set holdout"):
        open_splits(folder, replace(GREY, holdout=0), model)
    with pytest.raises(PixelfastError, match="set holdout to at most 14"):
        open_splits(folder, replace(GREY, holdout=15), model)
    with pytest.raises(PixelfastError, match="holdout must be 0 or at least 2"):
        replace(GREY, holdout=1)
    # A split that names promise and nothing holds is no reason to make one.
    only_train = write_tree(tmp_path / "named", {"train/a.png": png(np.zeros((8, 8), np.uint8))})
    with pytest.raises(PixelfastError, match="has no test split; by their names its parts are: train") as error:
        open_splits(only_train, GREY, model)
    assert not isinstance(error.value, NoSplitsError)
