"""The errors users see. Each message says what was given, what is accepted, and what to do."""

from __future__ import annotations


class PixelfastError(Exception):
    """Base of every error this package raises on purpose."""


class CausalityError(PixelfastError):
    """An output depends on a number that is sampled later."""


class UnsupportedModelError(PixelfastError):
    """The compiler cannot turn this model into a program; the message names the operation."""


class CheckpointError(PixelfastError):
    """A checkpoint is missing, damaged, of an unknown layout, or does not fit its configuration."""


class BackendError(PixelfastError):
    """A backend is unknown, not built, or cannot run this program."""


class ShapeError(PixelfastError):
    """A tensor has the wrong shape, dtype or range."""
