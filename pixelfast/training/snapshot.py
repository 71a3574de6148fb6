"""Snapshots of a training run: folders that are whole or not there at all, with the hash of every file.

    snapshots/step-00001234/model.safetensors      the weights
                            ema.safetensors        their moving average
                            optimizer.safetensors  its averages, by parameter
                            state.json             where the run stands, and its recipe
                            manifest.json          size and SHA-256 of each of them

Nothing in them is ever unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from pixelfast.errors import CheckpointError

FOLDER = "snapshots"
MANIFEST = "manifest.json"
STATE = "state.json"
PARTS = ("model", "ema", "optimizer")
VERSION = 1

_NAME = re.compile(r"step-(\d{8,})")
_HIDDEN = re.compile(r"\.step-\d{8,}\.[0-9a-f]+\.partial")


@dataclass(frozen=True)
class Snapshot:
    """state: JSON values. tensors: one of PARTS -> name -> tensor, whole and on the CPU."""

    state: Mapping[str, Any]
    tensors: Mapping[str, Mapping[str, Tensor]]


def write_snapshot(run: Path, step: int, snapshot: Snapshot, keep: int) -> Path:
    """Writes a snapshot of the run in folder `run`, which appears whole; then removes all but the last `keep`.

    One of the same step that is there already is taken for damaged and replaced.
    Raises CheckpointError when it cannot be written; the snapshots before it are then untouched.
    """
    folder = run / FOLDER
    path = folder / f"step-{step:08d}"
    partial = _hidden(path)
    files: dict[str, dict[str, Any]] = {}

    def write(name: str, content: bytes) -> None:
        with open(partial / name, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        files[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    try:
        folder.mkdir(exist_ok=True)
        partial.mkdir()
        for part in PARTS:
            write(_file(part), safetensors.torch.save(dict(snapshot.tensors[part])))
        write(STATE, _json(snapshot.state))
        write(MANIFEST, _json({"version": VERSION, "files": files}))
        _sync_folder(partial)
        if path.exists():
            _remove(path)
        os.rename(partial, path)
        _sync_folder(folder)
        _sync_folder(run)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(f"cannot write the snapshot {path}: {error.strerror or error}") from error
    _prune(folder, step, keep)
    return path


def newest_snapshot(run: Path, warn: Callable[[str], None]) -> tuple[Path, Snapshot]:
    """The newest whole snapshot of a run; `warn` is told of each damaged one that is passed over.

    Raises CheckpointError when there is none.
    """
    paths = snapshot_paths(run)
    for path in paths:
        try:
            return path, read_snapshot(path)
        except CheckpointError as error:
            warn(f"{error}; trying the one before it")
    if paths:
        raise CheckpointError(f"every snapshot in {run / FOLDER} is damaged; start anew in another folder")
    raise CheckpointError(f"nothing to resume: {run / FOLDER} holds no snapshot; start without --resume")


def snapshot_paths(run: Path) -> list[Path]:
    """The snapshots of a run, newest first, whole or damaged."""
    folder = run / FOLDER
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(found, key=_step, reverse=True)


def read_snapshot(path: Path) -> Snapshot:
    """Reads and checks one snapshot. Raises CheckpointError, in one line, unless every file has its hash."""
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        if manifest["version"] != VERSION:
            raise CheckpointError(f"{path} is of version {manifest['version']}, this pixelfast reads {VERSION}")
        if manifest["files"].keys() != {STATE, *map(_file, PARTS)}:
            raise CheckpointError(f"{path} is damaged: {MANIFEST} does not name its files")
        for name, expected in manifest["files"].items():
            with open(path / name, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
                size = file.tell()
            if found != expected["sha256"] or size != expected["bytes"]:
                raise CheckpointError(f"{path} is damaged: {name} is not what {MANIFEST} says")
        state = json.loads((path / STATE).read_bytes())
        return Snapshot(state, {part: safetensors.torch.load_file(path / _file(part)) for part in PARTS})
    except OSError as error:
        name = Path(error.filename).name if error.filename else "a file"
        raise CheckpointError(f"{path} is damaged: {name}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} is damaged: {MANIFEST} is not what was written ({error})") from error


def remove_partial(run: Path) -> None:
    """Removes what a run that was killed had begun to write."""
    folder = run / FOLDER
    for path in folder.iterdir() if folder.is_dir() else ():
        if _HIDDEN.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)


def _prune(folder: Path, step: int, keep: int) -> None:
    """Keeps the last snapshots up to `step`. Later ones are damaged: the run has come back past them."""
    paths = snapshot_paths(folder.parent)
    upto = [path for path in paths if _step(path) <= step]
    for path in (*upto[keep:], *(path for path in paths if _step(path) > step)):
        with contextlib.suppress(OSError):
            _remove(path)


def _remove(path: Path) -> None:
    # A folder is not removed at once; under a hidden name nobody takes what is left of it for a snapshot.
    hidden = _hidden(path)
    os.rename(path, hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def _file(part: str) -> str:
    return f"{part}.safetensors"


def _hidden(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


def _step(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def _json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=1, sort_keys=True) + "\n").encode()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
