"""Checkpoints: pixelfast's own format, and foreign layouts recognised from their names and shapes."""

from pixelfast.checkpoints.loading import load, save

__all__ = ["load", "save"]
