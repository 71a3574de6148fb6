"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from pathlib import Path

_PARTIAL = re.compile(r"\..+\.[0-9a-f]{8}\.partial")


def write_atomically(path: Path, content: bytes) -> None:
    """Writes `content` to `path`: to a temporary name beside it, synced to the disk, then renamed over it.

    After a failure (OSError) neither the temporary file nor a part of the new one is left, and what was at
    `path` before is untouched.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    file = open(temporary, "xb")
    try:
        with file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def remove_partial_files(folder: Path) -> None:
    """Removes what `write_atomically` had begun in a folder when its process was killed.

    Nobody may be writing there.
    """
    for path in folder.iterdir() if folder.is_dir() else ():
        if _PARTIAL.fullmatch(path.name) and path.is_file():
            with contextlib.suppress(OSError):
                path.unlink()


def _sync_folder(folder: Path) -> None:
    # Without this a crash may forget the rename, though never the content.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
