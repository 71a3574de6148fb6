"""Tiny data sets in every format that is read, written without the code under test."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SPLITS = ("train", "test")
COUNT = {"train": 6, "test": 4}
CIFAR_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def idx_bytes(values: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    return header + values.astype(np.uint8).tobytes()


def png(image: np.ndarray, **options: Any) -> bytes:
    """(H, W) or (H, W, 3) uint8 as PNG, without loss."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", **options)
    return file.getvalue()


def jpeg(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=95)
    return file.getvalue()


def npy_bytes(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=True)
    return file.getvalue()


def write_zip(path: Path, files: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tree(folder: Path, files: Mapping[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def write_mnist(folder: Path, *, packed: bool = True, size: int = 28) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images (N, H, W) and labels of both splits, as written."""
    folder.mkdir(parents=True, exist_ok=True)
    sets = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        count = COUNT[split]
        images, labels = pixels(count, size, size, seed=count), np.arange(count) % 10
        sets[split] = images, labels
        for name, values in (("images-idx3", images), ("labels-idx1", labels)):
            content = idx_bytes(values)
            path = folder / f"{prefix}-{name}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(content) if packed else content)
    return sets


class Python2Pickle:
    """Writes pickle protocol 2 as Python 2 did for CIFAR-10: byte strings, and numpy arrays through _reconstruct."""

    def __init__(self) -> None:
        self._out = bytearray(b"\x80\x02")

    def dump(self, value: Any) -> bytes:
        self._write(value)
        return bytes(self._out + b".")

    def _write(self, value: Any) -> None:
        if isinstance(value, str):
            content = value.encode("latin-1")
            self._out += b"U" + bytes([len(content)]) + content
        elif isinstance(value, bytes):
            self._out += b"T" + struct.pack("<i", len(value)) + value
        elif isinstance(value, bool):
            self._out += b"\x88" if value else b"\x89"
        elif isinstance(value, int):
            self._out += b"K" + bytes([value]) if 0 <= value < 256 else b"J" + struct.pack("<i", value)
        elif value is None:
            self._out += b"N"
        elif isinstance(value, list):
            self._out += b"]q\x00("
            for each in value:
                self._write(each)
            self._out += b"e"
        elif isinstance(value, tuple):
            self._out += b"("
            for each in value:
                self._write(each)
            self._out += b"t"
        elif isinstance(value, dict):
            self._out += b"}("
            for key, each in value.items():
                self._write(key)
                self._write(each)
            self._out += b"u"
        elif isinstance(value, np.ndarray):
            self._out += b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
            self._write((0,))
            self._write("b")
            self._out += b"tR("
            self._write(1)
            self._write(value.shape)
            self._out += b"cnumpy\ndtype\n"
            self._write((value.dtype.str[1:], 0, 1))
            self._out += b"R"
            self._write((3, value.dtype.str[0], None, None, None, -1, -1, 0))
            self._out += b"b"
            self._write(False)
            self._write(value.tobytes())
            self._out += b"tb"
        else:
            raise TypeError(type(value))


def cifar_batch(count: int, seed: int) -> tuple[np.ndarray, list[int]]:
    """Images (N, 3, 32, 32) and labels."""
    return pixels(count, 3, 32, 32, seed=seed), [(number + seed) % 10 for number in range(count)]


def write_cifar(folder: Path, *, binary: bool) -> dict[str, tuple[np.ndarray, list[int]]]:
    """All six batches of CIFAR-10, three images each, with the list of classes."""
    folder.mkdir(parents=True, exist_ok=True)
    sets: dict[str, list[tuple[np.ndarray, list[int]]]] = {"train": [], "test": []}
    for number, name in enumerate(
        ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"]
    ):
        images, labels = cifar_batch(3, number)
        sets["test" if name == "test_batch" else "train"].append((images, labels))
        if binary:
            records = np.concatenate([np.array(labels, np.uint8)[:, None], images.reshape(3, -1)], axis=1)
            (folder / f"{name}.bin").write_bytes(records.tobytes())
        else:
            names = [f"picture_{at}.png" for at in range(3)]
            batch = {"batch_label": name, "labels": labels, "data": images.reshape(3, -1), "filenames": names}
            (folder / name).write_bytes(Python2Pickle().dump(batch))
    if binary:
        (folder / "batches.meta.txt").write_text("\n".join(CIFAR_CLASSES) + "\n\n")
    else:
        meta = {"num_cases_per_batch": 10000, "label_names": CIFAR_CLASSES, "num_vis": 3072}
        (folder / "batches.meta").write_bytes(Python2Pickle().dump(meta))
    (folder / "readme.html").write_text("<html></html>")
    return {
        split: (np.concatenate([a for a, _ in each]), [label for _, b in each for label in b])
        for split, each in sets.items()
    }


def write_imagenet(folder: Path, *, size: int = 8, packed: bool = False) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Ten train batches of two images and one validation batch; labels 1..1000."""
    folder.mkdir(parents=True, exist_ok=True)
    save = np.savez_compressed if packed else np.savez
    sets: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"train": [], "test": []}
    for number in range(11):
        images, labels = pixels(2, 3, size, size, seed=number), np.array([1 + 90 * number, 1000 - number])
        name = f"train_data_batch_{number + 1}" if number < 10 else "val_data"
        extra = {"mean": np.zeros(3 * size * size)} if number < 10 else {}
        save(folder / f"{name}.npz", data=images.reshape(2, -1), labels=labels, **extra)
        sets["train" if number < 10 else "test"].append((images, labels))
    return {
        split: (np.concatenate([a for a, _ in each]), np.concatenate([b for _, b in each]))
        for split, each in sets.items()
    }


def class_tree(
    splits: Sequence[str] = ("train/", "test/"), classes: Sequence[str] = ("bee", "ant", "cat"), *, grey: bool = False
) -> tuple[dict[str, bytes], dict[str, np.ndarray]]:
    """PNG files split/class/number.png, and the same images as (C, H, W) by name."""
    files, images = {}, {}
    for at, split in enumerate(splits):
        for also, kind in enumerate(classes):
            for number in range(2):
                image = pixels(5, 7, *(() if grey else (3,)), seed=100 * at + 10 * also + number)
                name = f"{split}{kind}/{number}.png"
                files[name] = png(image)
                images[name] = image[None] if grey else image.transpose(2, 0, 1)
    return files, images
