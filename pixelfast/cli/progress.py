"""Progress bars, on standard error, for work that takes longer than a second."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pixelfast import bars


def wanted(choice: bool | None) -> bool:
    """Whether to show bars: as asked for, else when standard error is a terminal."""
    if sys.stderr is None:  # closed
        return False
    return sys.stderr.isatty() if choice is None else choice


@contextmanager
def bar(what: str, unit: str, show: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar as a callable `(done, total)`. Appears after a second."""
    with bars.bar(progress=show, desc=what, unit=unit, delay=1.0, leave=False) as shown:

        def update(done: int, total: int) -> None:
            shown.total = total
            shown.update(done - shown.n)

        yield update
