"""The same extension on CPUs that lack newer instructions, under emulation: it must choose what they have."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_golden import CASES, TABLE

QEMU = shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")
TESTS = Path(__file__).parent

SCRIPT = """
import json, sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
import pixelfast
from pixelfast import _C
from test_golden import CASES, digest, images_of

images = {case: digest(images_of(case, "cpu", sys.argv[2])) for case in CASES}
model, arguments = CASES["bernoulli"]()
sampler = pixelfast.compile(model, **arguments, dtype=torch.bfloat16)
sampler.sample(3)
print(json.dumps({"isas": _C.available_isas("bfloat16"), "images": images, "isa": sampler.stats.isa}))
"""


@pytest.mark.slow
@pytest.mark.skipif(QEMU is None, reason="no qemu-x86_64 (Debian: qemu-user)")
@pytest.mark.parametrize(("cpu", "isas"), [("Nehalem", ["baseline"]), ("Haswell", ["avx2", "baseline"])])
def test_older_cpus_give_their_images(cpu: str, isas: list[str]) -> None:
    command = [str(QEMU), "-cpu", cpu, sys.executable, "-c", SCRIPT, str(TESTS), isas[0]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["isas"] == isas
    assert found["isa"] == isas[0]
    assert found["images"] == {case: json.loads(TABLE.read_text())[f"cpu-{isas[0]}"][case] for case in CASES}
