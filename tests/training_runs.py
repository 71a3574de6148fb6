"""Training runs for tests: a small data set, a small recipe, and what a run leaves compared byte for byte."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from pixelfast import checkpoints
from pixelfast.training import Recipe
from pixelfast.training.snapshot import read_snapshot, snapshot_paths

TINY = Recipe(
    name="tiny",
    model="gated_pixelcnn",
    config={"shape": [1, 8, 8], "hidden": 4, "dilations": [1, 2]},
    steps=9,
    batch_size=4,
    learning_rate=1e-2,
    warmup_steps=2,
    ema_decay=0.5,
    log_every=2,
    snapshot_every=3,
    validate_every=4,
    validation_images=2,
)

# For several processes: a curve line by line, in pieces that any of two processes can take.
CURVE = replace(
    TINY,
    name="curve",
    steps=10,
    micro_batch_size=1,
    log_every=1,
    validate_every=5,
    validation_images=7,
    snapshot_every=4,
)
NOISY = replace(
    CURVE,
    name="noisy",
    steps=6,
    validate_every=3,
    validation_images=1,  # none is left to a second process
    model="pixelcnn_plus_plus",
    config={"shape": [1, 8, 8], "blocks": 1, "filters": 2, "mixtures": 2},
    micro_batch_size=2,
    flip=True,
    data_init=True,
)
# The last block's vertical condition takes no part in the output: a parameter without a gradient.
CONDITIONAL = replace(
    CURVE, name="conditional", config={**TINY.config, "classes": 3}, optimizer="adam", micro_batch_size=2
)

# Not in bits per dimension: a codebook learns between the steps, from pieces that any of two processes can take.
CODES = replace(
    TINY,
    name="codes",
    model="vq_vae",
    config={"shape": [1, 8, 8], "hidden": 4, "residual_hidden": 2, "codes": 5, "code_width": 3},
    micro_batch_size=1,
    log_every=1,
)
CODES_BY_GRADIENT = replace(CODES, name="codes-by-gradient", config={**CODES.config, "codebook": "gradient"})
SHARED = (CURVE, NOISY, CONDITIONAL, CODES)


def write_data(path: Path, train: int = 12) -> Path:
    """A file of 8x8 images, 12 to train on and 7 to test, in 3 classes: a bright block in front of black."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", train), ("test", 7)):
        images = np.zeros((count, 8, 8), dtype=np.uint8)
        images[:, 2:6, 2:5] = rng.integers(200, 256, (count, 4, 3))
        arrays |= {f"images_{split}": images, f"labels_{split}": np.arange(count) % 3}
    np.savez(path, **arrays)
    return path


def outcome(run: Path) -> dict[str, bytes]:
    """What must not depend on interruptions: the newest snapshot's files, the log, the samples and the model."""
    newest = snapshot_paths(run)[0]
    files = [*newest.iterdir(), run / "log.jsonl", run / "model.safetensors", *run.glob("samples/*.png")]
    return {str(path.relative_to(run)): path.read_bytes() for path in files if path.exists()}


def differences(run: Path, other: Path) -> list[str]:
    """Names of the files that only one of two runs has, or whose bytes differ."""
    one, two = outcome(run), outcome(other)
    return sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))


def half_written(run: Path) -> list[str]:
    """Every visible file of a run that is not whole, with what is wrong. Hidden names are nobody's."""
    problems = []
    for path in snapshot_paths(run):
        try:
            read_snapshot(path)
        except Exception as error:
            problems.append(f"{path.name}: {error}")
    for path in run.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(run).parts)
        if hidden or not path.is_file() or path.parent.parent.name == "snapshots":
            continue
        try:
            if path.suffix == ".png":
                with Image.open(path) as picture:
                    picture.load()
            elif path.name == "log.jsonl":
                content = path.read_bytes()
                assert not content or content.endswith(b"\n"), "half a line"
                for line in content.splitlines():
                    json.loads(line)
            elif path.name == "model.safetensors":
                checkpoints.load(path)
            else:
                raise AssertionError("unexpected")
        except Exception as error:
            problems.append(f"{path.name}: {error}")
    return problems


def losses(run: Path, field: str = "bits_per_dim") -> list[float]:
    """One field of the log, line by line."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line[field] for line in lines if field in line]


def partial_files(run: Path) -> list[str]:
    """Temporary names left in a run."""
    return [path.name for path in run.rglob("*") if re.search(r"\.partial$", path.name)]
