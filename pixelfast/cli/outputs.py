"""Files that commands write: checked before the work starts, complete or absent afterwards."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from pixelfast.errors import PixelfastError


class Outputs:
    """A context in which files are opened early and appear at their paths all together, on `commit`.

    Each file is written under a temporary name in its own directory, so that a path that cannot be written is
    known at once and a failure, or Ctrl-C, leaves nothing behind. What existed before is replaced only by a
    complete file. Devices and pipes are written directly.
    """

    def __init__(self) -> None:
        self._pending: list[tuple[BinaryIO, Path | None, Path]] = []

    def open(self, path: str | Path) -> BinaryIO:
        """A binary stream for `path`. Raises PixelfastError when `path` cannot be written."""
        target = Path(path).resolve()
        if any(target == other for _, temporary, other in self._pending if temporary is not None):
            raise PixelfastError(f"cannot write {path} twice: two outputs have the same name")
        try:
            if target.is_dir():
                raise IsADirectoryError(None, "it is a directory")
            if target.exists() and not target.is_file():
                stream: BinaryIO = target.open("wb")
                self._pending.append((stream, None, target))
                return stream
            if target.exists() and not os.access(target, os.W_OK):
                raise PermissionError(None, "the file that is there is read-only")
            handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        except OSError as error:
            raise PixelfastError(f"cannot write {path}: {error.strerror or error}") from error
        stream = os.fdopen(handle, "wb")
        self._pending.append((stream, Path(name), target))
        return stream

    def commit(self) -> None:
        """Put every file in its place."""
        try:
            for stream, temporary, _ in self._pending:
                stream.flush()
                if temporary is not None:
                    os.fsync(stream.fileno())
                stream.close()
            for _, temporary, target in self._pending:
                if temporary is not None:
                    os.chmod(temporary, 0o666 & ~_umask())
                    os.replace(temporary, target)
        except OSError as error:
            what = error.filename or "the output"
            raise PixelfastError(f"cannot write {what}: {error.strerror}") from error
        self._pending.clear()

    def __enter__(self) -> Outputs:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for stream, temporary, _ in self._pending:
            stream.close()
            if temporary is not None:
                temporary.unlink(missing_ok=True)


def _umask() -> int:
    """The permissions the user takes away from new files; there is no way to ask without setting."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
