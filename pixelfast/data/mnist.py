"""MNIST by its own file names, as tensors. `open_data` reads it too, and says more about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from pixelfast.data.idx import read_idx
from pixelfast.data.splits import SplitName, check_split
from pixelfast.errors import PixelfastError, ShapeError

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


def load_mnist(folder: str | Path, split: SplitName) -> Split:
    """Read one split from a folder that holds MNIST's IDX files.

    The files may be gzipped or not, named `train-images-idx3-ubyte` or `train-images.idx3-ubyte`, and lie in
    `folder` itself or where torchvision puts them (`folder/MNIST/raw`).

    Raises PixelfastError when a file is missing or damaged, ShapeError when it holds something else than
    28x28 images or one label 0..9 per image.
    """
    check_split(split)
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
