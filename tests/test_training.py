"""The training loop on a handful of images: it learns, resumes to the same bits, refuses what it must."""

from __future__ import annotations

import io
import json
import math
import shutil
import signal
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_runs import CONDITIONAL, TINY, differences, half_written, losses, partial_files, write_data

from pixelfast import bars, checkpoints
from pixelfast.cli import train as train_command
from pixelfast.cli.main import main
from pixelfast.errors import CheckpointError, PixelfastError
from pixelfast.models import GatedPixelCNN, registry
from pixelfast.training import RECIPES, Recipe, bits_per_dim, blocks, loop, report, train
from pixelfast.training.distribution import Processes
from pixelfast.training.evaluate import mean_loss, total_loss
from pixelfast.training.images import open_splits
from pixelfast.training.run import Run
from pixelfast.training.snapshot import newest_snapshot, read_snapshot, snapshot_paths
from pixelfast.training.stop import Stopped

# Dropout, flips and pieces: every use of randomness.
RANDOM = replace(
    TINY,
    name="random",
    model="pixelcnn_plus_plus",
    config={"shape": [1, 8, 8], "blocks": 1, "filters": 2, "mixtures": 2},
    micro_batch_size=2,
    flip=True,
    data_init=True,
)


class Killed(Exception):
    """Stands for the process dying in the middle of a run."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "blocks.npz")


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than the runs; one test has them."""
    monkeypatch.setattr(report, "can_plot", lambda: False)


@pytest.fixture
def before_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], None]], None]:
    """Make something happen before a step is taken; before_step(-1, ...) undoes it."""
    advance = Run.advance

    def arrange(step: int, what: Callable[[], None]) -> None:
        def advance_or_not(run: Run) -> None:
            if run.step == step:
                what()
            advance(run)

        monkeypatch.setattr(Run, "advance", advance_or_not)

    return arrange


def die() -> None:
    raise Killed


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    message = str(error.value)
    assert message and "\n" not in message
    return message


def newest(out: Path) -> Any:
    return newest_snapshot(out, lambda text: pytest.fail(text))[1]


@pytest.mark.parametrize("recipe", [TINY, RANDOM, CONDITIONAL], ids=lambda recipe: recipe.name)
def test_resumed_equals_uninterrupted(data: Path, tmp_path: Path, before_step: Any, recipe: Recipe) -> None:
    whole = train(recipe, data=data, out=tmp_path / "whole", progress=False)
    out = tmp_path / "killed"
    for step, resume in ((5, False), (8, True)):
        before_step(step, die)
        with pytest.raises(Killed):
            train(recipe, data=data, out=out, resume=resume, progress=False)
    before_step(-1, die)
    resumed = train(None, data=data, out=out, resume=True, progress=False)
    assert (resumed.steps, resumed.loss) == (whole.steps, whole.loss)
    assert differences(out, tmp_path / "whole") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [2, 3])
def test_a_stop_loses_no_step(
    data: Path, tmp_path: Path, before_step: Any, capsys: pytest.CaptureFixture, number: int, step: int
) -> None:
    """Before a step with and without validation, which is then made up for."""
    train(TINY, data=data, out=tmp_path / "whole", progress=False)
    before_step(step, lambda: signal.raise_signal(number))
    handler = signal.getsignal(number)
    out = tmp_path / "stopped"
    with pytest.raises(Stopped) as stopped:
        train(TINY, data=data, out=out, progress=False)
    assert stopped.value.status == 128 + number
    assert signal.getsignal(number) is handler
    assert newest(out).state["step"] == step + 1
    said = capsys.readouterr().out.strip().splitlines()[-1]
    assert f"stopped at step {step + 1} of 9" in said
    assert f"go on with: pixelfast train --resume --data {data} --out {out}" in said
    before_step(-1, die)
    train(TINY, data=data, out=out, resume=True, progress=False)
    assert differences(out, tmp_path / "whole") == []


@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_command_that_is_stopped_says_by_what(
    data: Path, tmp_path: Path, before_step: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
    number: int, status: int, word: str,
) -> None:  # fmt: skip
    """After the snapshot, from which the run goes on."""
    monkeypatch.setitem(RECIPES, "tiny", TINY)
    words = ["train", "--data", str(data), "--out", str(tmp_path / "out")]
    before_step(4, lambda: signal.raise_signal(number))
    assert main([*words, "tiny"]) == status
    assert capsys.readouterr().err == f"pixelfast: {word}\n"
    assert newest(tmp_path / "out").state["step"] == 5
    before_step(-1, die)
    assert main([*words, "--resume"]) == 0


def test_other_processes_end_with_the_status_and_say_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("RANK", "1")
    for error, status in ((Stopped(signal.SIGTERM), 143), (Stopped(signal.SIGINT), 130), (KeyboardInterrupt(), 130)):

        def stop(*_: Any, error: BaseException = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr(train_command.training, "train", stop)
        with pytest.raises(SystemExit) as end:
            main(["train", "gated-pixelcnn-mnist", "--data", str(data), "--out", str(tmp_path / "out")])
        assert end.value.code == status and capsys.readouterr().err == ""


def test_a_stop_during_the_last_evaluation(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(TINY, data=data, out=tmp_path / "whole", progress=False)
    evaluate = loop._Trainer.evaluate_at_the_end

    def stopped(trainer: Any) -> float:
        signal.raise_signal(signal.SIGTERM)
        return evaluate(trainer)

    monkeypatch.setattr(loop._Trainer, "evaluate_at_the_end", stopped)
    with pytest.raises(Stopped) as stop:
        train(TINY, data=data, out=tmp_path / "out", progress=False)
    assert stop.value.status == 143
    monkeypatch.setattr(loop._Trainer, "evaluate_at_the_end", evaluate)
    train(TINY, data=data, out=tmp_path / "out", resume=True, progress=False)
    assert differences(tmp_path / "out", tmp_path / "whole") == []


def test_every_part_of_the_snapshot_matters(data: Path, tmp_path: Path, before_step: Any) -> None:
    """The comparisons can fail: a resume that restores less does not give the same bits."""
    whole = train(RANDOM, data=data, out=tmp_path / "whole", progress=False)
    before_step(5, die)
    out = tmp_path / "killed"
    with pytest.raises(Killed):
        train(RANDOM, data=data, out=out, progress=False)
    before_step(-1, die)
    load = Run.load

    def resumed(change: Callable[[Run, Run], None]) -> float:
        def load_less(run: Run, snapshot: Any) -> None:
            fresh = Run(run.recipe, registry.create(run.recipe.model, **run.recipe.config), images, run._processes)
            load(run, snapshot)
            change(run, fresh)

        images = open_splits(data, RANDOM, registry.create(RANDOM.model, **RANDOM.config)).train
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(out, copy)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Run, "load", load_less)
            return train(RANDOM, data=data, out=copy, resume=True, progress=False).loss

    def lose_step(run: Run, fresh: Run) -> None:
        run.step = 2

    assert resumed(lambda run, fresh: None) == whole.loss
    for change in (
        lambda run, fresh: run.model.load_state_dict(fresh.model.state_dict()),
        lambda run, fresh: run.average.load_state_dict(fresh.average.state_dict()),
        lambda run, fresh: run._optimizer.load_state_dict(fresh._optimizer.state_dict()),
        lose_step,
    ):
        assert resumed(change) != whole.loss


def test_a_finished_run_resumes_to_its_result(data: Path, tmp_path: Path) -> None:
    first = train(TINY, data=data, out=tmp_path / "out", progress=False)
    shutil.copytree(tmp_path / "out", tmp_path / "copy")
    first.path.unlink()
    assert train(TINY, data=data, out=tmp_path / "out", resume=True, progress=False) == first
    assert differences(tmp_path / "out", tmp_path / "copy") == []


def test_a_resumed_run_may_get_more_steps_or_fewer(data: Path, tmp_path: Path, before_step: Any) -> None:
    """The schedule is that of the new number from there on; a run that never had another one is another run."""
    before_step(4, die)
    with pytest.raises(Killed):
        train(TINY, data=data, out=tmp_path / "run", progress=False)
    before_step(-1, die)
    longer = replace(TINY, steps=12)
    result = train(None, changes=["steps=12"], data=data, out=tmp_path / "run", resume=True, progress=False)
    assert result.steps == 12
    rates = losses(tmp_path / "run", "learning_rate")
    assert rates == [TINY.learning_rate_at(1)] + [longer.learning_rate_at(step) for step in (3, 5, 7, 9, 11)]
    with pytest.raises(CheckpointError, match="step 12, which is past the 9 steps asked for"):
        train(TINY, data=data, out=tmp_path / "run", resume=True, progress=False)


def test_a_start_from_trained_weights(data: Path, tmp_path: Path) -> None:
    """What the file has is taken, a condition that is new is not: one step at no learning rate to speak of."""
    trained = train(TINY, data=data, out=tmp_path / "trained", progress=False)
    recipe = replace(CONDITIONAL, micro_batch_size=None, steps=1, learning_rate=1e-12)
    started = train(recipe, start=trained.path, data=data, out=tmp_path / "started", progress=False)
    fresh = train(recipe, data=data, out=tmp_path / "fresh", progress=False)
    old, new, other = (checkpoints.load(result.path).state_dict() for result in (trained, started, fresh))
    for name, tensor in new.items():
        torch.testing.assert_close(tensor, old[name] if name in old else other[name], rtol=0, atol=1e-9)
    assert len(old) < len(new)
    assert started.loss < 0.99 * fresh.loss


def test_what_a_start_refuses(data: Path, tmp_path: Path) -> None:
    trained = train(TINY, data=data, out=tmp_path / "trained", progress=False)
    wider = replace(TINY, config={**TINY.config, "hidden": 5})
    for recipe, out, message in (
        (wider, "a", r"has \S+ in shape \(4, .* and the recipe's model in shape \(5, .*differs in what it adds"),
        (replace(RANDOM, data_init=False), "b", r"has \S+ in shape .* and the recipe's model not at all"),
        (RANDOM, "c", "data_init would replace the weights"),
    ):
        with pytest.raises(PixelfastError, match=message):
            train(recipe, start=trained.path, data=data, out=tmp_path / out, progress=False)
        assert not (tmp_path / out).exists()
    with pytest.raises(PixelfastError, match="goes on with its own weights"):
        train(TINY, start=trained.path, data=data, out=tmp_path / "trained", resume=True, progress=False)


def test_processes_started_again_have_no_use_for_the_start(
    data: Path, tmp_path: Path, before_step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchrun starts them with the arguments they had, and a snapshot is there."""
    trained = train(TINY, data=data, out=tmp_path / "trained", progress=False)
    whole = train(TINY, start=trained.path, data=data, out=tmp_path / "whole", progress=False)
    before_step(5, die)
    with pytest.raises(Killed):
        train(TINY, start=trained.path, data=data, out=tmp_path / "again", progress=False)
    before_step(-1, die)

    @contextmanager
    def restarted(device: Any) -> Iterator[Processes]:
        yield Processes(0, 1, torch.device("cpu"), grouped=False, restarted=True)

    monkeypatch.setattr(loop, "processes", restarted)
    again = train(TINY, start=trained.path, data=data, out=tmp_path / "again", progress=False)
    assert again.path.read_bytes() == whole.path.read_bytes()
    assert differences(tmp_path / "again", tmp_path / "whole") == []


@pytest.mark.parametrize("device", ["abacus", "meta", "mps"])
def test_devices_that_training_does_not_run_on(data: Path, tmp_path: Path, device: str) -> None:
    with pytest.raises(PixelfastError, match="cpu and cuda") as error:
        train(TINY, data=data, out=tmp_path / "out", progress=False, device=device)
    assert device in one_line(error)
    assert not (tmp_path / "out").exists()


def test_nobody_listening_does_not_end_a_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Words that go to a full disk or a pipe that is gone are lost, and nothing else."""

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bars.tqdm, "write", full)
    assert train(TINY, data=data, out=tmp_path, progress=False).steps == TINY.steps


class Broken(io.StringIO):
    """A stream that fails from some write on; `closed` as a closed one does."""

    def __init__(self, error: Exception, after: int) -> None:
        super().__init__()
        self._error, self._left = error, after

    def write(self, text: str) -> int:
        self._left -= 1
        if self._left < 0:
            raise self._error
        return len(text)

    def flush(self) -> None:
        if self._left < 0:
            raise self._error


@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize(
    "error",
    [BrokenPipeError(32, "Broken pipe"), OSError(5, "Input/output error"), ValueError("I/O operation on closed file")],
    ids=["pipe", "terminal", "closed"],
)
def test_a_bar_that_cannot_be_drawn_does_not_end_a_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, after: int
) -> None:
    whole = train(TINY, data=data, out=tmp_path / "whole", progress=False)
    stream = Broken(error, after)
    monkeypatch.setattr(sys, "stderr", stream)
    got = train(TINY, data=data, out=tmp_path / "broken", progress=True)
    assert stream._left < 0, "the bar was never drawn"
    assert got.path.read_bytes() == whole.path.read_bytes()


def test_a_closed_standard_error_means_no_bar(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    assert train(TINY, data=data, out=tmp_path, progress=True).steps == TINY.steps


def test_the_last_evaluation_is_announced_where_no_bar_is(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    train(TINY, data=data, out=tmp_path / "quiet", progress=False)
    *_, last = capsys.readouterr().out.splitlines()
    assert last.startswith("step 9 of 9: now the whole test set, ") and last.endswith(" images")
    train(TINY, data=data, out=tmp_path / "bars", progress=True)
    assert "whole test set" not in capsys.readouterr().out


def test_the_seed_decides(data: Path, tmp_path: Path) -> None:
    one, same, other = (
        train(replace(TINY, seed=seed), data=data, out=tmp_path / name, progress=False).loss
        for name, seed in (("one", 1), ("same", 1), ("other", 2))
    )
    assert one == same != other


def test_the_global_generator_is_left_alone(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    train(replace(RANDOM, steps=2), data=data, out=tmp_path, progress=False)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_loss_falls(data: Path, tmp_path: Path) -> None:
    """Black but for a fifth of the pixels, which are spread over 56 levels."""
    recipe = replace(TINY, steps=60, learning_rate=3e-2, snapshot_every=100, validate_every=100)
    result = train(recipe, data=data, out=tmp_path, progress=False)
    uniform = math.log2(256)
    assert 144 / 784 * math.log2(56) < result.loss < 0.4 * uniform


def test_the_saved_model_is_the_one_that_was_evaluated(data: Path, tmp_path: Path) -> None:
    result = train(TINY, data=data, out=tmp_path, progress=False)
    assert result.path == tmp_path / "model.safetensors"
    model = checkpoints.load(result.path)
    test_images = torch.from_numpy(np.load(data)["images_test"])[:, None]
    assert bits_per_dim(model, test_images) == result.loss
    live = GatedPixelCNN(**TINY.config)
    live.load_state_dict(newest(tmp_path).tensors["model"])
    assert bits_per_dim(live, test_images) != result.loss


def test_the_log(data: Path, tmp_path: Path) -> None:
    result = train(TINY, data=data, out=tmp_path, progress=False)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 4, 6, 8, 8, 9, 9]
    assert lines[0].keys() == {"step", "bits_per_dim", "gradient_norm", "learning_rate"}
    assert lines[1]["learning_rate"] == TINY.learning_rate_at(3)
    assert lines[-1] == {"step": 9, "test_bits_per_dim": result.loss}
    each = train(replace(TINY, log_every=1), data=data, out=tmp_path / "each", progress=False)
    assert each.loss == result.loss
    singly, pairs = losses(tmp_path / "each"), losses(tmp_path)
    assert pairs[:4] == pytest.approx([(a + b) / 2 for a, b in zip(singly[::2], singly[1::2], strict=False)])


def test_plot_samples_and_dashboard(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, int]] = []

    class Writer:
        def __init__(self, folder: str, purge_step: int) -> None:
            shown.append((Path(folder).name, purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            assert math.isfinite(value)
            shown.append((name, step))

        def close(self) -> None:
            shown.append(("closed", 0))

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    recipe = replace(CONDITIONAL, steps=4, validate_every=4, sample_every=2, sample_images=3)
    monkeypatch.setattr(report, "can_plot", lambda: True)
    train(recipe, data=data, out=tmp_path, progress=False)
    assert half_written(tmp_path) == []
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")}
    assert names == {"loss.png", "samples/step-00000002.png", "samples/step-00000004.png"}
    assert shown[0] == ("tensorboard", 1) and shown[-1] == ("closed", 0)
    assert {("bits_per_dim", 2), ("validation_bits_per_dim", 4), ("test_bits_per_dim", 4)} <= set(shown)


def test_gradients_accumulate_to_those_of_the_batch(data: Path, tmp_path: Path) -> None:
    """Pieces of a batch sum up in another order, and to nothing else."""
    for name, micro in (("whole", None), ("pieces", 1)):
        recipe = replace(TINY, micro_batch_size=micro, log_every=1)
        train(recipe, data=data, out=tmp_path / name, progress=False)
    assert losses(tmp_path / "pieces") == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)
    assert losses(tmp_path / "pieces") != losses(tmp_path / "whole")


@pytest.mark.parametrize("recipe", [TINY, RANDOM], ids=lambda recipe: recipe.name)
def test_recomputing_changes_memory_and_not_one_bit(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: Recipe
) -> None:
    recomputed: list[int] = []
    real = blocks.checkpoint
    monkeypatch.setattr(blocks, "checkpoint", lambda *args, **how: recomputed.append(1) or real(*args, **how))
    train(recipe, data=data, out=tmp_path / "plain", progress=False)
    assert not recomputed
    recipe = replace(recipe, checkpoint_activations=True)
    train(recipe, data=data, out=tmp_path / "recomputed", progress=False)
    assert len(recomputed) >= recipe.steps
    assert sorted({name.rpartition("/")[2] for name in differences(tmp_path / "plain", tmp_path / "recomputed")}) == [
        "manifest.json",
        "state.json",
    ]


def test_recomputing_keeps_less() -> None:
    def kept(recompute: bool) -> int:
        torch.manual_seed(0)
        model = GatedPixelCNN(hidden=64, dilations=[1, 1, 1, 1])
        if recompute:
            blocks.recompute_blocks(model)
        sizes: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            sizes[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = mean_loss(model, torch.zeros(1, 1, 28, 28, dtype=torch.uint8))
        loss.backward()
        return sum(sizes.values())

    assert kept(True) < 0.5 * kept(False)


def test_bfloat16_is_near_float32_and_not_the_same(data: Path, tmp_path: Path) -> None:
    for precision in ("float32", "bfloat16"):
        recipe = replace(TINY, precision=precision)
        train(recipe, data=data, out=tmp_path / precision, progress=False)
    high, low = losses(tmp_path / "float32"), losses(tmp_path / "bfloat16")
    assert low != high
    # 2^-8 is bfloat16's rounding; a loss is a mean over thousands of roundings of either sign.
    assert low == pytest.approx(high, rel=2**-8)
    assert all(tensor.dtype == torch.float32 for tensor in newest(tmp_path / "bfloat16").tensors["model"].values())


@pytest.mark.slow
def test_compiled_is_near_eager(data: Path, tmp_path: Path) -> None:
    for name, compiled in (("eager", False), ("compiled", True)):
        train(replace(TINY, compile=compiled), data=data, out=tmp_path / name, progress=False)
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "eager"), rel=1e-4)


@pytest.mark.parametrize(
    ("levels", "change"), [(2, {"binarise": "threshold"}), (2, {"binarise": "stochastic"}), (8, {"levels": 8})]
)
def test_fewer_levels(data: Path, tmp_path: Path, levels: int, change: dict[str, Any]) -> None:
    recipe = replace(TINY, config={**TINY.config, "levels": levels}, **change)
    result = train(recipe, data=data, out=tmp_path / "out", progress=False)
    assert 0 < result.loss < math.log2(levels) + 0.5
    with pytest.raises(PixelfastError, match="levels"):
        train(replace(TINY, **change), data=data, out=tmp_path / "other", progress=False)


def test_data_dependent_start(data: Path, tmp_path: Path) -> None:
    before = losses_of_first_step(replace(RANDOM, data_init=False), data, tmp_path / "plain")
    after = losses_of_first_step(RANDOM, data, tmp_path / "initialised")
    assert before != after
    with pytest.raises(PixelfastError, match="no weight-normalised layer"):
        train(replace(TINY, data_init=True), data=data, out=tmp_path / "none", progress=False)


def losses_of_first_step(recipe: Recipe, data: Path, out: Path) -> float:
    train(replace(recipe, steps=1, log_every=1), data=data, out=out, progress=False)
    return losses(out)[0]


def test_adam_and_adamw_differ_by_the_decay(data: Path, tmp_path: Path) -> None:
    results = {}
    for name, decay in (("adam", 0.0), ("adamw", 0.0), ("adam", 0.1), ("adamw", 0.1)):
        recipe = replace(TINY, optimizer=name, weight_decay=decay)
        out = tmp_path / f"{name}{decay}"
        results[name, decay] = train(recipe, data=data, out=out, progress=False).loss
    assert results["adam", 0.0] == results["adamw", 0.0]
    assert len(set(results.values())) == 3


def test_bits_per_dim_weighs_every_image_the_same() -> None:
    torch.manual_seed(0)
    model = GatedPixelCNN(hidden=4, dilations=[1]).double()
    images = torch.cat(
        [torch.zeros(6, 1, 28, 28, dtype=torch.uint8), torch.full((1, 1, 28, 28), 255, dtype=torch.uint8)]
    )
    singly = [bits_per_dim(model, image[None]) for image in images]
    assert abs(singly[0] - singly[-1]) > 1e-2
    assert bits_per_dim(model, images, batch_size=3) == pytest.approx(sum(singly) / 7, rel=1e-12)


def test_bits_per_dim_leaves_the_mode() -> None:
    model = GatedPixelCNN(hidden=4, dilations=[1])
    images = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    for training in (True, False):
        model.train(training)
        bits_per_dim(model, images)
        assert model.training is training


def test_bits_per_dim_uses_the_labels() -> None:
    torch.manual_seed(0)
    model = GatedPixelCNN(hidden=4, dilations=[1], classes=2)
    images = torch.zeros(2, 1, 28, 28, dtype=torch.uint8)
    one, other = (bits_per_dim(model, images, torch.full((2,), label)) for label in (0, 1))
    assert one != other
    assert bits_per_dim(model, images, torch.tensor([0, 1])) == pytest.approx((one + other) / 2, rel=1e-6)


def test_wrong_data_folder(tmp_path: Path) -> None:
    with pytest.raises(PixelfastError) as error:
        train(TINY, data=tmp_path / "nowhere", out=tmp_path / "out", progress=False)
    assert "nowhere" in one_line(error) and "does not exist" in one_line(error)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"shape": [1, 28, 28]}, "config.shape=[1, 8, 8]"),
        ({"levels": 2}, "256 levels and the model is made for 2"),
        ({"classes": 2}, "labels up to 2"),
        ({"vector_condition": 2}, "config.classes"),
    ],
)
def test_models_that_do_not_fit_the_data(data: Path, tmp_path: Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(PixelfastError) as error:
        train(replace(TINY, config={**TINY.config, **config}), data=data, out=tmp_path / "out", progress=False)
    assert message in one_line(error)
    assert not (tmp_path / "out").exists()


def test_output_that_cannot_be_made(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PixelfastError) as error:
        train(TINY, data=data, out=tmp_path / "file" / "out", progress=False)
    assert "cannot make the output folder" in one_line(error)


def test_a_run_killed_before_its_first_step_resumes(data: Path, tmp_path: Path, before_step: Any) -> None:
    before_step(0, die)
    with pytest.raises(Killed):
        train(TINY, data=data, out=tmp_path, progress=False)
    before_step(-1, die)
    assert train(TINY, data=data, out=tmp_path, resume=True, progress=False).steps == TINY.steps


def test_a_run_is_not_overwritten(data: Path, tmp_path: Path) -> None:
    first = train(TINY, data=data, out=tmp_path, progress=False)
    before = first.path.read_bytes()
    with pytest.raises(PixelfastError) as error:
        train(replace(TINY, seed=5), data=data, out=tmp_path, progress=False)
    assert "resume it, or choose another folder" in one_line(error)
    assert first.path.read_bytes() == before


def test_nothing_to_resume(data: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as error:
        train(TINY, data=data, out=tmp_path / "out", resume=True, progress=False)
    assert "nothing to resume" in one_line(error)
    assert not (tmp_path / "out").exists()


def test_another_recipe_is_refused(data: Path, tmp_path: Path) -> None:
    train(TINY, data=data, out=tmp_path, progress=False)
    with pytest.raises(CheckpointError) as error:
        train(replace(TINY, steps=20, seed=3, warmup_steps=5), data=data, out=tmp_path, resume=True, progress=False)
    assert "recipe: seed 3 here, 0 there; warmup_steps 5 here, 2 there; leave" in one_line(error)
    # How often something is written is not the outcome.
    free = replace(TINY, snapshot_every=1, keep_snapshots=5)
    assert train(free, data=data, out=tmp_path, resume=True, progress=False).steps == 9


def test_other_data_is_refused(data: Path, tmp_path: Path, before_step: Any) -> None:
    before_step(5, die)
    with pytest.raises(Killed):
        train(TINY, data=data, out=tmp_path / "out", progress=False)
    fewer = write_data(tmp_path / "fewer.npz", train=11)
    with pytest.raises(CheckpointError) as error:
        train(TINY, data=fewer, out=tmp_path / "out", resume=True, progress=False)
    assert "12 images and the data has 11" in one_line(error)
    with np.load(data) as arrays:
        np.savez(tmp_path / "other.npz", **{name: 255 - a if "image" in name else a for name, a in arrays.items()})
    with pytest.raises(CheckpointError) as error:
        train(TINY, data=tmp_path / "other.npz", out=tmp_path / "out", resume=True, progress=False)
    assert "as many other ones" in one_line(error)


def test_a_loss_that_explodes_stops_the_run(data: Path, tmp_path: Path) -> None:
    with pytest.raises(PixelfastError) as error:
        train(replace(TINY, learning_rate=1e30), data=data, out=tmp_path, progress=False)
    assert "step 1: the loss is nan" in one_line(error)
    assert newest(tmp_path).state["step"] == 0


def test_shards_need_torchrun(data: Path, tmp_path: Path) -> None:
    with pytest.raises(PixelfastError) as error:
        train(replace(TINY, parallel="fsdp"), data=data, out=tmp_path / "out", progress=False)
    assert "torchrun" in one_line(error)


def test_a_gpu_that_is_not_there(data: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    with pytest.raises(PixelfastError) as error:
        train(TINY, data=data, out=tmp_path / "out", progress=False, device="cuda")
    assert "no GPU" in one_line(error)


def test_snapshots_by_the_clock(data: Path, tmp_path: Path, before_step: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SNAPSHOT_SECONDS", 0.0)
    monkeypatch.setattr(loop, "SNAPSHOT_SHARE", 1e9)
    before_step(5, die)
    with pytest.raises(Killed):
        train(replace(TINY, snapshot_every=1000, keep_snapshots=3), data=data, out=tmp_path, progress=False)
    assert [read_snapshot(path).state["step"] for path in snapshot_paths(tmp_path)] == [5, 4, 3]
    assert partial_files(tmp_path) == []


def test_no_images_have_no_loss() -> None:
    """As a process has that is left none of the few there are."""
    model = registry.create(TINY.model, **TINY.config)
    assert total_loss(model, lambda index: pytest.fail("none to take"), torch.arange(0)) == 0.0
