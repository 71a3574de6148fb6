"""Damaged files of every kind: one clear line each, or images of the right shape; never another exception."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import data_files
import numpy as np
import pytest
import torch

from pixelfast.data import open_data
from pixelfast.errors import PixelfastError


def idx_plain(folder: Path) -> Path:
    data_files.write_mnist(folder, packed=False, size=6)
    return folder / "train-images-idx3-ubyte"


def idx_packed(folder: Path) -> Path:
    data_files.write_mnist(folder, packed=True, size=6)
    return folder / "train-labels-idx1-ubyte.gz"


def cifar_binary(folder: Path) -> Path:
    data_files.write_cifar(folder, binary=True)
    return folder / "data_batch_3.bin"


def cifar_python(folder: Path) -> Path:
    folder.mkdir()
    images, labels = data_files.cifar_batch(1, 0)
    batch = {"batch_label": "training", "labels": labels, "data": images.reshape(1, -1), "filenames": ["a.png"]}
    path = folder / "data_batch_1"
    path.write_bytes(data_files.Python2Pickle().dump(batch))
    return path


def cifar_names(folder: Path) -> Path:
    data_files.write_cifar(folder, binary=False)
    return folder / "batches.meta"


def imagenet(folder: Path) -> Path:
    data_files.write_imagenet(folder, size=2)
    return folder / "train_data_batch_4.npz"


def imagenet_packed(folder: Path) -> Path:
    data_files.write_imagenet(folder, size=2, packed=True)
    return folder / "train_data_batch_4.npz"


def npy(folder: Path) -> Path:
    folder.mkdir()
    np.save(folder / "train.npy", data_files.pixels(3, 4, 6))
    return folder / "train.npy"


def images_zip(folder: Path) -> Path:
    folder.mkdir()
    files, _ = data_files.class_tree(("",), classes=("ant", "bee"))
    return data_files.write_zip(folder / "train.zip", files)


def images_zip_packed(folder: Path) -> Path:
    folder.mkdir()
    files, _ = data_files.class_tree(("",), classes=("ant", "bee"))
    return data_files.write_zip(folder / "train.zip", files, 8)


def images_png(folder: Path) -> Path:
    folder.mkdir()
    for number in range(2):
        (folder / f"{number}.png").write_bytes(data_files.png(data_files.pixels(5, 7, 3, seed=number)))
    return folder / "1.png"


def images_jpeg(folder: Path) -> Path:
    folder.mkdir()
    for number in range(2):
        (folder / f"{number}.jpg").write_bytes(data_files.jpeg(data_files.pixels(8, 8, 3, seed=number)))
    return folder / "0.jpg"


KINDS: list[Callable[[Path], Path]] = [
    idx_plain,
    idx_packed,
    cifar_binary,
    cifar_python,
    cifar_names,
    imagenet,
    imagenet_packed,
    npy,
    images_zip,
    images_zip_packed,
    images_png,
    images_jpeg,
]
# What a reader can know to be damaged: formats with checksums or with every byte accounted for.
CHECKED = {idx_packed, imagenet, imagenet_packed, images_zip, images_zip_packed}


def openable(path: Path) -> list[Path]:
    """The file and its folder, as far as each is a data set while it is whole."""
    places = [place for place in (path, path.parent) if reads(place) is None]
    assert places
    return places


def reads(path: Path) -> str | None:
    """Opens and reads everything: None, or the message of the one accepted error."""
    try:
        data = open_data(path)
        images = data.images[torch.arange(len(data))]
    except PixelfastError as error:
        message = str(error)
        assert message and "\n" not in message and len(message) < 1000, message
        return message
    assert images.dtype == torch.uint8 and tuple(images.shape) == (len(data), *data.shape)
    if data.labels is not None:
        assert data.classes is not None
        assert 0 <= int(data.labels.min()) and int(data.labels.max()) < len(data.classes)
    return None


def cuts(content: bytes, random_: random.Random) -> bytes:
    return content[: random_.randrange(len(content))]


def flips(content: bytes, random_: random.Random) -> bytes:
    out = bytearray(content)
    for _ in range(random_.choice([1, 1, 2, 8])):
        # Half of them near one of the ends, where headers and directories are.
        span = len(out) if random_.random() < 0.5 else min(len(out), 200)
        at = random_.randrange(span) if random_.random() < 0.5 else len(out) - 1 - random_.randrange(span)
        out[at] ^= 1 << random_.randrange(8)
    return bytes(out)


def blocks(content: bytes, random_: random.Random) -> bytes:
    """A block overwritten, left out, doubled, or random bytes put in."""
    at = random_.randrange(len(content))
    length = random_.choice([1, 4, 16, 100])
    block = content[at : at + length]
    put = random_.choice([b"\0" * len(block), b"\xff" * len(block), b"", block * 2, random_.randbytes(length) + block])
    return content[:at] + put + content[at + length :]


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("damage", [cuts, flips, blocks], ids=lambda damage: damage.__name__)
def test_random_damage(tmp_path: Path, make: Callable, damage: Callable, rounds: int = 40) -> None:
    path = make(tmp_path / "set")
    places = openable(path)
    content, random_ = path.read_bytes(), random.Random(f"{make.__name__} {damage.__name__}")
    refused = 0
    for number in range(rounds):
        path.write_bytes(damage(content, random_))
        refused += reads(places[number % len(places)]) is not None
    assert refused > 0 or damage is not cuts
    path.write_bytes(content)
    assert openable(path) == places


@pytest.mark.slow
@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("damage", [cuts, flips, blocks], ids=lambda damage: damage.__name__)
def test_much_random_damage(tmp_path: Path, make: Callable, damage: Callable) -> None:
    test_random_damage(tmp_path, make, damage, rounds=1000)


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_every_truncation_is_refused(tmp_path: Path, make: Callable) -> None:
    """PNG and JPEG end in a few bytes that decoders do without; everything else is missed."""
    path = make(tmp_path / "set")
    place, content = openable(path)[-1], path.read_bytes()
    spare = {images_jpeg: 2, images_png: 16}.get(make, 0)
    lengths = {0, 1, 2, 3, 4, 7, 8, 16, 17, 64, 100, len(content) // 2, len(content) - 1, len(content) - 3}
    for length in sorted(length for length in lengths if length < len(content) - spare):
        path.write_bytes(content[:length])
        assert reads(place) is not None, length


@pytest.mark.parametrize("make", [each for each in KINDS if each in CHECKED], ids=lambda make: make.__name__)
def test_a_flipped_bit_in_checked_data_is_found(tmp_path: Path, make: Callable) -> None:
    """Every 7th byte: what is read is what was written, or it is refused."""
    path = make(tmp_path / "set")
    content = path.read_bytes()
    whole = open_data(path.parent)
    images, labels = whole.images[:], whole.labels
    refused = 0
    for at in range(0, len(content), 7):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :])
        if reads(path.parent) is not None:
            refused += 1
            continue
        again = open_data(path.parent)
        assert again.labels is not None and labels is not None
        if len(again) == len(images):
            assert torch.equal(again.images[:], images) and torch.equal(again.labels, labels), at
    assert refused > len(content) // 14
