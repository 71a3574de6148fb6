"""The measurements on a GPU, where there is none: they compile without spills, and the script says what is missing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import gpu_costs
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu_costs"
SOURCES = sorted(FOLDER.glob("*.cu"))


def test_they_compile_without_warnings_or_spills(tmp_path):
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if nvcc is None:
        pytest.skip("nvcc was not found")
    strict = ["-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra", "-Xptxas", "-v"]
    program = tmp_path / "gpu_costs"
    command = [nvcc, *gpu_costs.FLAGS, *strict, "-o", str(program), *map(str, SOURCES)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    spilled = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", done.stdout + done.stderr)
    assert len(spilled) >= 10
    assert set(spilled) == {("0", "0")}
    if shutil.which("nvidia-smi") is None:
        done = subprocess.run([str(program)], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "no CUDA device can be used\n"


def program(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_without_a_gpu_it_ends_with_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="no NVIDIA GPU can be used here: nvidia-smi does not run") as ended:
        gpu_costs.main([])
    assert "\n" not in str(ended.value.code)


@pytest.mark.parametrize(
    ("says", "message"),
    [
        ("echo no devices; exit 9", "no NVIDIA GPU can be used here: nvidia-smi says 'no devices'"),
        ("echo 'NVIDIA A100, 550.1, 8.0, 1410 MHz'", "A100 has compute capability 8.0; 9.0 is needed"),
        ("echo 'NVIDIA H200, 580.1, 9.0, 1980 MHz'", "nvcc was not found"),
    ],
)
def test_it_says_what_is_missing(monkeypatch, tmp_path, says, message):
    program(tmp_path, "nvidia-smi", says)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setattr(gpu_costs.shutil, "which", lambda name, path=None: None)
    with pytest.raises(SystemExit, match=message) as ended:
        gpu_costs.main([])
    assert "\n" not in str(ended.value.code)


def stand_in(monkeypatch, measurements):
    """A GPU whose measurements are those of a shell script."""
    gpu = {"device": "NVIDIA H200", "driver": "580.1", "capability": "9.0", "clock": "1980 MHz"}
    monkeypatch.setattr(gpu_costs, "device", lambda: gpu)
    monkeypatch.setattr(gpu_costs, "compiler", lambda: "nvcc")
    monkeypatch.setattr(gpu_costs, "build", lambda nvcc, folder: program(folder, "gpu_costs", measurements))


def test_what_was_measured_is_printed_and_written(monkeypatch, tmp_path, capsys):
    rows = [
        {"measurement": "own grid barrier", "blocks": 132, "ns": 1234.5},
        {"measurement": "clusters that run at once", "blocks": 8, "count": 16},
        {"measurement": "reading", "mebibytes": 16, "bytes_per_second": 5.5e12},
    ]
    stand_in(monkeypatch, "\n".join(f"echo '{json.dumps(row)}'" for row in rows))
    saved = tmp_path / "costs.json"
    gpu_costs.main(["--save", str(saved)])
    written = json.loads(saved.read_text())
    assert written["rows"] == rows
    assert (written["device"], written["driver"]) == ("NVIDIA H200", "580.1")
    assert {"commit", "pixelfast", "torch"} <= set(written)
    printed = capsys.readouterr().out
    assert re.search(r"own grid barrier +blocks 132 +1234 ns", printed)
    assert re.search(r"reading +mebibytes 16 +5.50 TB/s", printed)


def test_a_failure_writes_nothing(monkeypatch, tmp_path):
    stand_in(monkeypatch, "echo '{}'; echo 'flag handover: a wait took too long' >&2; exit 1")
    with pytest.raises(SystemExit, match="nothing was written: flag handover"):
        gpu_costs.main(["--save", str(tmp_path / "costs.json")])
    assert not (tmp_path / "costs.json").exists()
    with pytest.raises(SystemExit, match="is no folder; nothing was measured"):
        gpu_costs.main(["--save", str(tmp_path / "missing" / "costs.json")])
