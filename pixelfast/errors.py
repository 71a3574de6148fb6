"""The errors users see. Each message says what was given, what is accepted, and what to do."""

from __future__ import annotations


class PixelfastError(Exception):
    """Base of every error this package raises on purpose."""


class CausalityError(PixelfastError):
    """An output depends on a number that is sampled later.

    `operation` names the operation of the model that lets it in; `output` and `reads` are (channel, row, column) of the
    output and of the input that it must not read (None when images of a batch mix).
    """

    def __init__(
        self,
        message: str,
        operation: str | None = None,
        output: tuple[int, int, int] | None = None,
        reads: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__(message)
        self.operation = operation
        self.output = output
        self.reads = reads


class UnsupportedModelError(PixelfastError):
    """The compiler cannot turn this model into a program; the message names the operation."""


class CheckpointError(PixelfastError):
    """A checkpoint is missing, damaged, of an unknown layout, or does not fit its configuration."""


class BackendError(PixelfastError):
    """A backend is unknown, not built, or cannot run this program."""


class ShapeError(PixelfastError):
    """A tensor has the wrong shape, dtype or range."""
