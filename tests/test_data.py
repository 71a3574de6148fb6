"""The IDX reader and the discovery of MNIST's files."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pixelfast.data import load_mnist, open_data, read_idx
from pixelfast.errors import PixelfastError, ShapeError


def idx_bytes(values: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    return header + values.astype(np.uint8).tobytes()


def digits(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)


def write_test_split(folder: Path, *, images: bytes, labels: bytes, ending: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pack = gzip.compress if ending == ".gz" else bytes
    (folder / f"t10k-images-idx3-ubyte{ending}").write_bytes(pack(images))
    (folder / f"t10k-labels-idx1-ubyte{ending}").write_bytes(pack(labels))
    return folder


def one_line(error: pytest.ExceptionInfo[PixelfastError]) -> str:
    message = str(error.value)
    assert message and "\n" not in message
    return message


@pytest.mark.parametrize("shape", [(7,), (3, 28, 28), (2, 1, 3, 5), (0, 28, 28)])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_read_idx_returns_what_was_written(tmp_path: Path, shape: tuple[int, ...], pack: Callable) -> None:
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path / "values"
    path.write_bytes(pack(idx_bytes(values)))
    tensor = read_idx(path)
    assert tensor.dtype == torch.uint8
    assert tuple(tensor.shape) == shape
    assert np.array_equal(tensor.numpy(), values)


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("subfolder", ["", "MNIST/raw"])
def test_load_mnist_finds_the_usual_places(tmp_path: Path, ending: str, subfolder: str) -> None:
    images, labels = digits(4), np.array([3, 1, 4, 9])
    write_test_split(tmp_path / subfolder, images=idx_bytes(images), labels=idx_bytes(labels), ending=ending)
    split = load_mnist(tmp_path, "test")
    assert len(split) == 4
    assert split.images.dtype == torch.uint8 and split.images.shape == (4, 1, 28, 28)
    assert np.array_equal(split.images[:, 0].numpy(), images)
    assert split.labels.dtype == torch.int64 and split.labels.tolist() == [3, 1, 4, 9]


def test_load_mnist_finds_dotted_names(tmp_path: Path) -> None:
    (tmp_path / "train-images.idx3-ubyte").write_bytes(idx_bytes(digits(2)))
    (tmp_path / "train-labels.idx1-ubyte").write_bytes(idx_bytes(np.array([0, 1])))
    assert len(load_mnist(tmp_path, "train")) == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not an IDX file"),
        (b"\x89PNG\r\n\x1a\n", "not an IDX file"),
        (b"\x00\x00\x0d\x01" + (1).to_bytes(4, "big") + b"\x00" * 4, "not an IDX file of unsigned bytes"),
        (b"\x00\x00\x08\x00", "0 dimensions"),
        (b"\x00\x00\x08\x03\x00\x00", "3 dimensions"),
        (idx_bytes(digits(2))[:-1], "truncated"),
        (idx_bytes(digits(2)) + b"\x00", "too long"),
        (gzip.compress(idx_bytes(digits(2)))[:-20], "damaged or truncated gzip"),
        (gzip.compress(idx_bytes(digits(2)))[:100] + b"\xff" * 100, "damaged or truncated gzip"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "broken-ubyte"
    path.write_bytes(content)
    with pytest.raises(PixelfastError) as error:
        read_idx(path)
    message = one_line(error)
    assert words in message and "broken-ubyte" in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PixelfastError) as error:
        read_idx(tmp_path / "absent")
    assert "absent" in one_line(error)


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(PixelfastError) as error:
        load_mnist(tmp_path / "nowhere", "train")
    message = one_line(error)
    assert "nowhere does not exist" in message and "IDX" in message


def test_a_file_given_as_folder(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(idx_bytes(digits(1)))
    with pytest.raises(PixelfastError, match="is not a folder"):
        load_mnist(path, "train")


def test_a_folder_without_the_files(tmp_path: Path) -> None:
    with pytest.raises(PixelfastError) as error:
        load_mnist(tmp_path, "train")
    assert "train-images-idx3-ubyte" in one_line(error)


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (np.zeros((2, 32, 32)), np.zeros(2), "(2, 32, 32)"),
        (np.zeros((0, 28, 28)), np.zeros(0), "(0, 28, 28)"),
        (np.zeros(28), np.zeros(28), "(28,)"),
        (np.zeros((2, 28, 28)), np.zeros(3), "one label per image"),
        (np.zeros((2, 28, 28)), np.zeros((2, 1)), "one label per image"),
        (np.zeros((2, 28, 28)), np.array([1, 10]), "the label 10"),
    ],
)
def test_other_data_sets_are_refused(tmp_path: Path, images: np.ndarray, labels: np.ndarray, words: str) -> None:
    write_test_split(tmp_path, images=idx_bytes(images), labels=idx_bytes(labels))
    with pytest.raises(ShapeError) as error:
        load_mnist(tmp_path, "test")
    assert words in one_line(error)


def test_real_mnist(shared_file: Callable[..., Path]) -> None:
    folder = shared_file("data", "mnist")
    train, test = load_mnist(folder, "train"), load_mnist(folder, "test")
    assert train.images.shape == (60_000, 1, 28, 28) and test.images.shape == (10_000, 1, 28, 28)
    # Published facts of the data set: its first labels, and its mean level of 0.1307.
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert abs(train.images.double().mean().item() / 255 - 0.1307) < 5e-5


def test_arrays_without_images_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.npz"
    np.savez(path, images_train=np.zeros((0, 8, 8), np.uint8), labels_train=np.zeros(0, np.int64))
    with pytest.raises(ShapeError, match="without a 0"):
        open_data(path)
