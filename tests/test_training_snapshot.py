"""Snapshots and the log on disk: whole or absent, checked by hash, never unpickled, and no full disk harms them."""

from __future__ import annotations

import builtins
import hashlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import TINY, differences, half_written, partial_files, write_data

from pixelfast.errors import CheckpointError, PixelfastError
from pixelfast.training import report, train
from pixelfast.training.log import Log
from pixelfast.training.run import Run
from pixelfast.training.snapshot import (
    Snapshot,
    newest_snapshot,
    read_snapshot,
    remove_partial,
    snapshot_paths,
    write_snapshot,
)

NO_SPACE = OSError(28, "No space left on device")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "blocks.npz")


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "can_plot", lambda: False)


def example(value: float) -> Snapshot:
    tensors = {"weight": torch.full((3, 4), value), "count": torch.tensor(7), "nan": torch.tensor([float("nan"), -0.0])}
    return Snapshot({"step": value, "window": [[0.1, 1e-300]]}, {"model": tensors, "ema": tensors, "optimizer": {}})


def steps(run: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in snapshot_paths(run)]


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    message = str(error.value)
    assert message and "\n" not in message
    return message


def test_read_is_what_was_written(tmp_path: Path) -> None:
    path = write_snapshot(tmp_path, 12, example(0.1), keep=2)
    assert path == tmp_path / "snapshots" / "step-00000012"
    found = read_snapshot(path)
    assert found.state == example(0.1).state
    for name, tensors in example(0.1).tensors.items():
        assert found.tensors[name].keys() == tensors.keys()
        for key, tensor in tensors.items():
            assert found.tensors[name][key].dtype == tensor.dtype
            assert found.tensors[name][key].numpy().tobytes() == tensor.numpy().tobytes()


def test_the_last_few_are_kept(tmp_path: Path) -> None:
    for step in (0, 5, 10, 100_000_000, 100_000_001):
        write_snapshot(tmp_path, step, example(step), keep=3)
    assert steps(tmp_path) == [100_000_001, 100_000_000, 10]
    assert partial_files(tmp_path) == []


def test_what_lies_ahead_is_removed(tmp_path: Path) -> None:
    """A run that went back past damaged snapshots must not count them among the last ones."""
    for step in (1, 2, 3):
        write_snapshot(tmp_path, step, example(step), keep=3)
    write_snapshot(tmp_path, 2, example(20.0), keep=2)
    assert steps(tmp_path) == [2, 1]
    assert read_snapshot(snapshot_paths(tmp_path)[0]).state["step"] == 20.0


def every_file(path: Path) -> list[Path]:
    return sorted(path.iterdir())


def test_every_damage_is_seen(tmp_path: Path) -> None:
    """In every file: one bit anywhere, cut short, one byte more, emptied, missing, a folder instead."""
    path = write_snapshot(tmp_path, 1, example(1.0), keep=1)
    assert [file.name for file in every_file(path)] == [
        *("ema.safetensors", "manifest.json", "model.safetensors", "optimizer.safetensors", "state.json")
    ]
    for file in every_file(path):
        whole = file.read_bytes()
        damages = [whole[:-1], whole + b"x", b"", None, whole[: len(whole) // 2]]
        damages += [whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :] for i in range(0, len(whole), 3)]
        for damage in damages:
            file.unlink(missing_ok=True)
            if damage is not None:
                file.write_bytes(damage)
            if file.name == "manifest.json" and same_json(damage, whole):
                continue
            with pytest.raises(CheckpointError) as error:
                read_snapshot(path)
            assert "step-00000001" in one_line(error)
        file.unlink(missing_ok=True)
        file.mkdir()
        with pytest.raises(CheckpointError):
            read_snapshot(path)
        file.rmdir()
        file.write_bytes(whole)
    read_snapshot(path)


def same_json(one: bytes | None, other: bytes) -> bool:
    """White space in a manifest may be any."""
    try:
        return json.loads(one or b"") == json.loads(other)
    except ValueError:
        return False


def test_a_manifest_reads_no_file_elsewhere(tmp_path: Path) -> None:
    path = write_snapshot(tmp_path, 1, example(1.0), keep=1)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["../../outside.safetensors"] = manifest["files"]["model.safetensors"]
    (tmp_path / "outside.safetensors").write_bytes((path / "model.safetensors").read_bytes())
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError):
        read_snapshot(path)


def test_a_damaged_newest_is_passed_over(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write_snapshot(tmp_path, step, example(step), keep=3)
    newest, middle, _ = snapshot_paths(tmp_path)
    (newest / "ema.safetensors").write_bytes(b"")
    (middle / "manifest.json").unlink()
    warnings: list[str] = []
    path, found = newest_snapshot(tmp_path, warnings.append)
    assert path.name == "step-00000001" and found.state["step"] == 1
    assert len(warnings) == 2 and "ema.safetensors" in warnings[0] and "manifest.json" in warnings[1]
    (path / "state.json").write_bytes(b"{}")
    with pytest.raises(CheckpointError) as error:
        newest_snapshot(tmp_path, warnings.append)
    assert "every snapshot" in one_line(error)


@pytest.mark.parametrize("damage", ["bit", "missing file", "no manifest"])
def test_a_run_goes_on_from_the_one_before(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture, damage: str
) -> None:
    train(TINY, data=data, out=tmp_path / "whole", progress=False)
    out = tmp_path / "out"
    train(TINY, data=data, out=out, progress=False)
    newest = snapshot_paths(out)[0]
    if damage == "bit":
        content = bytearray((newest / "optimizer.safetensors").read_bytes())
        content[-1] ^= 1
        (newest / "optimizer.safetensors").write_bytes(content)
    else:
        (newest / ("model.safetensors" if damage == "missing file" else "manifest.json")).unlink()
    capsys.readouterr()
    train(TINY, data=data, out=out, resume=True, progress=False)
    said = capsys.readouterr().out.splitlines()
    assert "step-00000009" in said[0] and "damaged" in said[0] and "trying the one before" in said[0]
    assert differences(out, tmp_path / "whole") == [] and half_written(out) == []


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    path = write_snapshot(tmp_path, 1, example(1.0), keep=1)
    torch.save({"step": Payload()}, path / "model.safetensors")
    manifest = json.loads((path / "manifest.json").read_text())
    content = (path / "model.safetensors").read_bytes()
    manifest["files"]["model.safetensors"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError):
        read_snapshot(path)
    assert not (tmp_path / "ran").exists()


class Disk:
    """A disk that is full from one file operation on, until there is space again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.operations = 0
        self.full_from: int | None = None
        for owner, name in ((os, "fsync"), (os, "mkdir"), (os, "rename"), (os, "replace"), (os, "pwrite")):
            monkeypatch.setattr(owner, name, self._watched(getattr(owner, name)))
        monkeypatch.setattr(builtins, "open", self._watched(open))

    @contextmanager
    def full(self, operation: int = 0) -> Iterator[None]:
        self.operations, self.full_from = 0, operation
        try:
            yield
        finally:
            self.full_from = None

    def _watched(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def run(path: Any, *args: Any, **settings: Any) -> Any:
            reads = operation is builtins_open and (args[:1] or ("r",))[0] in ("r", "rb")
            if self.full_from is not None and not reads:
                self.operations += 1
                if self.operations > self.full_from:
                    raise OSError(*NO_SPACE.args)
            return operation(path, *args, **settings)

        return run


builtins_open = open


def test_a_full_disk_leaves_the_old_snapshots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Full from any of its file operations on."""
    write_snapshot(tmp_path, 1, example(1.0), keep=2)
    disk = Disk(monkeypatch)
    with disk.full(10_000):
        write_snapshot(tmp_path, 2, example(2.0), keep=2)
        needed = disk.operations
    assert needed > 10
    failed = 0
    for at in range(needed):
        with disk.full(at):
            try:
                write_snapshot(tmp_path, 3 + at, example(3.0), keep=2)
            except CheckpointError as error:
                failed += 1
                assert "No space left on device" in str(error) and "\n" not in str(error)
        assert half_written(tmp_path) == [] and len(steps(tmp_path)) >= 2
        remove_partial(tmp_path)
        assert partial_files(tmp_path) == []
    # After the rename the snapshot is there, whatever happens then.
    assert failed >= needed - 3


def test_a_disk_that_is_full_for_a_while_costs_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    train(TINY, data=data, out=tmp_path / "whole", progress=False)
    disk = Disk(monkeypatch)
    advance = Run.advance

    def advance_on_full_disk(run: Run) -> None:
        disk.full_from = 0 if 1 <= run.step < 7 else None
        advance(run)

    monkeypatch.setattr(Run, "advance", advance_on_full_disk)
    capsys.readouterr()
    train(TINY, data=data, out=tmp_path / "out", progress=False)
    said = capsys.readouterr().out.splitlines()
    assert sum("cannot write the log" in line or "cannot write the snapshot" in line for line in said) >= 2
    assert any("going on, the newest snapshot is of step 0" in line for line in said)
    assert all("No space left on device" in line for line in said if "cannot" in line)
    assert differences(tmp_path / "out", tmp_path / "whole") == []


def test_a_disk_that_stays_full_ends_in_an_error_and_resumes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(TINY, data=data, out=tmp_path / "whole", progress=False)
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch)
        advance = Run.advance

        def advance_on_full_disk(run: Run) -> None:
            if run.step == 5:
                disk.full_from = 0
            advance(run)

        patch.setattr(Run, "advance", advance_on_full_disk)
        with pytest.raises(CheckpointError) as error:
            train(TINY, data=data, out=out, progress=False)
        assert "No space left on device" in one_line(error)
    assert half_written(out) == [] and steps(out) == [3, 0]
    train(TINY, data=data, out=out, resume=True, progress=False)
    assert differences(out, tmp_path / "whole") == []


LIMITED = """
import resource, sys
from pathlib import Path
from training_runs import TINY
from pixelfast.errors import PixelfastError
from pixelfast.training import report, train
from pixelfast.training.run import Run

report.can_plot = lambda: False
advance = Run.advance

def limited(run):
    if run.step == 4:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))
    advance(run)

Run.advance = limited
try:
    train(TINY, data=Path(sys.argv[1]), out=Path(sys.argv[2]), progress=False)
except PixelfastError as error:
    print(error, file=sys.stderr)
    sys.exit(1)
"""


def test_a_limit_of_the_operating_system(data: Path, tmp_path: Path) -> None:
    """Not imitated: the kernel refuses to let a file grow, in the middle of a write."""
    train(TINY, data=data, out=tmp_path / "whole", progress=False)
    out = tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, str(data), str(out)], capture_output=True, text=True, env=environment
    )
    assert ended.returncode == 1
    assert "File too large" in ended.stderr and len(ended.stderr.strip().splitlines()) == 1
    assert half_written(out) == [] and partial_files(out) == [] and steps(out) == [3, 0]
    train(TINY, data=data, out=out, resume=True, progress=False)
    assert differences(out, tmp_path / "whole") == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_folder_that_cannot_be_written_shows_at_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "snapshots").touch()
    monkeypatch.setattr(Run, "advance", lambda run: pytest.fail("a step was taken"))
    with pytest.raises(PixelfastError) as error:
        train(TINY, data=data, out=tmp_path, progress=False)
    assert "cannot write the snapshot" in one_line(error)


def test_a_log_that_cannot_be_opened(data: Path, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(PixelfastError) as error:
        train(TINY, data=data, out=tmp_path, progress=False)
    assert "cannot open the log" in one_line(error)


def test_the_log_keeps_what_the_snapshot_knows(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = Log(path, 0, lambda text: pytest.fail(text))
    log.write(step=1, bits=0.1)
    length = log.synced_length()
    log.write(step=2, bits=1e-300)
    log.close()
    with path.open("ab") as file:
        file.write(b'{"step": 3, "bi')
    log = Log(path, length, lambda text: pytest.fail(text))
    assert log.lines == [{"step": 1, "bits": 0.1}]
    log.write(step=2, bits=0.5)
    log.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == log.lines
    said: list[str] = []
    Log(path, 10_000, said.append).close()
    assert len(said) == 1 and "shorter" in said[0]
    assert len(path.read_text().splitlines()) == 2
    path.write_text("not JSON\n" + path.read_text())
    with pytest.raises(PixelfastError, match="not JSON"):
        Log(path, 20, said.append)


def test_a_line_is_never_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up takes a part of a line, which is taken back; the line comes when there is space."""
    said: list[str] = []
    log = Log(tmp_path / "log", 0, said.append)
    log.write(step=1)
    pwrite, space = os.pwrite, [5]

    def nearly_full(file: int, content: bytes, at: int) -> int:
        if not space[0]:
            raise OSError(*NO_SPACE.args)
        took = pwrite(file, content[: space[0]], at)
        space[0] -= took
        return took

    monkeypatch.setattr(os, "pwrite", nearly_full)
    log.write(step=2)
    assert (tmp_path / "log").read_text() == '{"step": 1}\n'
    assert len(said) == 1 and "No space left on device" in said[0]
    with pytest.raises(CheckpointError):
        log.synced_length()
    monkeypatch.setattr(os, "pwrite", pwrite)
    log.write(step=3)
    assert (tmp_path / "log").read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3}\n'
    assert log.synced_length() == 36
    log.close()


def test_samples_and_plots_that_cannot_be_written_are_said(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "samples").touch()
    (tmp_path / "loss.png").mkdir()
    monkeypatch.setattr(report, "can_plot", lambda: True)
    train(replace(TINY, steps=4, sample_every=4), data=data, out=tmp_path, progress=False)
    said = capsys.readouterr().out
    assert "no samples at step 4" in said and "no plot" in said
