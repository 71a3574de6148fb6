"""Ctrl-C and SIGTERM as a wish that is granted between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """What ends a run that was asked to stop. number: the signal that asked, one of SIGNALS."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def status(self) -> int:
        """The exit status that shells give a process which this signal ended."""
        return 128 + self.number

    @property
    def word(self) -> str:
        """What the signal did, for people."""
        return "terminated" if self.number == signal.SIGTERM else "interrupted"


class Wish:
    """Whether a signal has asked to stop. number: the first one that did, None before."""

    def __init__(self) -> None:
        self.number: int | None = None

    def uttered(self) -> bool:
        return self.number is not None


@contextmanager
def asked_to_stop() -> Iterator[Wish]:
    """Uttered by Ctrl-C and SIGTERM, so that no step is cut in two. The same signal again acts at once."""
    wish = Wish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def ask(number: int, _: Any) -> None:
        if wish.number is None:
            wish.number = number
        signal.signal(number, before[signal.Signals(number)])

    for number in SIGNALS:
        signal.signal(number, ask)
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
