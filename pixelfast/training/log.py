"""The log of a run: one JSON object per line, a function of the recipe and the data alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pixelfast.errors import CheckpointError, PixelfastError


class Log:
    """Appends lines to a file that only ever holds whole ones.

    length: bytes of the file to keep, where a run is resumed; what a run that was killed had written after its
    last snapshot is written again. A line that cannot be written waits for the next one, and `warn` is told.

    Raises PixelfastError when the file cannot be opened, or does not hold a log.
    """

    def __init__(self, path: Path, length: int, warn: Callable[[str], None]) -> None:
        self._path = path
        self._warn = warn
        self._waiting = b""
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            kept = os.pread(self._file, length, 0)
            if len(kept) < length:
                warn(f"{path} is shorter than it was at the snapshot; what is missing is lost")
                kept = kept[: kept.rfind(b"\n") + 1]
            os.ftruncate(self._file, len(kept))
        except OSError as error:
            raise PixelfastError(f"cannot open the log {path}: {error.strerror or error}") from error
        self._length = len(kept)
        try:
            self.lines: list[dict[str, Any]] = [json.loads(line) for line in kept.splitlines()]
        except ValueError as error:
            raise PixelfastError(f"{path} has a line that is not JSON; move it away to go on without it") from error

    def write(self, **values: Any) -> None:
        """Appends one line."""
        self.lines.append(values)
        self._waiting += (json.dumps(values) + "\n").encode()
        try:
            self._flush()
        except OSError as error:
            self._warn(f"cannot write {self._path}: {error.strerror or error}; its lines wait in memory")

    def synced_length(self) -> int:
        """Bytes of the file, all of which have reached the disk. Raises CheckpointError when they cannot."""
        try:
            self._flush()
            os.fsync(self._file)
        except OSError as error:
            raise CheckpointError(f"cannot write the log {self._path}: {error.strerror or error}") from error
        return self._length

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)

    def _flush(self) -> None:
        if not self._waiting:
            return
        try:
            written = os.pwrite(self._file, self._waiting, self._length)
            if written < len(self._waiting):
                # A disk that fills up takes a part; the next attempt says why.
                written += os.pwrite(self._file, self._waiting[written:], self._length + written)
            if written < len(self._waiting):
                raise OSError(None, "only a part could be written")
        except OSError:
            os.ftruncate(self._file, self._length)
            raise
        self._length += written
        self._waiting = b""
