"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


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


def _sync_folder(folder: Path) -> None:
    # Without this a crash may forget the rename, though never the content.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
