"""JPEG and PNG files in a folder or a zip archive, decoded when they are asked for."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pixelfast.data.image_data import ImageData
from pixelfast.data.image_tree import arrange
from pixelfast.data.splits import SplitName
from pixelfast.data.stacked import as_rows
from pixelfast.data.zip_archive import ZipArchive, is_hidden
from pixelfast.errors import PixelfastError, ShapeError

ENDINGS = (".jpg", ".jpeg", ".png")
MAGICS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
# Passed over, these would make a part of a data set look like the whole of it.
_OTHER_ENDINGS = (".bmp", ".gif", ".heic", ".jp2", ".tif", ".tiff", ".webp")
# Decoded images are kept up to this many bytes: the whole of CIFAR-10, a part of larger sets.
CACHE_BYTES = 256 << 20
# Guards against a file of a few bytes that unpacks to gigabytes. 4096 x 4096.
_MOST_PIXELS = 1 << 24
_MOST_BYTES = 64 << 20
_CHANNELS = {"1": 1, "L": 1, "P": 3, "RGB": 3}


@dataclass(frozen=True)
class ImageFiles:
    """Files by number: their names, paths with '/' below the folder or archive, and how to read one."""

    names: list[str]
    read: Callable[[int], bytes]


def files_in_folder(folder: Path) -> ImageFiles:
    """The image files anywhere below a folder, sorted by name; hidden ones are left out."""
    names = sorted(_walk(folder, "", ()))

    def read(number: int) -> bytes:
        path = folder / names[number]
        try:
            if path.stat().st_size > _MOST_BYTES:
                raise PixelfastError(f"{path} has more than {_MOST_BYTES >> 20} MiB, more than is read")
            return path.read_bytes()
        except OSError as error:
            raise PixelfastError(f"cannot read {path}: {error.strerror or error}") from error

    return ImageFiles(names, read)


def files_in_zip(archive: ZipArchive) -> ImageFiles:
    """The image files anywhere in a zip archive, sorted by name."""
    numbers = [number for number, name in enumerate(archive.names) if is_image_name(name, archive.path)]

    def read(number: int) -> bytes:
        if archive.size(numbers[number]) > _MOST_BYTES:
            raise PixelfastError(
                f"{archive.path} holds {archive.names[numbers[number]]!r} of more than {_MOST_BYTES >> 20} "
                "MiB, more than is read"
            )
        return archive.read(numbers[number])

    return ImageFiles([archive.names[number] for number in numbers], read)


def side_by_side(parts: dict[str, ImageFiles]) -> ImageFiles:
    """Several sets of files as if each lay in a folder of its own."""
    places = [(each, number) for each in parts.values() for number in range(len(each.names))]
    names = [f"{folder}/{name}" for folder, each in parts.items() for name in each.names]
    return ImageFiles(names, lambda number: places[number][0].read(places[number][1]))


def is_image_name(name: str, where: object) -> bool:
    """Whether a name ends as JPEG and PNG files do. Raises PixelfastError for other formats of images."""
    ending = os.path.splitext(name)[1].lower()
    if ending in _OTHER_ENDINGS:
        raise PixelfastError(f"{where} holds {name!r}; JPEG and PNG images are read: convert it, or move it away")
    return ending in ENDINGS


def open_images(files: ImageFiles, split: SplitName, where: Path) -> ImageData:
    """A split of image files. Every file's header is read now, its pixels when they are asked for.

    Raises PixelfastError when there are none, or one is damaged, or none of grey, colour and palette of 8 bits;
    ShapeError when their sizes differ.
    """
    if not files.names:
        raise PixelfastError(f"{where} holds no JPEG or PNG images; give the folder or zip archive that does")
    arranged = arrange(files.names, split, where)
    chosen = ImageFiles(
        [files.names[number] for number in arranged.files], lambda number: files.read(arranged.files[number])
    )
    images = DecodedImages(chosen, where)
    labels = None if arranged.labels is None else torch.tensor(arranged.labels)
    return ImageData(where.name, images, labels, arranged.classes)


class DecodedImages:
    """Image files as uint8 (N, C, H, W): C = 1 if all are grey, else 3.

    The first images, as many as CACHE_BYTES hold, stay in memory once decoded. An epoch asks for every image once, so
    it does not matter which ones stay, and making room for others would throw away what the next epoch needs.
    """

    def __init__(self, files: ImageFiles, where: object) -> None:
        self._files = files
        self._where = where
        headers = [self._header(number) for number in range(len(files.names))]
        sizes = {size: number for number, (size, _) in reversed(list(enumerate(headers)))}
        if len(sizes) > 1:
            (width, height), (other_width, other_height) = list(sizes)[-1], list(sizes)[-2]
            raise ShapeError(
                f"{where} holds images of different sizes: {files.names[sizes[width, height]]!r} is {width}x{height}, "
                f"{files.names[sizes[other_width, other_height]]!r} {other_width}x{other_height}; bring all to one size"
            )
        ((width, height),) = sizes
        self.shape: tuple[int, ...] = (len(headers), max(channels for _, channels in headers), height, width)
        slots = min(len(headers), CACHE_BYTES // (self.shape[1] * height * width))
        self._kept = np.empty((slots, *self.shape[1:]), dtype=np.uint8)
        self._is_kept = np.zeros(slots, dtype=bool)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Tensor | slice, /) -> Tensor:
        rows = as_rows(index, len(self))
        out = np.empty((len(rows), *self.shape[1:]), dtype=np.uint8)
        for at, row in enumerate(rows.tolist()):
            out[at] = self._image(row)
        return torch.from_numpy(out)

    def _image(self, number: int) -> np.ndarray:
        """(C, H, W)."""
        keep = number < len(self._kept)
        if keep and self._is_kept[number]:
            return self._kept[number]
        image = self._decode(number)
        if keep:
            self._kept[number] = image
            self._is_kept[number] = True
        return image

    def _header(self, number: int) -> tuple[tuple[int, int], int]:
        """(width, height) and channels, read from the file's header."""
        with self._opened(number) as image:
            return image.size, _CHANNELS[image.mode]

    def _decode(self, number: int) -> np.ndarray:
        channels, height, width = self.shape[1:]
        with self._opened(number) as image:
            if image.size != (width, height):
                raise self._damaged(number, "its size has changed since it was opened")
            try:
                pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
            except Exception as error:  # Pillow raises whatever its decoders do: OSError, SyntaxError, struct.error ...
                raise self._damaged(number, error) from error
        return pixels.reshape(height, width, channels).transpose(2, 0, 1)

    def _opened(self, number: int) -> Image.Image:
        content = io.BytesIO(self._files.read(number))
        try:
            image = Image.open(content, formats=("JPEG", "PNG"))
        except Exception as error:  # as above
            raise self._damaged(number, error) from error
        if image.width * image.height > _MOST_PIXELS:
            raise self._damaged(number, f"it announces {image.width}x{image.height} pixels, more than is read")
        if image.mode not in _CHANNELS or "transparency" in image.info:
            mode = f"{image.mode} with transparency" if "transparency" in image.info else image.mode
            raise PixelfastError(
                f"{self._where} holds {self._files.names[number]!r} of Pillow's mode {mode}; grey, colour and palette "
                "images of 8 bits without transparency are read: convert it"
            )
        return image

    def _damaged(self, number: int, reason: object) -> PixelfastError:
        name = self._files.names[number]
        # Pillow's own message repeats the address of our buffer.
        text = "no JPEG or PNG" if "cannot identify" in str(reason) else " ".join(str(reason).split())
        return PixelfastError(f"{self._where} holds a damaged image, {name!r} ({text}); replace it or move it away")


def _walk(folder: Path, prefix: str, above: Sequence[tuple[int, int]]) -> Iterator[str]:
    """Names of image files below a folder. Links are followed; one that leads back up is an error."""
    status = os.stat(folder)
    here = (status.st_dev, status.st_ino)
    if here in above:
        raise PixelfastError(f"{folder} links back to a folder it lies in; remove the link")
    for entry in os.scandir(folder):
        if is_hidden(entry.name):
            continue
        if entry.is_dir():
            yield from _walk(folder / entry.name, f"{prefix}{entry.name}/", (*above, here))
        elif is_image_name(entry.name, folder):
            yield f"{prefix}{entry.name}"
