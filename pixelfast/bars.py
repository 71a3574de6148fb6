"""Progress bars on standard error; nothing depends on whether somebody sees them."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from tqdm import tqdm


class _StandardError:
    """Standard error for a bar. What cannot be written is lost: a pipe without a reader, a terminal that is gone."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # ValueError: it was closed
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    # tqdm takes its bars away while it writes to the stream that they are on.
    def __eq__(self, other: object) -> bool:
        return other is self._stream or other is self

    def __hash__(self) -> int:
        return hash(self._stream)


def bar(*things: Any, progress: bool | None, **settings: Any) -> tqdm:
    """tqdm's bar, on a standard error that may be closed or break. progress: None shows it on a terminal only.

    A process without standard error, such as a service, has no bar in any case.
    """
    if not _is_open():
        return tqdm(*things, disable=True, **settings)
    disable = None if progress is None else not progress
    return tqdm(*things, disable=disable, file=_StandardError(sys.stderr), **settings)


def _is_open() -> bool:
    """Whether standard error takes what has been written so far: tqdm itself empties its buffer first."""
    try:
        if sys.stderr is None:
            return False
        sys.stderr.flush()
    except (OSError, ValueError):
        return False
    return True


def row_bar(progress: bool | None, total: int) -> tqdm:
    """The bar of sampling: `total` image rows, after a second."""
    return bar(progress=progress, total=total, unit="row", delay=1, leave=False)
