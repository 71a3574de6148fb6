"""The trained models inside the package: weights/<name>.safetensors, each with a card weights/<name>.md."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from pixelfast.errors import PixelfastError

DEFAULT = "gated-pixelcnn-mnist"
"""The model of `make demo`."""


def names() -> list[str]:
    """Names of the shipped models, sorted."""
    return sorted(path.stem for path in _folder().glob("*.safetensors"))


def weights(name: str) -> Path:
    """The checkpoint of a shipped model. Raises PixelfastError for an unknown name."""
    if name not in names():
        raise PixelfastError(f"unknown shipped model {name!r}; there are: {', '.join(names()) or 'none'}")
    return _folder() / f"{name}.safetensors"


def card(name: str) -> str:
    """The model card, Markdown."""
    return weights(name).with_suffix(".md").read_text(encoding="utf-8")


def _folder() -> Path:
    # The package holds a compiled extension, so it is always installed as plain files.
    return Path(str(resources.files("pixelfast"))) / "weights"
