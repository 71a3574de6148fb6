"""IDX files, plain or gzipped: the format of MNIST, Fashion-MNIST, KMNIST and EMNIST.

IDX (described by LeCun, Cortes and Burges on the MNIST page): two zero bytes, a type code, the number of
dimensions, one big-endian uint32 per dimension, then the values in C order.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from pixelfast.data import known
from pixelfast.data.array_images import as_images
from pixelfast.data.image_data import ImageData
from pixelfast.data.labels import as_labels, numbered_classes
from pixelfast.data.splits import SplitName, choose, split_of
from pixelfast.errors import PixelfastError

GZIP_MAGIC = b"\x1f\x8b"
MAGIC = b"\x00\x00\x08"
# Deflate makes at most 1,032 bytes of one, so a header that announces more is wrong: nothing is allocated for it.
_DEFLATE_LIMIT = 1032


def read_idx(path: str | Path) -> Tensor:
    """Read one IDX file of unsigned bytes, gzipped or plain, as a uint8 tensor of the shape its header gives.

    Raises PixelfastError when the file cannot be read, is no such IDX file, or is shorter or longer than its
    header says.
    """
    with _content(Path(path)) as (file, most):
        shape = _read_header(file, path)
        expected = math.prod(shape)
        if expected > most:
            raise PixelfastError(
                f"{path} is truncated: shape {shape} needs {expected} values, the file cannot hold more than {most}; "
                "copy it again"
            )
        values = bytearray(file.read(expected))
        if len(values) < expected:
            raise PixelfastError(
                f"{path} is truncated: shape {shape} needs {expected} values, the file holds {len(values)}; "
                "copy it again"
            )
        if file.read(1):
            raise PixelfastError(f"{path} is too long: shape {shape} needs {expected} values, the file holds more")
    if expected == 0:
        return torch.empty(shape, dtype=torch.uint8)
    return torch.frombuffer(values, dtype=torch.uint8).reshape(shape)


def open_idx(paths: Iterable[Path], split: SplitName, where: Path) -> ImageData:
    """The asked split out of IDX files: one of images, and one of labels where it exists, by their dimensions.

    Raises PixelfastError when the split is missing or ambiguous, ShapeError when labels and images do not fit.
    """
    images, labels, classes = read_split(paths, split, where)
    if labels is None:
        return ImageData(where.name, images)
    assert classes is not None
    if known.is_mnist(labels):
        return ImageData(known.MNIST, images, labels, classes, licence=known.MNIST_LICENCE)
    return ImageData(where.name, images, labels, classes)


def read_split(
    paths: Iterable[Path], split: SplitName, where: Path
) -> tuple[Tensor, Tensor | None, tuple[str, ...] | None]:
    """Images uint8 (N, C, H, W), labels int64 (N,) or None, classes or None. Raises as `open_idx`."""
    files = list(_without_twins(paths))
    dimensions = {path: len(_shape(path)) for path in files}
    chosen = choose(files, split, where, lambda path: split_of(path.name))
    image_files = [path for path in chosen if dimensions[path] in (3, 4)]
    label_files = [path for path in chosen if dimensions[path] == 1]
    if len(image_files) != 1 or len(label_files) > 1:
        raise PixelfastError(
            f"{where} holds {len(image_files)} IDX files of images and {len(label_files)} of labels for {split} "
            f"({', '.join(sorted(path.name for path in chosen))}); one of images and at most one of labels are read"
        )
    images = torch.from_numpy(as_images(read_idx(image_files[0]).numpy(), image_files[0]))
    if not label_files:
        return images, None, None
    labels = as_labels(read_idx(label_files[0]).numpy(), len(images), label_files[0])
    # A split need not show every class: all labels of the folder count.
    others = [read_idx(path) for path in files if dimensions[path] == 1 and path != label_files[0]]
    return images, labels, numbered_classes(labels, *others)


def is_consistent(path: Path) -> bool:
    """Whether a plain IDX file is as long as its header says."""
    try:
        shape = _shape(path)
        return path.stat().st_size == 4 + 4 * len(shape) + math.prod(shape)
    except PixelfastError:
        return False


def _without_twins(paths: Iterable[Path]) -> Iterator[Path]:
    """Leaves out `name.gz` where `name` lies beside it: torchvision keeps both."""
    files = set(paths)
    return (path for path in sorted(files) if path.suffix != ".gz" or path.with_suffix("") not in files)


def _shape(path: Path) -> tuple[int, ...]:
    with _content(path) as (file, _):
        return _read_header(file, path)


def _read_header(file: IO[bytes], path: str | Path) -> tuple[int, ...]:
    start = file.read(4)
    if len(start) < 4 or not start.startswith(MAGIC):
        raise PixelfastError(
            f"{path} is not an IDX file of unsigned bytes: it must start with 00 00 08 and the number of "
            f"dimensions, and starts with {start.hex(' ') or 'nothing'}"
        )
    dimensions = start[3]
    sizes = file.read(4 * dimensions)
    if dimensions == 0 or len(sizes) < 4 * dimensions:
        raise PixelfastError(
            f"{path} is damaged: its header announces {dimensions} dimensions, "
            f"and the whole file has {len(start) + len(sizes)} bytes"
        )
    return tuple(int.from_bytes(sizes[at : at + 4], "big") for at in range(0, len(sizes), 4))


@contextmanager
def _content(path: Path) -> Iterator[tuple[IO[bytes], int]]:
    """The file's content, unpacked where it is gzipped, and how many bytes that can be at most."""
    try:
        with path.open("rb") as raw:
            size = path.stat().st_size
            packed = raw.read(2) == GZIP_MAGIC
            raw.seek(0)
            if not packed:
                yield raw, size
                return
            with gzip.open(raw) as file:
                yield file, _DEFLATE_LIMIT * size  # type: ignore[misc]  # GzipFile reads like a BinaryIO
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise PixelfastError(f"{path} is a damaged or truncated gzip file ({error}); copy it again") from error
    except OSError as error:
        raise PixelfastError(f"cannot read {path}: {error.strerror or error}") from error
