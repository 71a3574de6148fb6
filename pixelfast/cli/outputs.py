"""Files that commands write: checked before the work starts, complete or absent afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from pixelfast.errors import PixelfastError

ENDINGS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that end a process without a word, files half-written and all."""


class Outputs:
    """A context in which files are opened early and appear at their paths all together, on `commit`.

    Each file is written under a temporary name in its own directory, so that a path that cannot be written is
    known at once and a failure, Ctrl-C or SIGTERM leaves nothing behind. What existed before is replaced only by a
    complete file. Devices and pipes are written directly.
    """

    def __init__(self) -> None:
        self._pending: list[tuple[BinaryIO, Path | None, Path]] = []
        self._handlers: dict[int, Any] = {}

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
        """Put every file in its place. Raises PixelfastError when one cannot be written to its end."""
        for stream, temporary, target in self._pending:
            with _naming(target):
                stream.flush()
                if temporary is not None:
                    os.fsync(stream.fileno())
                stream.close()
        for _, temporary, target in self._pending:
            if temporary is not None:
                with _naming(target):
                    os.chmod(temporary, 0o666 & ~_umask())
                    os.replace(temporary, target)
        self._pending.clear()

    def __enter__(self) -> Outputs:
        if threading.current_thread() is threading.main_thread():
            # Who ignores a signal, or handles it, keeps doing so.
            for number in ENDINGS:
                if signal.getsignal(number) is signal.SIG_DFL:
                    self._handlers[number] = signal.signal(number, _end)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for stream, temporary, _ in self._pending:
            # A stream that could not be written fails again on what it still holds.
            with contextlib.suppress(OSError):
                stream.close()
            if temporary is not None:
                temporary.unlink(missing_ok=True)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)


def _end(number: int, _: Any) -> None:
    """Ends the process by way of every `with`, with the status that shells give one that a signal ended."""
    sys.exit(128 + number)


@contextlib.contextmanager
def _naming(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PixelfastError(f"cannot write {target}: {error.strerror or error}") from error


def _umask() -> int:
    """The permissions the user takes away from new files; there is no way to ask without setting."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
