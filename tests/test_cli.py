"""Every command on tiny models and files: what it writes and prints, and how it fails."""

from __future__ import annotations

import gzip
import json
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_networks import uvadlc_state
from PIL import Image

import pixelfast
from pixelfast import machine, shipped, training
from pixelfast.cli import demo, doctor, images, outputs, progress, sample
from pixelfast.cli.main import main
from pixelfast.errors import PixelfastError
from pixelfast.models import GatedPixelCNN
from pixelfast.training.stop import Stopped

DIGITS = 12
SHAPE = (1, 5, 6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny checkpoints and a tiny MNIST."""
    folder = tmp_path_factory.mktemp("cli")
    torch.manual_seed(0)
    pixelfast.save(GatedPixelCNN(SHAPE, levels=4, hidden=4, dilations=(1,)), folder / "plain.safetensors")
    pixelfast.save(GatedPixelCNN(SHAPE, levels=4, hidden=4, dilations=(1,), classes=3), folder / "classes.safetensors")
    pixelfast.save(GatedPixelCNN(hidden=2, dilations=(1,)), folder / "digits.safetensors")
    pixelfast.save(GatedPixelCNN(hidden=2, dilations=(1,), classes=10), folder / "digit-classes.safetensors")
    pixelfast.save(GatedPixelCNN((2, 3, 3), levels=4, hidden=2, dilations=(1,)), folder / "two-channels.safetensors")
    pixelfast.save(
        GatedPixelCNN(SHAPE, levels=4, hidden=2, dilations=(1,), vector_condition=2),
        folder / "vector.safetensors",
    )
    data = (folder / "plain.safetensors").read_bytes()
    (folder / "truncated.safetensors").write_bytes(data[: len(data) // 2])
    (folder / "text.png").write_text("not a picture")
    Image.fromarray(np.zeros((7, 7), np.uint8)).save(folder / "seven.png")

    rng = np.random.default_rng(0)
    mnist = folder / "mnist"
    mnist.mkdir()
    for prefix in ("train", "t10k"):
        pixels = rng.integers(0, 256, (DIGITS, 28, 28), dtype=np.uint8)
        header = struct.pack(">IIII", 0x803, DIGITS, 28, 28)
        (mnist / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + pixels.tobytes()))
        labels = bytes(i % 10 for i in range(DIGITS))
        (mnist / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, DIGITS) + labels)
    (folder / "empty").mkdir()
    return folder


@pytest.fixture
def run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable:
    """Run a command line in an empty directory; {} in an argument is the folder of files.

    Returns (exit status, standard output, standard error).
    """
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        try:
            status = main([word.replace("{}", str(folder)) for word in words])
        except SystemExit as stop:
            status = int(stop.code or 0)
        return status, *capsys.readouterr()

    return run


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


class TestSample:
    def test_writes_png_gif_and_npz(self, run: Callable, tmp_path: Path, folder: Path) -> None:
        status, out, err = run(
            "sample", "{}/plain.safetensors", "-n", "5", "--seed", "7",
            "-o", "a.png", "--gif", "a.gif", "--npz", "a.npz",
        )  # fmt: skip
        assert (status, err) == (0, "")
        assert out.splitlines()[0] == "wrote a.png, a.gif, a.npz"
        assert "5 images, seed 7" in out and "images/s" in out
        integers = np.load(tmp_path / "a.npz")["images"]
        sampler = pixelfast.compile(pixelfast.load(folder / "plain.safetensors"))
        assert np.array_equal(integers, sampler.sample(5, seed=7).numpy())
        assert pixels_of(tmp_path / "a.png").shape == (2 * 6 + 1, 3 * 7 + 1)
        with Image.open(tmp_path / "a.gif") as animation:
            assert animation.n_frames == SHAPE[1] + 1

    def test_one_image_is_its_own_picture(self, run: Callable, tmp_path: Path) -> None:
        assert run("sample", "{}/plain.safetensors", "-n", "1", "-o", "a.png", "--npz", "a.npz")[0] == 0
        integers = np.load(tmp_path / "a.npz")["images"]
        assert np.array_equal(images.read_image(tmp_path / "a.png", SHAPE, 4), integers)

    def test_default_output(self, run: Callable, tmp_path: Path) -> None:
        assert run("sample", "{}/plain.safetensors", "-n", "2")[0] == 0
        assert [path.name for path in tmp_path.iterdir()] == ["samples.png"]

    def test_labels_are_repeated(self, run: Callable, tmp_path: Path, folder: Path) -> None:
        words = ("sample", "{}/classes.safetensors", "-n", "5", "--labels", "0,2", "--npz", "a.npz")
        assert run(*words)[0] == 0
        sampler = pixelfast.compile(pixelfast.load(folder / "classes.safetensors"))
        expected = sampler.sample(5, condition=torch.tensor([0, 2, 0, 2, 0]))
        assert np.array_equal(np.load(tmp_path / "a.npz")["images"], expected.numpy())

    def test_batch_size_backend_and_dtype_change_no_image(self, run: Callable, tmp_path: Path) -> None:
        words = ("sample", "{}/plain.safetensors", "-n", "4", "--dtype", "float64", "--backend", "reference")
        assert run(*words, "--npz", "a.npz")[0] == 0
        assert run(*words, "--npz", "b.npz", "--batch-size", "3")[0] == 0
        assert np.array_equal(np.load(tmp_path / "a.npz")["images"], np.load(tmp_path / "b.npz")["images"])

    def test_temperature_zero_ignores_the_seed(self, run: Callable, tmp_path: Path) -> None:
        words = ("sample", "{}/plain.safetensors", "-n", "2", "--temperature", "0")
        assert run(*words, "--npz", "a.npz")[0] == 0
        assert run(*words, "--npz", "b.npz", "--seed", "5")[0] == 0
        assert np.array_equal(np.load(tmp_path / "a.npz")["images"], np.load(tmp_path / "b.npz")["images"])

    def test_two_channels_go_to_npz_only(self, run: Callable, tmp_path: Path) -> None:
        assert run("sample", "{}/two-channels.safetensors", "-n", "2", "--npz", "a.npz")[0] == 0
        assert np.load(tmp_path / "a.npz")["images"].shape == (2, 2, 3, 3)
        status, _, err = run("sample", "{}/two-channels.safetensors", "-n", "2", "-o", "a.png")
        assert status == 1 and "use --npz" in err and not (tmp_path / "a.png").exists()


class TestComplete:
    def test_given_rows_are_kept(self, run: Callable, tmp_path: Path, folder: Path) -> None:
        status, out, err = run(
            "complete", "{}/digits.safetensors", "--data", "{}/mnist", "--index", "3",
            "--rows-given", "20", "-n", "2", "-o", "a.png", "--npz", "a.npz", "--gif", "a.gif",
        )  # fmt: skip
        assert (status, err) == (0, "") and "2 completions, 20 rows given" in out
        given = pixelfast.data.load_mnist(folder / "mnist", "test").images[3].numpy()
        completed = np.load(tmp_path / "a.npz")["images"]
        assert (completed[:, :, :20] == given[:, :20]).all()
        assert (completed[:, :, 20:] != given[:, 20:]).any()
        grid = pixels_of(tmp_path / "a.png")
        assert grid.shape == (2 * 29 + 1, 2 * 29 + 1)
        assert (grid[1:21, 1:29] == given[0, :20]).all() and not grid[21:29, 1:29].any()
        with Image.open(tmp_path / "a.gif") as animation:
            first = np.asarray(animation.convert("L"))
        assert (first[1:21, 1:29] == given[0, :20]).all()

    def test_the_label_is_that_of_the_image(self, run: Callable, tmp_path: Path) -> None:
        words = ("complete", "{}/digit-classes.safetensors", "--data", "{}/mnist", "--index", "3", "-n", "1")
        status, out, _ = run(*words, "--npz", "data.npz")
        assert status == 0 and "label 3 as in the data" in out
        for label, same in ((3, True), (4, False)):
            status, out, _ = run(*words, "--label", str(label), "--npz", "given.npz")
            assert status == 0 and "as in the data" not in out
            given, own = (np.load(tmp_path / name)["images"] for name in ("given.npz", "data.npz"))
            assert np.array_equal(given, own) == same

    def test_a_picture_has_no_label(self, run: Callable, tmp_path: Path) -> None:
        assert run("sample", "{}/plain.safetensors", "-n", "1", "-o", "a.png")[0] == 0
        status, _, err = run("complete", "{}/classes.safetensors", "--image", "a.png")
        assert status == 1 and "give --label or --labels, from 0 to 2" in err

    def test_picture_half_given_by_default(self, run: Callable, tmp_path: Path) -> None:
        assert run("sample", "{}/plain.safetensors", "-n", "1", "-o", "a.png")[0] == 0
        status, out, _ = run("complete", "{}/plain.safetensors", "--image", "a.png", "-n", "3")
        assert status == 0 and "2 rows given" in out and (tmp_path / "completions.png").exists()

    def test_all_rows_given_is_the_image(self, run: Callable, tmp_path: Path) -> None:
        assert run("sample", "{}/plain.safetensors", "-n", "1", "-o", "a.png", "--npz", "a.npz")[0] == 0
        words = ("complete", "{}/plain.safetensors", "--image", "a.png", "--rows-given", "5", "-n", "1")
        assert run(*words, "--npz", "b.npz")[0] == 0
        assert np.array_equal(np.load(tmp_path / "a.npz")["images"], np.load(tmp_path / "b.npz")["images"])


class TestEval:
    @pytest.mark.parametrize("name", ["digits", "digit-classes"])
    def test_prints_the_mean_over_images(self, run: Callable, folder: Path, name: str) -> None:
        status, out, err = run("eval", f"{{}}/{name}.safetensors", "--data", "{}/mnist", "--limit", "11")
        assert (status, err) == (0, "")
        data = pixelfast.data.load_mnist(folder / "mnist", "test")
        sampler = pixelfast.compile(pixelfast.load(folder / f"{name}.safetensors"))
        labels = data.labels[:11] if name == "digit-classes" else None
        bits = float(sampler.bits_per_dim(data.images[:11], labels).double().mean())
        assert float(out.split()[0]) == pytest.approx(bits, abs=1e-4)
        assert out.split()[1:] == ["bits/dim", "over", "11", "images", "of", "mnist's", "test", "split"]

    def test_every_image_has_the_same_weight(
        self, run: Callable, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The last batch is smaller: a mean over batches would differ."""
        first = run("eval", "{}/digits.safetensors", "--data", "{}/mnist")[1]
        monkeypatch.setattr("pixelfast.cli.evaluate.BATCH", 5)
        assert run("eval", "{}/digits.safetensors", "--data", "{}/mnist")[1] == first

    @pytest.mark.slow
    def test_published_checkpoint(self, run: Callable, shared_file: Callable) -> None:
        """Its mean over the first 2,000 test images, which others have reproduced, is 0.807327."""
        checkpoint = str(shared_file("checkpoints", "uvadlc-gated-pixelcnn-mnist.ckpt"))
        out = run("eval", checkpoint, "--data", str(shared_file("data", "mnist")), "--limit", "2000")[1]
        assert out.split()[0] == "0.8073"


class TestBench:
    def test_table_and_json(self, run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(machine, "MATRIX", 64)
        monkeypatch.setattr(machine, "fastest", lambda work, seconds=0.0: 1e-3)
        status, out, err = run(
            "bench", "{}/classes.safetensors", "--batch-sizes", "1,3", "--repeats", "2", "--json", "a.json"
        )
        assert (status, err) == (0, "")
        assert "times 30" in out and "of limit" in out
        report = json.loads((tmp_path / "a.json").read_text())
        assert {"pixelfast", "torch", "commit", "machine", "setting", "measurements"} == set(report)
        assert [row["batch"] for row in report["measurements"]] == [1, 3]
        for row in report["measurements"]:
            assert row["images_per_second"] == pytest.approx(row["batch"] / row["seconds"])
            assert row["ratio"] == pytest.approx(row["naive_seconds"] / row["seconds"])
            assert row["share"] == pytest.approx(row["limit_seconds"] / row["seconds"])
            assert row["naive_forwards"] == 30 and row["naive_forwards_timed"] in (3, 6)


class TestOtherCommands:
    def test_train_and_resume(self, run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        recipe = training.Recipe(
            name="tiny",
            model="gated_pixelcnn",
            steps=2,
            config={"shape": [1, 28, 28], "levels": 256, "hidden": 1, "dilations": [1]},
            batch_size=2,
        )
        monkeypatch.setitem(training.RECIPES, "tiny", recipe)
        status, out, err = run("train", "tiny", "--data", "{}/mnist", "--out", "run")
        assert (status, err) == (0, "") and "bits/dim" in out
        first = f"{DIGITS} images to train on, {DIGITS} to test on; from step 0 to 2; losses are in run/log.jsonl"
        assert out.splitlines()[0].endswith(first)
        assert run("sample", "run/model.safetensors", "-n", "1")[0] == 0
        again = run("train", "tiny", "--data", "{}/mnist", "--out", "run", "--resume")[1]
        assert again == out.replace("from step 0", "from step 2")
        assert "already holds" in run("train", "tiny", "--data", "{}/mnist", "--out", "run")[2]

    def test_convert_own_format_is_the_same_model(self, run: Callable, tmp_path: Path, folder: Path) -> None:
        status, out, _ = run("convert", "{}/plain.safetensors", "b.safetensors")
        assert status == 0 and "gated_pixelcnn" in out
        assert (tmp_path / "b.safetensors").read_bytes() == (folder / "plain.safetensors").read_bytes()

    def test_convert_a_shipped_model(self, run: Callable, tmp_path: Path) -> None:
        name = shipped.names()[0]
        assert run("convert", name, "a.safetensors")[0] == 0
        converted, original = pixelfast.load(tmp_path / "a.safetensors"), pixelfast.load(shipped.weights(name))
        assert converted.config == original.config
        assert converted.state_dict().keys() == original.state_dict().keys()
        assert all(torch.equal(a, original.state_dict()[key]) for key, a in converted.state_dict().items())

    def test_what_a_file_does_not_record_is_said(self, run: Callable, tmp_path: Path) -> None:
        """Two layers, whose dilations a file of that layout does not have."""
        torch.save(uvadlc_state(channels=1, hidden=4, kernel=3, layers=2, levels=4), tmp_path / "foreign.ckpt")
        assert "dilations" in run("sample", "foreign.ckpt", "-n", "1")[2]
        words = ("foreign.ckpt", "--shape", "1,5,6", "--config", "dilations=1,2")
        assert run("sample", *words, "-n", "2", "--npz", "a.npz")[0] == 0
        assert run("convert", *words[:1], "own.safetensors", *words[1:])[0] == 0
        model = pixelfast.load(tmp_path / "own.safetensors")
        assert model.config["dilations"] == [1, 2] and tuple(model.shape) == (1, 5, 6)
        expected = pixelfast.compile(model).sample(2, seed=0)
        assert np.array_equal(np.load(tmp_path / "a.npz")["images"], expected.numpy())

    def test_convert_foreign(self, run: Callable, tmp_path: Path, shared_file: Callable) -> None:
        source = shared_file("checkpoints", "uvadlc-gated-pixelcnn-mnist.ckpt")
        assert run("convert", str(source), "own.safetensors")[0] == 0
        expected = pixelfast.load(source).state_dict()
        found = pixelfast.load(tmp_path / "own.safetensors").state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())

    def test_models_lists_everything(self, run: Callable) -> None:
        status, out, _ = run("models")
        assert status == 0
        for name in (*shipped.names(), *training.RECIPES, "GatedPixelCNN", "PixelCNNPlusPlus"):
            assert name in out

    def test_doctor_says_why_a_backend_is_missing(self, run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
        status, out, _ = run("doctor")
        assert status == 0 and "torch 2" in out and "backend reference" in out

        def missing(name: str) -> None:
            raise pixelfast.BackendError("the reason")

        monkeypatch.setattr(doctor.registry, "backend_class", missing)
        assert out != run("doctor")[1] and "no: the reason" in run("doctor")[1]

    def test_doctor_names_instruction_sets(self, run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PIXELFAST_ISA", "abacus")
        line = next(line for line in run("doctor")[1].splitlines() if line.startswith("instruction sets"))
        assert "PIXELFAST_ISA=abacus, which this processor lacks" in line or "not built" in line

    def test_version(self, run: Callable) -> None:
        assert run("--version") == (0, f"pixelfast {pixelfast.__version__}\n", "")

    def test_demo(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
    ) -> None:
        monkeypatch.setattr(demo, "load_model", lambda name: pixelfast.load(folder / "plain.safetensors"))
        monkeypatch.setattr(demo, "IMAGES", 9)
        assert demo.main(["-o", str(tmp_path / "d.png")]) == 0
        out = capsys.readouterr().out
        assert "times faster" in out and "of 4 images identical" in out
        assert pixels_of(tmp_path / "d.png").shape == (3 * 6 + 1, 3 * 7 + 1)


BAD = {
    "no command": ([], 2, "COMMAND"),
    "unknown command": (["paint"], 2, "paint"),
    "unknown option": (["models", "--colour"], 2, "--colour"),
    "abbreviated option": (["sample", "{}/plain.safetensors", "--temp", "1"], 2, "--temp"),
    "no images": (["sample", "{}/plain.safetensors", "-n", "0"], 2, "from 1"),
    "number in words": (["sample", "{}/plain.safetensors", "-n", "ten"], 2, "'ten'"),
    "negative temperature": (["sample", "{}/plain.safetensors", "--temperature", "-1"], 2, "at least 0"),
    "infinite temperature": (["sample", "{}/plain.safetensors", "--temperature", "inf"], 2, "at least 0"),
    "NaN temperature": (["sample", "{}/plain.safetensors", "--temperature", "nan"], 2, "at least 0"),
    "seed too large": (["sample", "{}/plain.safetensors", "--seed", str(2**64)], 2, str(2**64 - 1)),
    "unknown backend": (["sample", "{}/plain.safetensors", "--backend", "abacus"], 2, "'abacus'"),
    "missing file": (["sample", "{}/nothing.safetensors"], 1, "neither a file nor a shipped model"),
    "a folder as model": (["sample", "{}/empty"], 1, "empty"),
    "truncated checkpoint": (["sample", "{}/truncated.safetensors"], 1, "truncated.safetensors"),
    "not a checkpoint": (["sample", "{}/text.png"], 1, "text.png"),
    "unknown layout": (["sample", "{}/plain.safetensors", "--layout", "xyz"], 1, "xyz"),
    "label out of range": (["sample", "{}/classes.safetensors", "--label", "3"], 1, "0 to 2"),
    "negative label": (["sample", "{}/classes.safetensors", "--label", "-1"], 2, "from 0"),
    "missing label": (["sample", "{}/classes.safetensors"], 1, "--label"),
    "label for a model without": (["sample", "{}/plain.safetensors", "--label", "1"], 1, "no classes"),
    "more labels than images": (
        ["sample", "{}/classes.safetensors", "-n", "1", "--labels", "0,1"],
        1,
        "2 labels for 1 images",
    ),
    "label and labels": (["sample", "{}/classes.safetensors", "--label", "1", "--labels", "1"], 2, "--label"),
    "condition that is no label": (["sample", "{}/vector.safetensors"], 1, "from Python"),
    "unwritable output": (
        ["sample", "{}/plain.safetensors", "-o", "no/such/folder/a.png"],
        1,
        "cannot write",
    ),
    "output is a folder": (["sample", "{}/plain.safetensors", "-o", "{}/empty"], 1, "cannot write"),
    "output below a file": (["sample", "{}/plain.safetensors", "-o", "{}/text.png/a.png"], 1, "cannot write"),
    "second output unwritable": (
        ["sample", "{}/plain.safetensors", "-o", "a.png", "--gif", "no/a.gif"],
        1,
        "no/a.gif",
    ),
    "float64 on the cpu backend": (
        ["sample", "{}/plain.safetensors", "--backend", "cpu", "--dtype", "float64"],
        1,
        "float64",
    ),
    "nothing to complete": (["complete", "{}/plain.safetensors"], 2, "--image"),
    "missing picture": (["complete", "{}/plain.safetensors", "--image", "no.png"], 1, "no.png"),
    "not a picture": (["complete", "{}/plain.safetensors", "--image", "{}/text.png"], 1, "text.png"),
    "picture of another size": (["complete", "{}/plain.safetensors", "--image", "{}/seven.png"], 1, "6x5"),
    "picture for two channels": (
        ["complete", "{}/two-channels.safetensors", "--image", "{}/seven.png"],
        1,
        "1 or 3 channels",
    ),
    "index out of range": (
        ["complete", "{}/digits.safetensors", "--data", "{}/mnist", "--index", "12"],
        1,
        "0 to 11",
    ),
    "too many rows": (
        ["complete", "{}/digits.safetensors", "--data", "{}/mnist", "--rows-given", "29"],
        1,
        "28 rows",
    ),
    "data of another shape": (["complete", "{}/plain.safetensors", "--data", "{}/mnist"], 1, "28, 28"),
    "wrong data folder": (["eval", "{}/digits.safetensors", "--data", "{}/empty"], 1, "empty"),
    "no data folder": (["eval", "{}/digits.safetensors", "--data", "{}/none"], 1, "none"),
    "eval of another shape": (["eval", "{}/plain.safetensors", "--data", "{}/mnist"], 1, "28, 28"),
    "eval without data": (["eval", "{}/digits.safetensors"], 2, "--data"),
    "unknown recipe": (["train", "x", "--data", "{}/mnist", "--out", "o"], 1, "unknown recipe 'x'"),
    "nothing to resume": (
        ["train", "gated-pixelcnn-mnist", "--data", "{}/mnist", "--out", "o", "--resume"],
        1,
        "o/",
    ),
    "train into a file": (
        ["train", "gated-pixelcnn-mnist", "--data", "{}/mnist", "--out", "{}/text.png"],
        1,
        "text.png",
    ),
    "absurd steps": (
        ["train", "gated-pixelcnn-mnist", "--data", "{}/mnist", "--out", "o", "--set", "steps=1000000000000"],
        1,
        "steps must be at most 1,000,000,000, not 1000000000000",
    ),
    "absurd batch": (
        ["train", "gated-pixelcnn-mnist", "--data", "{}/mnist", "--out", "o", "--set", "batch_size=-3"],
        1,
        "batch_size must be at least 1, not -3",
    ),
    "absurd images at a time": (["sample", "{}/plain.safetensors", "--batch-size", "1000000000000"], 2, "to 1048576"),
    "JPEG named": (["sample", "{}/plain.safetensors", "-o", "x.jpg"], 1, "--output writes PNG, so give it the name"),
    "model named": (["sample", "{}/plain.safetensors", "-o", "x.safetensors"], 1, "so give it the name x.png"),
    "PNG of a GIF": (["sample", "{}/plain.safetensors", "-o", "x.GIF"], 1, "name x.png"),
    "GIF named PNG": (["sample", "{}/plain.safetensors", "--gif", "x.png"], 1, "--gif writes GIF"),
    "arrays named PNG": (["sample", "{}/plain.safetensors", "--npz", "x.png"], 1, "--npz writes NPZ"),
    "shape of a file that has one": (["sample", "{}/plain.safetensors", "--shape", "1,5,6"], 1, "leave both out"),
    "shape of two numbers": (["sample", "{}/plain.safetensors", "--shape", "5,6"], 1, "--shape has 2 numbers"),
    "config of nothing": (["sample", "{}/plain.safetensors", "--config", "hidden=4"], 2, "a name of: dilations"),
    "config twice": (
        ["eval", "{}/digits.safetensors", "--data", "{}/mnist", "--config", "dilations=1", "--config", "dilations=2"],
        1,
        "given twice",
    ),
    "shape of a shipped model": (["convert", "gated-pixelcnn-mnist", "a.safetensors", "--shape", "1,9,9"], 1, "both"),
    "layout of a shipped model": (["convert", "gated-pixelcnn-mnist", "a.safetensors", "--layout", "uvadlc"], 1, "out"),
    "shape of a standard configuration": (["bench", "pixelcnnpp", "--shape", "3,8,8"], 1, "standard configuration"),
    "shape of no model": (["models", "--shape", "3,8,8"], 1, "give the MODEL"),
    "convert to another format": (["convert", "{}/plain.safetensors", "a.pt"], 1, ".safetensors"),
    "convert into nowhere": (["convert", "{}/plain.safetensors", "no/a.safetensors"], 1, "no/a.safetensors"),
    "convert nothing": (["convert", "{}/none.ckpt", "a.safetensors"], 1, "none.ckpt"),
    "bench into nowhere": (["bench", "{}/plain.safetensors", "--json", "no/a.json"], 1, "cannot write"),
    "bench of nothing": (["bench", "{}/plain.safetensors", "--batch-sizes", "1,,2"], 2, "''"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(run: Callable, tmp_path: Path, case: str) -> None:
    words, expected_status, expected_text = BAD[case]
    status, out, err = run(*words)
    assert status == expected_status, err
    assert err.startswith("pixelfast: error: ") and err.count("\n") == 1 and err.endswith("\n")
    assert expected_text in err
    assert "Traceback" not in err and out == ""
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


def test_unwritable_output_is_found_before_sampling(run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample.pixelfast, "compile", lambda *_, **__: pytest.fail("it began to work"))
    assert run("sample", "{}/plain.safetensors", "-o", "no/a.png")[0] == 1


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (KeyboardInterrupt(), 130, "pixelfast: interrupted\n"),
        (Stopped(signal.SIGINT), 130, "pixelfast: interrupted\n"),
        (Stopped(signal.SIGTERM), 143, "pixelfast: terminated\n"),
        (
            RuntimeError("two\nlines"),
            1,
            "pixelfast: error: RuntimeError: two lines (pixelfast --debug shows where)\n",
        ),
        (OSError(28, "No space left on device", "x"), 1, "pixelfast: error: x: No space left on device\n"),
        (MemoryError(), 1, "pixelfast: error: MemoryError:  (pixelfast --debug shows where)\n"),
    ],
)
def test_failure_during_the_work_leaves_nothing(
    run: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    status: int,
    text: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        assert any(tmp_path.iterdir()), "the output is checked by opening it"
        raise error

    (tmp_path / "old.png").write_bytes(b"old")
    monkeypatch.setattr(pixelfast.Sampler, "sample", fail)
    words = ("sample", "{}/plain.safetensors", "-o", "old.png", "--gif", "new.gif")
    assert run(*words) == (status, "", text)
    assert [path.name for path in tmp_path.iterdir()] == ["old.png"]
    assert (tmp_path / "old.png").read_bytes() == b"old"


def test_debug_shows_the_traceback(run: Callable) -> None:
    with pytest.raises(PixelfastError):
        run("--debug", "sample", "{}/nothing.safetensors")


def test_a_process_ends_with_the_status(folder: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "pixelfast", "sample", str(folder / "truncated.safetensors")]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("pixelfast: error: ") and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


class TestOutputs:
    def test_devices_are_written_not_replaced(self) -> None:
        with outputs.Outputs() as pending:
            pending.open("/dev/null").write(b"x")
            pending.commit()
        assert Path("/dev/null").is_char_device()

    def test_links_keep_pointing(self, tmp_path: Path) -> None:
        (tmp_path / "target").write_bytes(b"old")
        (tmp_path / "link").symlink_to("target")
        with outputs.Outputs() as pending:
            pending.open(tmp_path / "link").write(b"new")
            pending.commit()
        assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_bytes() == b"new"

    def test_permissions_are_those_of_new_files(self, tmp_path: Path) -> None:
        (tmp_path / "plain").write_bytes(b"")
        with outputs.Outputs() as pending:
            pending.open(tmp_path / "atomic").write(b"x")
            pending.commit()
        assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode

    @pytest.mark.parametrize("name", ["b.png", "c.png"])
    def test_a_file_that_cannot_be_finished_is_named_and_leaves_nothing(self, tmp_path: Path, name: str) -> None:
        """As on a full disk, where closing a file fails too: it writes what it still holds."""
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            with pytest.raises(PixelfastError, match=f"cannot write {tmp_path}/{name}: File too large$"):
                with outputs.Outputs() as pending:
                    streams = {path: pending.open(tmp_path / path) for path in ("a.png", "b.png", "c.png")}
                    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
                    streams[name].write(b"x")
                    pending.commit()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
    def test_a_signal_that_ends_the_process_leaves_nothing(self, tmp_path: Path, number: int) -> None:
        before = signal.signal(number, signal.SIG_DFL)
        try:
            with pytest.raises(SystemExit) as stop:
                with outputs.Outputs() as pending:
                    pending.open(tmp_path / "a.png").write(b"x")
                    signal.raise_signal(number)
            assert stop.value.code == 128 + number and list(tmp_path.iterdir()) == []
            assert signal.getsignal(number) is signal.SIG_DFL
        finally:
            signal.signal(number, before)

    def test_a_signal_that_is_ignored_stays_ignored(self) -> None:
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            with outputs.Outputs():
                signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        finally:
            signal.signal(signal.SIGHUP, before)


class TestPictures:
    def test_colours_and_levels(self) -> None:
        integers = np.array([[[[0, 3]], [[1, 2]], [[3, 0]]]])
        assert np.asarray(images.grid(integers, 4)).tolist() == [[[0, 85, 255], [255, 170, 0]]]

    def test_animation_shows_the_rows_sampled_so_far(self, tmp_path: Path) -> None:
        integers = np.full((1, 1, 3, 2), 255)
        with (tmp_path / "a.gif").open("wb") as stream:
            images.write_gif(stream, integers, 256)
        with Image.open(tmp_path / "a.gif") as animation:
            frames = []
            for i in range(animation.n_frames):
                animation.seek(i)
                frames.append(np.asarray(animation.convert("L"))[:, 0].tolist())
        assert frames == [[0, 0, 0], [255, 0, 0], [255, 255, 0], [255, 255, 255]]


def test_closed_streams_stop_no_command(run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python then has None in their place."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert progress.wanted(True) is progress.wanted(None) is False
    assert run("sample", "{}/plain.safetensors", "-n", "2", "-o", "a.png") == (0, "", "")
    assert (tmp_path / "a.png").exists()


@pytest.mark.parametrize("option", ["-o", "--gif", "--npz"])
def test_an_empty_name_is_not_the_default(run: Callable, tmp_path: Path, option: str) -> None:
    status, _, err = run("sample", "{}/plain.safetensors", option, "")
    assert status == 2 and "the name of a file is empty" in err
    assert list(tmp_path.iterdir()) == []


def test_bars_follow_the_terminal_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal in (True, False):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal, raising=False)
        assert progress.wanted(None) is terminal
        assert progress.wanted(True) is True and progress.wanted(False) is False
