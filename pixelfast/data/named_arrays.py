"""Images in arrays that have names: an .npz file, an .npy file, or a folder of .npy files."""

from __future__ import annotations

import io
import mmap
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pixelfast.data.array_images import as_images
from pixelfast.data.image_data import ImageData
from pixelfast.data.labels import as_labels, numbered_classes
from pixelfast.data.npy import MAX_HEADER, Header, read_header
from pixelfast.data.splits import SplitName, choose, split_of, without_split
from pixelfast.data.stacked import StackedArrays
from pixelfast.data.zip_archive import ZipArchive
from pixelfast.errors import PixelfastError


class NamedArrays(ABC):
    """Arrays by name. Their headers are read at once, their values only when asked for."""

    headers: dict[str, Header]

    @abstractmethod
    def array(self, name: str) -> np.ndarray:
        """One array, mapped where it can be. Raises PixelfastError when it is damaged."""

    def describe(self) -> str:
        """Every name with dtype and shape, for messages."""
        return ", ".join(f"{name} {each.dtype} {each.shape}" for name, each in self.headers.items()) or "no arrays"


class NpzFile(NamedArrays):
    """An .npz file: a zip archive of .npy arrays. Stored ones are mapped, packed ones are read into memory."""

    def __init__(self, path: Path) -> None:
        self._archive = ZipArchive(path)
        self._numbers = {name.removesuffix(".npy"): number for number, name in enumerate(self._archive.names)}
        self.headers = {}
        for name, number in self._numbers.items():
            start = io.BytesIO(self._archive.head(number, MAX_HEADER))
            self.headers[name] = read_header(start, self._archive.size(number), f"{path}[{name!r}]")

    def array(self, name: str) -> np.ndarray:
        number, header = self._numbers[name], self.headers[name]
        content = self._archive.map(number) if self._archive.is_stored(number) else self._archive.read(number)
        return header.array(memoryview(content)[header.offset :])


class NpyFiles(NamedArrays):
    """.npy files, mapped, each named as its file is."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = {path.stem: path for path in sorted(paths)}
        self.headers = {}
        for name, path in self._paths.items():
            with path.open("rb") as file:
                self.headers[name] = read_header(file, path.stat().st_size, path)

    def array(self, name: str) -> np.ndarray:
        path, header = self._paths[name], self.headers[name]
        with path.open("rb") as file:
            whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return header.array(memoryview(whole)[header.offset :])


def open_arrays(arrays: NamedArrays, split: SplitName, where: Path) -> ImageData:
    """The one array of images of a split, and its labels where there are any.

    Images are the uint8 array of 3 or 4 dimensions, labels an integer array (N,) or (N, 1). Where names tell
    splits apart (`x_train`, `test_images`), only the asked one counts. Raises PixelfastError when that leaves no
    or several arrays to choose from, ShapeError when they do not fit.
    """
    chosen = choose(arrays.headers, split, where, split_of)
    candidates = [name for name in chosen if len(arrays.headers[name].shape) in (3, 4)]
    images = [name for name in candidates if arrays.headers[name].dtype == np.uint8] or candidates
    if len(images) != 1:
        raise PixelfastError(
            f"{where} holds {len(images) or 'no'} arrays that could be the images of {split}; "
            f"exactly one with 3 or 4 dimensions is read, and it holds {arrays.describe()}"
        )
    views = StackedArrays([as_images(arrays.array(images[0]), f"{where}[{images[0]!r}]")])
    labels = [name for name in chosen if _could_be_labels(arrays.headers[name], len(views))]
    if len(labels) > 1:
        raise PixelfastError(
            f"{where} holds several arrays that could be the labels of {split}: {', '.join(labels)}; keep one"
        )
    if not labels:
        return ImageData(where.name, views)
    found = as_labels(arrays.array(labels[0]), len(views), f"{where}[{labels[0]!r}]")
    # A split need not show every class: the labels of the other split count too.
    others = [
        as_labels(arrays.array(name), header.shape[0], f"{where}[{name!r}]")
        for name, header in arrays.headers.items()
        if name not in chosen and without_split(name) == without_split(labels[0]) and _could_be_labels(header)
    ]
    return ImageData(where.name, views, found, numbered_classes(found, *others))


def _could_be_labels(header: Header, images: int | None = None) -> bool:
    if header.dtype.kind not in "iu" or len(header.shape) not in (1, 2):
        return False
    return header.shape[1:] in ((), (1,)) and (images is None or header.shape[0] == images)
