"""open_data on every kind of arrays: what was written comes back, and splits are never mixed up."""

from __future__ import annotations

import gzip
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import data_files
import numpy as np
import pytest
import torch
from data_files import SPLITS, pixels

from pixelfast.data import ImageData, load_mnist, open_data
from pixelfast.data.stacked import StackedArrays
from pixelfast.errors import PixelfastError, ShapeError


def everything(data: ImageData) -> np.ndarray:
    """All images (N, C, H, W), asked for in an order that is not theirs, put back in place."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(1))
    found = data.images[order]
    assert found.dtype == torch.uint8 and found.shape == (len(data), *data.shape)
    out = torch.empty_like(found)
    out[order] = found
    assert torch.equal(data.images[:], out)
    return out.numpy()


def refused(path: Path, split: str = "train", kind: type[PixelfastError] = PixelfastError) -> str:
    with pytest.raises(kind) as error:
        open_data(path, split)  # type: ignore[arg-type]
    message = str(error.value)
    assert message and "\n" not in message
    return message


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("place", ["", "MNIST/raw", "FashionMNIST/raw", "raw", "fashion"])
def test_idx_folders(tmp_path: Path, packed: bool, place: str) -> None:
    sets = data_files.write_mnist(tmp_path / place, packed=packed)
    for split in SPLITS:
        data = open_data(tmp_path, split)
        images, labels = sets[split]
        assert np.array_equal(everything(data)[:, 0], images)
        assert data.labels is not None and data.labels.dtype == torch.int64
        assert data.labels.tolist() == labels.tolist()
        assert data.shape == (1, 28, 28) and data.levels == 256 and len(data) == len(images)
        # The train split shows classes 0 to 5; the test split has only four of them, and the same classes.
        assert data.classes == ("0", "1", "2", "3", "4", "5")


def test_idx_files_packed_and_unpacked_side_by_side_are_one(tmp_path: Path) -> None:
    data_files.write_mnist(tmp_path)
    for path in list(tmp_path.glob("*.gz")):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    assert len(open_data(tmp_path, "test")) == 4


def test_idx_of_other_sizes_and_colour(tmp_path: Path) -> None:
    images = pixels(3, 9, 5, 3)
    path = tmp_path / "train-images-idx4-ubyte"
    path.write_bytes(data_files.idx_bytes(images))
    data = open_data(path)
    assert data.shape == (3, 9, 5) and data.labels is None and data.classes is None
    assert np.array_equal(everything(data), images.transpose(0, 3, 1, 2))


def test_two_idx_data_sets_in_one_folder(tmp_path: Path) -> None:
    data_files.write_mnist(tmp_path)
    (tmp_path / "emnist-train-images-idx3-ubyte").write_bytes(data_files.idx_bytes(pixels(2, 28, 28)))
    message = refused(tmp_path)
    assert "2 IDX files of images" in message and "emnist-train-images" in message


def test_idx_labels_must_fit(tmp_path: Path) -> None:
    data_files.write_mnist(tmp_path, packed=False)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(data_files.idx_bytes(np.arange(5)))
    assert "(5,) labels for 6 images" in refused(tmp_path, kind=ShapeError)


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "python"])
@pytest.mark.parametrize("place", ["", "cifar-10-batches"])
def test_cifar(tmp_path: Path, binary: bool, place: str) -> None:
    sets = data_files.write_cifar(tmp_path / place, binary=binary)
    for split in SPLITS:
        data = open_data(tmp_path, split)
        images, labels = sets[split]
        assert data.name == "CIFAR-10" and data.licence and data.shape == (3, 32, 32)
        assert np.array_equal(everything(data), images)
        assert data.labels is not None and data.labels.tolist() == labels
        assert data.classes == tuple(data_files.CIFAR_CLASSES)


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "python"])
def test_a_cifar_batch_that_is_missing(tmp_path: Path, binary: bool) -> None:
    data_files.write_cifar(tmp_path, binary=binary)
    next(tmp_path.glob("data_batch_4*")).unlink()
    assert "lacks data_batch_4" in refused(tmp_path)
    next(tmp_path.glob("test_batch*")).unlink()
    assert "no test split" in refused(tmp_path, "test")


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "python"])
def test_one_cifar_batch_alone(tmp_path: Path, binary: bool) -> None:
    data_files.write_cifar(tmp_path, binary=binary)
    path = next(tmp_path.glob("data_batch_2*"))
    data = open_data(path)
    assert len(data) == 3 and data.classes == tuple(map(str, range(10)))
    assert np.array_equal(everything(data), data_files.cifar_batch(3, 1)[0])
    assert "no test split" in refused(path, "test")


def test_a_dark_cifar_record_is_not_taken_for_idx(tmp_path: Path) -> None:
    """Label 0, then pixels 0 and 8: the first bytes of an IDX file."""
    record = bytes([0, 0, 8, 1]) + bytes(pixels(3069))
    (tmp_path / "data_batch_1.bin").write_bytes(record)
    data = open_data(tmp_path / "data_batch_1.bin")
    assert data.shape == (3, 32, 32) and data.images[:].flatten()[:2].tolist() == [0, 8]


def test_cifar_pickles_written_by_python_3(tmp_path: Path) -> None:
    images, labels = cifar = data_files.cifar_batch(4, 0)
    for protocol in (3, 4):
        path = tmp_path / f"batch_{protocol}"
        path.write_bytes(pickle.dumps({"data": images.reshape(4, -1), "labels": labels}, protocol=protocol))
        data = open_data(path)
        assert np.array_equal(everything(data), cifar[0])
        assert data.labels is not None and data.labels.tolist() == labels


@pytest.mark.parametrize("packed", [False, True])
def test_imagenet(tmp_path: Path, packed: bool) -> None:
    sets = data_files.write_imagenet(tmp_path, packed=packed)
    for split in SPLITS:
        data = open_data(tmp_path, split)
        images, labels = sets[split]
        assert data.shape == (3, 8, 8) and data.licence is not None and "ImageNet" in data.licence
        assert np.array_equal(everything(data), images)
        assert data.labels is not None and data.labels.tolist() == (labels - 1).tolist()
        assert data.classes is not None and len(data.classes) == 1000


def test_imagenet_batches_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """Batch 10 comes last, not after batch 1."""
    sets = data_files.write_imagenet(tmp_path)
    assert np.array_equal(open_data(tmp_path).images[torch.tensor([2, 19])].numpy(), sets["train"][0][[2, 19]])


def test_imagenet_that_is_not_whole(tmp_path: Path) -> None:
    data_files.write_imagenet(tmp_path)
    (tmp_path / "train_data_batch_10.npz").unlink()
    message = refused(tmp_path)
    assert "train batches 1, 2, 3, 4, 5, 6, 7, 8, 9" in message and "1 to 10" in message
    assert len(open_data(tmp_path / "train_data_batch_3.npz")) == 2


@pytest.mark.parametrize(
    ("columns", "labels", "words"),
    [(3 * 64, [0, 5], "labels from 0 to 5"), (3 * 64, [1, 1001], "to 1001"), (100, [1, 2], "(2, 100)")],
)
def test_imagenet_of_another_make(tmp_path: Path, columns: int, labels: list[int], words: str) -> None:
    np.savez(tmp_path / "val_data.npz", data=pixels(2, columns), labels=np.array(labels))
    assert words in refused(tmp_path, "test", ShapeError)


LAYOUTS = {
    "NHW": (5, 6, 4),
    "NHWC": (5, 6, 4, 3),
    "NHWC grey": (5, 6, 4, 1),
    "NCHW": (5, 3, 6, 4),
    "NCHW grey": (5, 1, 6, 4),
}


def as_nchw(array: np.ndarray, layout: str) -> np.ndarray:
    if layout == "NHW":
        return array[:, None]
    return array.transpose(0, 3, 1, 2) if layout.startswith("NHWC") else array


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["npy", "npz", "npz packed"])
def test_arrays(tmp_path: Path, kind: str, layout: str, order: str) -> None:
    array = np.asarray(pixels(*LAYOUTS[layout]), order=order)  # type: ignore[call-overload]
    path = tmp_path / f"pictures.{kind[:3]}"
    if kind == "npy":
        np.save(path, array)
    elif kind == "npz":
        np.savez(path, array)
    else:
        np.savez_compressed(path, array)
    data = open_data(path)
    assert data.labels is None and data.levels == 256
    assert np.array_equal(everything(data), as_nchw(array, layout))
    assert "no test split" in refused(path, "test")


@pytest.mark.parametrize(
    "names",
    [
        {"x_train": "x_test", "y_train": "y_test"},  # Keras
        {"train_images": "test_images", "train_labels": "test_labels"},  # MedMNIST
        {"train_images": "val_images", "train_labels": "val_labels"},
    ],
)
@pytest.mark.parametrize("column", [False, True])
def test_splits_in_one_npz(tmp_path: Path, names: dict[str, str], column: bool) -> None:
    train, test = pixels(6, 5, 4, seed=1), pixels(3, 5, 4, seed=2)
    labels = {"train": np.array([0, 1, 2, 3, 2, 7]), "test": np.array([1, 0, 2])}
    shaped = {split: each[:, None] if column else each for split, each in labels.items()}
    (of_images, of_labels) = names.items()
    np.savez(
        tmp_path / "set.npz",
        **{of_images[0]: train, of_images[1]: test, of_labels[0]: shaped["train"], of_labels[1]: shaped["test"]},
    )
    for split, images in (("train", train), ("test", test)):
        data = open_data(tmp_path / "set.npz", split)  # type: ignore[arg-type]
        assert np.array_equal(everything(data)[:, 0], images)
        assert data.labels is not None and data.labels.tolist() == labels[split].tolist()
        assert data.classes == tuple(map(str, range(8)))


@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_splits_by_file_name(tmp_path: Path, ending: str) -> None:
    sets = {"train": pixels(6, 5, 4, seed=1), "test": pixels(3, 5, 4, seed=2)}
    for split, images in sets.items():
        if ending == "npy":
            np.save(tmp_path / f"{split}.npy", images)
            np.save(tmp_path / f"{split}_labels.npy", np.arange(len(images)))
        else:
            np.savez(tmp_path / f"{split}.npz", images=images, labels=np.arange(len(images)))
    for split, images in sets.items():
        data = open_data(tmp_path, split)  # type: ignore[arg-type]
        assert np.array_equal(everything(data)[:, 0], images)
        assert data.labels is not None and data.labels.tolist() == list(range(len(images)))


def test_a_validation_split_is_not_the_test_split_where_there_is_one(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "set.npz", train_images=pixels(4, 5, 4), val_images=pixels(3, 5, 4), test_images=pixels(2, 5, 4)
    )
    assert len(open_data(tmp_path / "set.npz", "test")) == 2


@pytest.mark.parametrize(
    ("arrays", "words", "kind"),
    [
        ({"a": np.zeros((2, 4, 4), np.float32)}, "float32", ShapeError),
        ({"a": np.zeros((2, 5, 4, 4), np.uint8)}, "(2, 5, 4, 4)", ShapeError),
        ({"a": np.zeros((2, 3, 4, 3), np.uint8)}, "second or the last dimension", ShapeError),
        ({"a": np.zeros((0, 4, 4), np.uint8)}, "(0, 4, 4), no images", ShapeError),
        ({"a": np.zeros((2, 0, 4), np.uint8)}, "(2, 0, 4), no images", ShapeError),
        ({"a": np.zeros((2, 4), np.uint8)}, "a uint8 (2, 4)", PixelfastError),
        ({"a": np.zeros((2, 4, 4), np.uint8), "b": np.zeros((2, 4, 4), np.uint8)}, "2 arrays", PixelfastError),
        ({"a": np.zeros((2, 4, 4), np.uint8), "b": np.arange(2), "c": np.arange(2)}, "b, c", PixelfastError),
        ({"a": np.zeros((2, 4, 4), np.uint8), "b": np.array([-1, 2])}, "from -1 to 2", ShapeError),
        ({"a": np.zeros((2, 4, 4), np.uint8), "b": np.array([1, 10**9])}, "1000000000", ShapeError),
        ({"a": np.array([{}], dtype=object)}, "Python objects", PixelfastError),
    ],
)
def test_arrays_that_are_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], words: str, kind: type[PixelfastError]
) -> None:
    np.savez(tmp_path / "set.npz", **arrays)  # type: ignore[arg-type]
    assert words in refused(tmp_path / "set.npz", kind=kind)


def test_a_pickle_in_an_array_is_not_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "sprung"),)

    np.save(tmp_path / "set.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "set.npz", images=np.array([Trap()], dtype=object))
    for ending in ("npy", "npz"):
        assert "Python objects" in refused(tmp_path / f"set.{ending}")
    assert not (tmp_path / "sprung").exists()


def test_large_arrays_are_mapped_not_read(tmp_path: Path) -> None:
    """Opening 1 GiB and taking three images of it needs no memory for the rest: the files are sparse."""
    path = tmp_path / "large.npy"
    with path.open("wb") as file:
        shape = (1 << 20, 1, 32, 32)
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + (1 << 30))
    before = resident()
    data = open_data(path)
    assert len(data) == 1 << 20
    assert data.images[torch.tensor([0, 5, (1 << 20) - 1])].sum() == 0
    assert resident() - before < 100 << 20


def resident() -> int:
    """Bytes of this process in memory."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Rss:"))


@pytest.mark.parametrize("split", ["valid", "Train", "", "all"])
def test_unknown_splits(tmp_path: Path, split: str) -> None:
    assert "train and test" in refused(tmp_path, split)
    with pytest.raises(PixelfastError, match="train and test"):
        load_mnist(tmp_path, split)  # type: ignore[arg-type]


def test_what_is_not_there_or_not_known(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "nowhere")
    assert "no JPEG or PNG" in refused(tmp_path)
    (tmp_path / "notes.txt").write_text("nothing")
    assert "not recognised" in refused(tmp_path / "notes.txt")
    assert "no JPEG or PNG" in refused(tmp_path)


def test_what_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "File name too long" in refused(tmp_path / ("a" * 300))
    data_files.write_mnist(tmp_path)
    opened = Path.open

    def broken(path: Path, *options: object) -> object:
        if path.name.startswith("t10k"):
            raise OSError(5, os.strerror(5), str(path))
        return opened(path, *options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "open", broken)
    message = refused(tmp_path)
    assert "t10k-" in message and "Input/output error" in message


def test_a_folder_of_several_kinds(tmp_path: Path) -> None:
    data_files.write_mnist(tmp_path)
    np.save(tmp_path / "other.npy", pixels(2, 4, 4))
    message = refused(tmp_path)
    assert "several kinds" in message and "other.npy" in message


def test_a_folder_of_several_data_sets(tmp_path: Path) -> None:
    data_files.write_mnist(tmp_path / "MNIST" / "raw")
    data_files.write_cifar(tmp_path / "cifar-10-batches-py", binary=False)
    message = refused(tmp_path)
    assert "MNIST/raw" in message and "cifar-10-batches-py" in message


def test_names_do_not_decide_where_the_content_does(tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(data_files.idx_bytes(pixels(2, 4, 4)))
    assert open_data(tmp_path / "data.bin").shape == (1, 4, 4)
    np.savez(tmp_path / "set.npz", pixels(2, 4, 6))
    (tmp_path / "set.npz").rename(tmp_path / "arrays")
    assert open_data(tmp_path / "arrays").shape == (1, 4, 6)
    data_files.write_zip(tmp_path / "pictures.npz", {"a.png": data_files.png(pixels(4, 8))})
    assert open_data(tmp_path / "pictures.npz").shape == (1, 4, 8)


@pytest.mark.parametrize("index", [torch.tensor([6]), torch.tensor([-1]), torch.tensor([0, 99])])
def test_images_that_do_not_exist(tmp_path: Path, index: torch.Tensor) -> None:
    np.save(tmp_path / "a.npy", pixels(6, 4, 4))
    with pytest.raises(IndexError, match="counted from 0"):
        open_data(tmp_path / "a.npy").images[index]


@pytest.mark.parametrize("index", [3, torch.tensor(3), torch.tensor([0.0]), torch.tensor([True, False]), [1, 2]])
def test_other_indices_are_refused(tmp_path: Path, index: object) -> None:
    np.save(tmp_path / "a.npy", pixels(6, 4, 4))
    with pytest.raises(ShapeError, match="int64 tensor"):
        open_data(tmp_path / "a.npy").images[index]  # type: ignore[index]


def test_an_index_may_repeat_and_be_empty(tmp_path: Path) -> None:
    array = pixels(6, 4, 4)
    np.save(tmp_path / "a.npy", array)
    images = open_data(tmp_path / "a.npy").images
    assert np.array_equal(images[torch.tensor([5, 0, 5])].numpy()[:, 0], array[[5, 0, 5]])
    assert images[torch.tensor([], dtype=torch.int64)].shape == (0, 1, 4, 4)
    assert np.array_equal(images[1:4].numpy()[:, 0], array[1:4])


def test_stacked_arrays_of_different_lengths() -> None:
    parts = [pixels(length, 1, 2, 3, seed=length) for length in (3, 0, 5, 1, 2)]
    stacked, whole = StackedArrays(parts), np.concatenate(parts)
    assert stacked.shape == whole.shape and len(stacked) == 11
    for index in (torch.arange(11), torch.tensor([10, 3, 7, 3, 8, 0]), torch.tensor([2])):
        assert np.array_equal(stacked[index].numpy(), whole[index.numpy()])


def test_image_data_checks_its_parts() -> None:
    images = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    assert ImageData("own", images).shape == (1, 4, 4)
    with pytest.raises(ShapeError, match="without classes"):
        ImageData("own", images, torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ShapeError, match="one int64 label per image"):
        ImageData("own", images, torch.zeros(3, dtype=torch.int64), ("a",))
    with pytest.raises(ShapeError, match="one int64 label per image"):
        ImageData("own", images, torch.zeros(2), ("a",))
    with pytest.raises(ShapeError):
        ImageData("own", images[:, 0])


def test_stored_and_packed_arrays_in_one_archive(tmp_path: Path) -> None:
    array = pixels(4, 5, 6)
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        archive.writestr("images.npy", data_files.npy_bytes(array), zipfile.ZIP_STORED)
        archive.writestr("labels.npy", data_files.npy_bytes(np.arange(4)), zipfile.ZIP_DEFLATED)
    data = open_data(tmp_path / "set.npz")
    assert np.array_equal(everything(data)[:, 0], array)
    assert data.labels is not None and data.labels.tolist() == [0, 1, 2, 3]


def test_real_mnist(shared_file: Callable[..., Path]) -> None:
    folder = shared_file("data", "mnist")
    for split in SPLITS:
        data, old = open_data(folder, split), load_mnist(folder, split)
        assert data.name == "MNIST" and data.licence is not None and len(data) == len(old)
        assert isinstance(data.images, torch.Tensor) and torch.equal(data.images, old.images)
        assert data.labels is not None and torch.equal(data.labels, old.labels)
        assert data.classes == tuple("0123456789")
