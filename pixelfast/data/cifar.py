"""CIFAR-10 in its binary and in its Python version.

Binary: records of one label byte and 3,072 bytes of image. Python: pickled dicts with `data`, uint8 (N, 3072), and
`labels`. Both hold the red, green and blue plane of 32 rows each (https://www.cs.toronto.edu/~kriz/cifar.html).
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pixelfast.data import known
from pixelfast.data.batch_pickle import read_batch_pickle
from pixelfast.data.image_data import ImageData
from pixelfast.data.labels import as_labels, numbered_classes
from pixelfast.data.splits import SplitName, choose
from pixelfast.data.stacked import StackedArrays
from pixelfast.errors import PixelfastError, ShapeError

RECORD = 1 + 3 * 32 * 32
CLASSES = 10
PICKLE_MAGIC = b"\x80"
_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST = ("test_batch",)
_META = ("batches.meta", "batches.meta.txt")
_SPLIT_OF = {**dict.fromkeys(_TRAIN, "train"), **dict.fromkeys(_TEST, "test")}


def is_binary(path: Path) -> bool:
    """Whether a file's size is whole records, and every record starts with a label 0..9."""
    size = path.stat().st_size
    if size == 0 or size % RECORD:
        return False
    return int(_map(path)[::RECORD].max()) < CLASSES


def is_batch_name(path: Path) -> bool:
    """Whether a file is named as CIFAR-10's batches, or as the list of their classes."""
    return path.stem in _SPLIT_OF or path.name in _META


def open_cifar(paths: Sequence[Path], split: SplitName, where: Path) -> ImageData:
    """A split out of CIFAR-10's batches, binary or Python, or one batch alone.

    Raises PixelfastError when a batch of the split is missing or damaged.
    """
    batches = [path for path in paths if path.name not in _META]
    chosen = sorted(choose(batches, split, where, lambda path: _SPLIT_OF.get(path.stem)), key=lambda path: path.stem)
    if where.is_dir():
        _check_complete(chosen, split, where)
    parts, labels = zip(*(_read(path) for path in chosen), strict=True)
    found = torch.cat(labels)
    classes = _class_names(path for path in paths if path.name in _META)
    if classes == known.CIFAR10_CLASSES:
        return ImageData(known.CIFAR10, StackedArrays(parts), found, classes, licence=known.CIFAR10_LICENCE)
    if classes is None or len(classes) <= int(found.max()):
        classes = numbered_classes(found, torch.tensor([CLASSES - 1]))
    return ImageData(where.name, StackedArrays(parts), found, classes)


def _check_complete(chosen: Sequence[Path], split: SplitName, where: Path) -> None:
    wanted, found = _TRAIN if split == "train" else _TEST, [path.stem for path in chosen]
    missing = [name for name in wanted if name not in found]
    if missing or len(found) != len(wanted):
        what = f"lacks {', '.join(missing)}" if missing else f"holds {', '.join(path.name for path in chosen)}"
        raise PixelfastError(
            f"{where} {what}; CIFAR-10's {split} split is {', '.join(wanted)}, once each; give one file to read it "
            "alone"
        )


def _read(path: Path) -> tuple[np.ndarray, Tensor]:
    """Images (N, 3, 32, 32), mapped where they are binary, and labels."""
    with path.open("rb") as file:
        pickled = file.read(1) == PICKLE_MAGIC
    return _read_pickled(path) if pickled else _read_binary(path)


def _read_binary(path: Path) -> tuple[np.ndarray, Tensor]:
    size = path.stat().st_size
    if size == 0 or size % RECORD:
        raise PixelfastError(
            f"{path} is truncated or no CIFAR-10 batch: it has {size} bytes, and records of {RECORD} are read; "
            "copy it again"
        )
    records = _map(path).reshape(-1, RECORD)
    labels = as_labels(records[:, 0], len(records), path)
    if int(labels.max()) >= CLASSES:
        raise PixelfastError(
            f"{path} is damaged or no CIFAR-10 batch: it holds the label {int(labels.max())}; labels are 0 to 9"
        )
    return records[:, 1:].reshape(-1, 3, 32, 32), labels


def _read_pickled(path: Path) -> tuple[np.ndarray, Tensor]:
    batch = _read_pickle(path)
    data, labels = batch.get("data"), batch.get("labels")
    if data is None or labels is None:
        raise PixelfastError(f"{path} holds {', '.join(batch) or 'nothing'}; CIFAR-10's batches hold data and labels")
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != RECORD - 1:
        what = f"{data.shape} values" if isinstance(data, np.ndarray) else f"a {type(data).__name__}"
        raise ShapeError(f"{path} holds {what} as data; CIFAR-10 has uint8 (N, 3072)")
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < CLASSES for label in labels):
        raise ShapeError(f"{path} holds labels that are no list of the integers 0 to 9, which CIFAR-10 has")
    return data.reshape(-1, 3, 32, 32), as_labels(np.array(labels, dtype=np.int64), len(data), path)


def _read_pickle(path: Path) -> dict[str, object]:
    batch = read_batch_pickle(path.read_bytes(), path)
    return {key.decode("latin-1") if isinstance(key, bytes) else key: value for key, value in batch.items()}


def _class_names(paths: Iterable[Path]) -> tuple[str, ...] | None:
    """From batches.meta or batches.meta.txt, where it is there."""
    for path in paths:
        if path.suffix == ".txt":
            return tuple(line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip())
        names = _read_pickle(path).get("label_names")
        if not isinstance(names, list) or not all(isinstance(name, bytes | str) for name in names):
            raise PixelfastError(f"{path} holds no label_names; copy CIFAR-10's batches.meta again")
        return tuple(name.decode("latin-1") if isinstance(name, bytes) else name for name in names)
    return None


def _map(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)
