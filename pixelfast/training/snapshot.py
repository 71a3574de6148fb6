"""Snapshots of a training run: whole on disk or not there at all."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
from pathlib import Path
from typing import Any

import torch

from pixelfast.errors import CheckpointError


def write_snapshot(state: dict[str, Any], path: Path) -> None:
    """Write `state` (tensors, numbers, strings, and lists and dicts of them) so that `path` is always whole.

    The bytes reach the disk under another name first; a crash leaves the old snapshot in place.
    """
    # Serialised in memory: through torch's own file writer a full disk is an unspecific RuntimeError.
    content = io.BytesIO()
    torch.save(state, content)
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        # The new name is in the folder, which has to reach the disk too.
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise CheckpointError(f"cannot write the snapshot {path}: {error.strerror or error}") from error


def read_snapshot(path: Path) -> dict[str, Any]:
    """Read what `write_snapshot` wrote. Never runs code from the file. Raises CheckpointError."""
    try:
        state = torch.load(path, weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"nothing to resume: {path} does not exist; start without resume") from error
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path} is not a readable training snapshot; start anew in another folder") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} is not a training snapshot; start anew in another folder")
    return state
