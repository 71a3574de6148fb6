"""Data sets fetched from their public addresses, only when asked for, and checked."""

from __future__ import annotations

import hashlib
import os
import secrets
import urllib.request
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO

from pixelfast.errors import PixelfastError

_BLOCK = 1 << 20
_SECONDS = 60.0


@dataclass(frozen=True)
class Download:
    """One gzipped file at a public address, known by what is in it.

    size, sha256: of the content when unpacked, so that every packing of the same content passes.
    """

    address: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """The file's name, the last part of its address."""
        return self.address.rpartition("/")[2]


_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"
DOWNLOADS: dict[str, tuple[Download, ...]] = {
    "mnist": (
        Download(
            _MNIST + "train-images-idx3-ubyte.gz",
            47_040_016,
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        Download(
            _MNIST + "train-labels-idx1-ubyte.gz",
            60_008,
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        Download(
            _MNIST + "t10k-images-idx3-ubyte.gz",
            7_840_016,
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        Download(
            _MNIST + "t10k-labels-idx1-ubyte.gz",
            10_008,
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
}


def fetch(name: str, folder: str | Path) -> Path:
    """Download a data set into `folder` unless it is there, and return the folder for `open_data`.

    Every file is written under a temporary name, its SHA-256 checked, and renamed. A file that is there already is
    checked and left as it is.

    Raises PixelfastError for an unknown name, a failed or wrong download, and a file that is there and wrong: nothing
    is overwritten, and nothing half-written stays.
    """
    if name not in DOWNLOADS:
        raise PixelfastError(f"unknown data set {name!r}; {', '.join(DOWNLOADS)} can be fetched")
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in DOWNLOADS[name]:
            path = folder / file.name
            if path.exists():
                _check_present(file, path)
            else:
                _fetch_file(file, path)
    except OSError as error:
        raise PixelfastError(f"cannot write the data set to {folder}: {error.strerror or error}") from error
    return folder


def _check_present(file: Download, path: Path) -> None:
    with path.open("rb") as content:
        problem = _problem(file, iter(lambda: content.read(_BLOCK), b""))
    if problem:
        raise PixelfastError(f"{path} is there but {problem}; delete it to download it again")


def _fetch_file(file: Download, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with open(temporary, "xb") as out:
            problem = _problem(file, _written(_downloaded(file.address), out))
            out.flush()
            os.fsync(out.fileno())
        if problem:
            raise PixelfastError(f"{file.address} gave a file that {problem}; nothing was kept, try again later")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _written(blocks: Iterator[bytes], out: IO[bytes]) -> Iterator[bytes]:
    for block in blocks:
        out.write(block)
        yield block


def _downloaded(address: str) -> Iterator[bytes]:
    """The blocks that come from an address."""
    try:
        with urllib.request.urlopen(address, timeout=_SECONDS) as response:
            while block := response.read(_BLOCK):
                yield block
    except (OSError, HTTPException) as error:
        raise PixelfastError(f"cannot download {address}: {error}") from error


def _problem(file: Download, blocks: Iterator[bytes]) -> str | None:
    """What is wrong with gzipped content, None if it is what it should be. Never unpacks more than its size."""
    digest, size, unpack = hashlib.sha256(), 0, zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        for block in blocks:
            while block:
                content = unpack.decompress(block, _BLOCK)
                digest.update(content)
                size += len(content)
                if size > file.size:
                    return f"unpacks to more than {file.size} bytes"
                block = unpack.unconsumed_tail
    except zlib.error as error:
        return f"is damaged ({error})"
    if not unpack.eof or unpack.unused_data or size != file.size:
        return f"unpacks to {size} bytes instead of {file.size}, or does not end with them"
    if digest.hexdigest() != file.sha256:
        return "has another SHA-256 than the data set's"
    return None
