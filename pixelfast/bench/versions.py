"""What a measurement was made with: versions and, in a checkout, the commit."""

from __future__ import annotations

import subprocess
from importlib import metadata
from pathlib import Path


def versions() -> dict[str, str | None]:
    """pixelfast's and torch's versions and the commit, None outside a checkout."""
    return {
        "pixelfast": metadata.version("pixelfast"),
        "torch": metadata.version("torch"),
        "commit": commit(),
    }


def commit() -> str | None:
    """The checkout's short commit, with "+" when files differ from it; None outside a checkout."""
    here = Path(__file__).resolve()

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=here.parent, capture_output=True, text=True)
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("ls-files", "--error-unmatch", here.name) is None:
        return None
    head = git("rev-parse", "--short", "HEAD")
    return head if head is None or not git("status", "--porcelain", "--untracked-files=no") else f"{head}+"
