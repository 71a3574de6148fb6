"""What a file is, by what is in it."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Literal

from pixelfast.data import cifar, idx, image_files, npy, zip_archive

Kind = Literal["IDX", "CIFAR-10", "npy", "zip", "image"]


def kind_of(path: Path) -> Kind | None:
    """The kind of a file, None if it is none that is read here.

    The first bytes decide. A name counts only where the content has no mark, or has lost it: CIFAR-10's binary
    batches, and images, so that a damaged one is an error and not passed over. Raises OSError when the file cannot
    be read.
    """
    with path.open("rb") as file:
        start = file.read(16)
    # First of all, because a record whose first pixels are dark starts as an IDX file does.
    if cifar.is_binary(path) and not (start.startswith(idx.MAGIC) and idx.is_consistent(path)):
        return "CIFAR-10"
    if start.startswith(idx.GZIP_MAGIC):
        start = _unpacked(path)
        return "IDX" if start.startswith(idx.MAGIC) or (not start and idx_name(path)) else None
    if start.startswith(idx.MAGIC) or (idx_name(path) and not start.startswith(b"PK")):
        return "IDX"
    if start.startswith(npy.MAGIC) or path.suffix == ".npy":
        return "npy"
    if start.startswith(zip_archive.MAGICS) or path.suffix in (".zip", ".npz"):
        return "zip"
    if start.startswith(cifar.PICKLE_MAGIC) or cifar.is_batch_name(path):
        return "CIFAR-10"
    if start.startswith(image_files.MAGICS) or path.suffix.lower() in image_files.ENDINGS:
        return "image"
    return None


def idx_name(path: Path) -> bool:
    """Whether a file is named as IDX files are: -idx3-ubyte, .idx1-ubyte, and so on, gzipped or not."""
    return path.name.removesuffix(".gz").endswith("-ubyte")


def _unpacked(path: Path) -> bytes:
    """The first bytes of what is gzipped, none where it is damaged."""
    try:
        with gzip.open(path) as file:
            return file.read(16)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return b""
