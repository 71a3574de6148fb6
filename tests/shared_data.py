"""Where tests find data and weights of others, which the repository does not contain."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def shared_file(*parts: str) -> Path:
    """The path of a shared file or directory, for example shared_file("data", "mnist").

    Looks in $PIXELFAST_SHARED if it is set, else in `shared/` beside the checkout; skips the test when
    it is absent.
    """
    root = Path(os.environ.get("PIXELFAST_SHARED") or REPOSITORY.parent / "shared")
    path = root.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"shared data not present: {'/'.join(parts)} (set PIXELFAST_SHARED)")
    return path
