"""MNIST in its own IDX files, plain or gzipped.

IDX (described by LeCun, Cortes and Burges on the MNIST page): two zero bytes, a type code, the number of
dimensions, one big-endian uint32 per dimension, then the values in C order.
"""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from pixelfast.errors import PixelfastError, ShapeError

_GZIP_MAGIC = b"\x1f\x8b"
_UNSIGNED_BYTE = 0x08
_FILE_PREFIX = {"train": "train", "test": "t10k"}
# torchvision keeps the same files two folders further down.
_SUBFOLDERS = ("", "MNIST/raw", "raw")


@dataclass(frozen=True)
class Split:
    """One split of MNIST: `images` uint8 (N, 1, 28, 28), levels 0..255; `labels` int64 (N,), digits 0..9."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.images)


def load_mnist(folder: str | Path, split: Literal["train", "test"]) -> Split:
    """Read one split from a folder that holds MNIST's IDX files.

    The files may be gzipped or not, named `train-images-idx3-ubyte` or `train-images.idx3-ubyte`, and lie in
    `folder` itself or where torchvision puts them (`folder/MNIST/raw`).

    Raises PixelfastError when a file is missing or damaged, ShapeError when it holds something else than
    28x28 images or one label 0..9 per image.
    """
    prefix = _FILE_PREFIX[split]
    images_path = _find(Path(folder), f"{prefix}-images", "idx3-ubyte")
    labels_path = _find(Path(folder), f"{prefix}-labels", "idx1-ubyte")

    images = read_idx(images_path)
    if images.dim() != 3 or images.shape[1:] != (28, 28) or len(images) == 0:
        raise ShapeError(f"{images_path} holds {tuple(images.shape)} values; MNIST images are (N, 28, 28)")
    labels = read_idx(labels_path)
    if labels.shape != images.shape[:1]:
        raise ShapeError(
            f"{labels_path} holds {tuple(labels.shape)} labels for {len(images)} images; one label per image is needed"
        )
    if int(labels.max()) > 9:
        raise ShapeError(f"{labels_path} holds the label {int(labels.max())}; MNIST labels are the digits 0 to 9")
    return Split(images.unsqueeze(1), labels.long())


def read_idx(path: str | Path) -> torch.Tensor:
    """Read one IDX file of unsigned bytes, gzipped or plain, as a uint8 tensor of the shape its header gives.

    Raises PixelfastError when the file cannot be read, is no such IDX file, or is shorter or longer than its
    header says.
    """
    content = _read_bytes(Path(path))
    if len(content) < 4 or content[:2] != b"\x00\x00" or content[2] != _UNSIGNED_BYTE:
        raise PixelfastError(
            f"{path} is not an IDX file of unsigned bytes: it must start with 00 00 08 and the number of "
            f"dimensions, and starts with {content[:4].hex(' ') or 'nothing'}"
        )
    dimensions = content[3]
    header = 4 + 4 * dimensions
    if dimensions == 0 or len(content) < header:
        raise PixelfastError(
            f"{path} is damaged: its header announces {dimensions} dimensions, "
            f"and the whole file has {len(content)} bytes"
        )
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, header, 4))
    expected, found = math.prod(shape), len(content) - header
    if found != expected:
        what = "truncated" if found < expected else "too long"
        raise PixelfastError(
            f"{path} is {what}: shape {shape} needs {expected} values, the file holds {found}; copy it again"
        )
    if expected == 0:
        return torch.empty(shape, dtype=torch.uint8)
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=header).reshape(shape)


def _read_bytes(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content.startswith(_GZIP_MAGIC) else content
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise PixelfastError(f"{path} is a damaged or truncated gzip file ({error}); copy it again") from error
    except OSError as error:
        raise PixelfastError(f"cannot read {path}: {error.strerror or error}") from error


def _find(folder: Path, stem: str, kind: str) -> Path:
    """The first of a file's usual names that exists under `folder`."""
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise PixelfastError(f"data folder {folder} {what}; give the folder that holds MNIST's IDX files")
    names = [f"{stem}{separator}{kind}{ending}" for separator in "-." for ending in ("", ".gz")]
    for subfolder in _SUBFOLDERS:
        for name in names:
            path = folder / subfolder / name
            if path.is_file():
                return path
    raise PixelfastError(f"{folder} holds no {stem}-{kind} or {stem}-{kind}.gz; give the folder of MNIST's IDX files")
