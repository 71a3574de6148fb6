"""`pixelfast bench` and what it is made of, on tiny models: what is counted, printed, written and refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import pixelfast
from pixelfast import machine, rng
from pixelfast.backends.base import Job, Result
from pixelfast.bench import agreement, engines, naive, profile, quiet, sampling, sizes, standard
from pixelfast.cli import bench
from pixelfast.cli.main import main
from pixelfast.errors import BackendError, PixelfastError, ShapeError
from pixelfast.models import VQVAE, VQVAE2, GatedPixelCNN, PixelCNNPlusPlus, VQVAE2WithPriors, registry
from pixelfast.problem import Problem, make_problem

RATES = machine.Machine("test", 1, flops=1e9, bf16_flops=2e9, int8_flops=4e9, cache_bandwidth=1e9, memory_bandwidth=1e9)


def tiny(shape: tuple[int, int, int] = (1, 4, 5), **config: Any) -> GatedPixelCNN:
    torch.manual_seed(0)
    return GatedPixelCNN(shape, **{"levels": 2, "hidden": 2, "dilations": (1,), **config}).eval()


def staged() -> VQVAE2WithPriors:
    """Two maps of codes, sampled one after the other."""
    torch.manual_seed(0)
    prior = {"features": 4, "hidden": 2, "parts": 1, "blocks": 1, "kernel_size": 3}
    model = VQVAE2WithPriors(
        (1, 8, 8),
        hidden=4,
        residual_hidden=2,
        halvings=1,
        codes=4,
        code_width=2,
        top={**prior, "heads": 1},
        bottom={**prior, "condition_hidden": 2, "condition_blocks": 0},
    )
    return model.eval()


def problem_of(model: Any) -> Problem:
    return make_problem(model, None, None, None, None, None)


class TestSampling:
    def measurement(self, dtype: torch.dtype = torch.float32, **changes: Any) -> sampling.Measurement:
        backend = "reference" if dtype == torch.float64 else "auto"
        sampler = pixelfast.compile(tiny((1, 2, 3)), dtype=dtype, backend=backend)
        times = sampling.Times([1.0, 2.0, 5.0], 2.7, 1, 3)
        return replace(
            sampling.measurement(sampler, 4, times, naive.Naive(60.0, 3, 6), 2.5e8, RATES), **{"plan": None, **changes}
        )

    def test_spread_is_of_all_repeats_and_the_rest_of_the_median(self) -> None:
        row = self.measurement()
        assert (row.seconds, row.spread, row.ratio, row.share) == (2.0, 2.0, 30.0, 0.5)
        assert row.us_per_pixel == pytest.approx(2e6 / (4 * 6))
        assert row.images_per_second == 2.0

    def test_one_repeat_has_no_spread(self) -> None:
        assert sampling.spread([3.0]) is None
        lines = sampling.measurement_table([self.measurement(spread=None)]).splitlines()
        assert dict(zip(*map(str.split, lines), strict=False))["spread"] == "-"

    def test_limit_is_that_of_the_dtype(self) -> None:
        assert self.measurement(torch.bfloat16).limit_seconds == 0.5
        assert self.measurement(torch.float64).limit_seconds == 1.0

    @pytest.mark.parametrize(("lasts", "calls", "rounds"), [(0.05, 1, 300), (0.02, 3, 250)])
    def test_of_the_same_images_the_fastest_round_of_each_counts(
        self, lasts: float, calls: int, rounds: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Image 1 takes 0.01 s longer than the others; of each repeat, all rounds but the last one are disturbed."""
        model = tiny(classes=3)
        sampler = pixelfast.compile(model)
        now, seeds = [0.0], []

        def sample(n: int, *, seed: int, on_row: Any, **_: Any) -> None:
            assert on_row is None
            undisturbed = (len(seeds) - 2) // calls // 2 == rounds - 1 or seed == 0
            seeds.append(seed)
            now[0] += lasts + 0.01 * (seed == 1) + (0.0 if undisturbed else 1.0)

        monkeypatch.setattr(sampler, "sample", sample)
        monkeypatch.setattr(sampling.time, "perf_counter", lambda: now[0])
        times = sampling.time_batch(sampler, problem_of(model), 2, 2)
        assert (times.calls, times.rounds) == (calls, rounds)
        assert times.seconds == pytest.approx([lasts + 0.01 / calls] * 2)
        assert times.mean == pytest.approx(lasts + 0.01 / calls + (rounds - 1) / rounds)
        assert seeds == [0, 0, *(2 * rounds * list(range(1, calls + 1)))]

    def test_a_slow_spell_falls_on_all_repeats(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now, done = [0.0], []

        def work(number: int, on_row: Any) -> None:
            done.append(number)
            now[0] += 5.0 if len(done) <= 2 + 4 else 1.0

        monkeypatch.setattr(sampling.time, "perf_counter", lambda: now[0])
        times = sampling.time_repeats(work, 2)
        assert (times.rounds, times.seconds) == (3, [1.0, 1.0])

    def test_long_calls_are_timed_row_by_row(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """In every round another row is disturbed, and what follows the last row once."""
        now, done = [0.0], []

        def work(number: int, on_row: Any) -> None:
            done.append(number)
            for row in range(3):
                now[0] += row + 1.0 + 7.0 * (len(done) % 3 == row)
                if on_row is not None:
                    on_row(row, None)
            now[0] += 0.5 + 7.0 * (len(done) == 3)

        monkeypatch.setattr(sampling.time, "perf_counter", lambda: now[0])
        times = sampling.time_repeats(work, 1)
        assert times.rounds == 3
        assert times.seconds == pytest.approx([6.5])
        assert times.mean == pytest.approx(6.5 + 7.0 + 7.0 / 3)

    def test_rounds_of_other_rows_are_compared_as_a_whole(self) -> None:
        assert sampling._fastest([{0: 1.0, 1: 5.0}, {1: 4.0, -1: 1.0}]) == 5.0

    def test_rows_of_a_real_sampler(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Timing row by row makes the same images, and parts that add up."""
        monkeypatch.setattr(sampling, "ROUND_SECONDS", 1e-9)
        monkeypatch.setattr(sampling, "REPEAT_SECONDS", 1e-9)
        model = tiny()
        times = sampling.time_batch(pixelfast.compile(model), problem_of(model), 2, 2)
        assert (times.calls, times.rounds) == (1, 3)
        assert all(0 < one <= 1.01 * 6 * times.mean for one in times.seconds)

    def test_forecasts_are_a_column_where_there_are_any(self) -> None:
        accepted = sampling._accepted(SimpleNamespace(forecasts=8, forecasts_accepted=6))
        assert accepted == 0.75
        assert sampling._accepted(SimpleNamespace(forecasts=0, forecasts_accepted=0)) is None
        assert sampling._accepted(pixelfast.compile(tiny()).stats) is None
        rows = [self.measurement(), self.measurement(accepted=accepted)]
        lines = sampling.measurement_table(rows).splitlines()
        assert lines[0].endswith("accepted") and [line.split()[-1] for line in lines[1:]] == ["-", "75%"]
        assert "accepted" not in sampling.measurement_table(rows[:1])

    def test_plan(self) -> None:
        plan = {"threads": 2, "sharing": "tasks", "seconds": {"images": 0.75, "tasks": 0.61}}
        line = "2, each task shared (estimated 0.61 s; images of their own 0.75 s)"
        assert sampling.plan_line(plan) == line
        other = sampling.plan_line({**plan, "sharing": "images"})
        assert other == "2, images of their own (estimated 0.75 s; each task shared 0.61 s)"


class TestNaive:
    def test_forwards_are_counted_as_naive_sampling_makes_them(self) -> None:
        """One per pixel for a mixture, one per number where the channels' parameters differ."""
        pixelcnnpp = PixelCNNPlusPlus((3, 4, 4), blocks=1, filters=2, mixtures=2)
        assert naive.extrapolate(problem_of(pixelcnnpp), 1).forwards == 16
        assert naive.forwards_per_batch(problem_of(tiny((3, 2, 2), hidden=3))) == 12

    def test_forwards_after_one_that_warms_up(self) -> None:
        times = iter([5.0, 1.0, 2.0, 3.0, 4.0])
        assert naive.time_forwards(lambda: next(times), float("inf")) == [1.0, 2.0, 3.0]

    def test_no_time_for_more_than_one(self) -> None:
        times = iter([5.0, 1.0])
        assert naive.time_forwards(lambda: next(times), 0.0) == [5.0]

    @pytest.mark.parametrize("seconds", [0.0, float("inf")])
    def test_one_number_of_threads_where_there_is_no_time(
        self, seconds: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(naive, "SECONDS", seconds)
        before = torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            assert naive.extrapolate(problem_of(tiny()), 3).timed == (2 * naive.FORWARDS if seconds else 1)
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(before)


class TestQuiet:
    def test_quiet(self) -> None:
        slower = replace(RATES, flops=0.95e9, memory_bandwidth=0.1e9)
        assert quiet.doubts(RATES, slower, (0.0, quiet.cores()), [("batch 1", 0.05), ("batch 2", None)]) == []

    def test_spread_of_the_machine_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A product of 1/8 s is a round, 120 are a repeat; in every second round it lasts twice as long."""
        now, done = [0.0], []

        def work() -> None:
            done.append(now[0])
            now[0] += 0.25 if len(done) > 2 and (len(done) - 3) % 2 else 0.125

        monkeypatch.setattr(quiet, "product", lambda dtype: work)
        monkeypatch.setattr(sampling.time, "perf_counter", lambda: now[0])
        assert quiet.own_spread(2) == pytest.approx(2 / 3)
        assert quiet.own_spread(1) is None

    @pytest.mark.parametrize(
        ("changes", "load", "spread", "text"),
        [
            ({"flops": 0.5e9}, 0.0, 0.0, "float32 arithmetic ran at 50%"),
            ({"bf16_flops": 8e9}, 0.0, 0.0, "bfloat16 arithmetic ran at 25%"),
            ({"cache_bandwidth": 0.8e9}, 0.0, 0.0, "cache ran at 80%"),
            ({}, 99.0 * quiet.cores(), 0.0, "a load of"),
            ({}, 0.0, 0.2, "differ by 20% (batch 1)"),
        ],
    )
    def test_busy(self, changes: dict[str, float], load: float, spread: float, text: str) -> None:
        for loads in ((0.0, load), (load, 0.0)):
            (doubt,) = quiet.doubts(RATES, replace(RATES, **changes), loads, [("batch 1", spread)])
            assert text in doubt


def test_doubts_are_printed_as_a_list(capsys: pytest.CaptureFixture) -> None:
    row = TestSampling().measurement()
    sampler = pixelfast.compile(tiny())
    sampler.sample(1)
    found = bench.Figures(None, [sampler], [], RATES, [row], [], [], 0.125, ["first", "second"])
    bench.print_figures(found)
    out = capsys.readouterr().out
    assert "unreliable: the machine was not quiet\n  - first\n  - second\n" in out
    assert "float32 product differ by 12%\n" in out


class TestEngines:
    def test_each_combination_once(self) -> None:
        samplers, refusals = engines.compile_each(tiny(), ["reference", "auto"], ["float64"])
        assert [(sampler.backend.name, sampler.dtype) for sampler in samplers] == [("reference", torch.float64)]
        assert refusals == []

    def test_a_refusal_is_a_line(self) -> None:
        samplers, refusals = engines.compile_each(tiny(), ["cpu", "reference"], ["float64"])
        assert [sampler.backend.name for sampler in samplers] == ["reference"]
        assert [str(refusal).split(":")[0] for refusal in refusals] == ["cpu in float64"]

    def test_nothing_left(self) -> None:
        with pytest.raises(BackendError, match="nothing to measure: cpu in float64: no backend"):
            engines.compile_each(tiny(), ["cpu"], ["float64"])


def test_every_class_has_a_standard_configuration() -> None:
    others = {VQVAE, VQVAE2}  # they do not sample
    assert {registry.MODELS[one.model] for one in standard.MODELS.values()} == set(registry.MODELS.values()) - others
    with pytest.raises(PixelfastError, match="pixelcnnpp"):
        standard.create("x")


class TestSizes:
    def test_figures_are_per_image(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sizes, "time_batch", self.time_batch)
        row = sizes.time_size(tiny((3, 8, 8), hidden=3), 5, 2, 3, "reference", torch.float64)
        assert (row.size, row.seconds, row.spread) == (5, 1.0, 2.0)
        assert row.us_per_pixel == pytest.approx(1e6 / 25)
        assert row.bytes_per_image == pixelfast.compile(
            tiny((3, 5, 5), hidden=3), backend="reference", dtype=torch.float64
        ).program.bytes_per_image(8)

    @staticmethod
    def time_batch(sampler: Any, problem: Problem, batch: int, repeats: int, progress: bool) -> sampling.Times:
        assert (sampler.shape, problem.shape, repeats) == ((3, 5, 5), (3, 5, 5), 3)
        sampler.sample(batch)
        return sampling.Times([1.0, 2.0, 5.0], 2.7, 1, 3)

    @pytest.mark.parametrize(
        "model",
        [PixelCNNPlusPlus((3, 4, 4), blocks=1, filters=2, mixtures=2), tiny((1, 4, 4), spatial_condition=2)],
        ids=["multiples of four", "map of a fixed size"],
    )
    def test_a_size_that_a_model_does_not_take(self, model: nn.Module) -> None:
        with pytest.raises(ShapeError, match=r"does not take images of 6x6: .*; leave that size out"):
            sizes.problem_of_size(model, 6)
        assert sizes.problem_of_size(model, 4).shape[1:] == (4, 4)


class TestProfile:
    def program(self) -> Any:
        return pixelfast.compile(tiny((1, 4, 5), hidden=4, dilations=(1, 2))).program

    def test_work_of_the_kernels_is_that_of_the_program(self) -> None:
        program = self.program()
        works = [profile.kernel_work(program, kernel) for kernel in range(len(program.kernels))]
        assert sum(flops for flops, _ in works) == program.flops
        for kernel, (flops, weights) in zip(program.kernels, works, strict=True):
            assert (kernel.contraction is None) == (flops == weights == 0)

    def test_a_task_reads_the_weights_that_any_of_its_sites_uses(self) -> None:
        """Terms of 6 and 10 weights; sites that use the first or both; a task with a site of each, one without."""
        terms = [SimpleNamespace(weight=np.ones((3, 2))), SimpleNamespace(weight=np.ones((5, 2)))]
        contraction = SimpleNamespace(terms=terms, patterns=((0,), (0, 1)), pattern_of_site=np.array([0, 1]))
        program = SimpleNamespace(
            kernels=[None, SimpleNamespace(contraction=contraction)],
            tasks=np.array([[0, 1, 1, 2], [0, 0, 0, 9], [1, 1, 1, 1]]),
            sites=np.array([1, 0, 1]),
        )
        assert profile.kernel_work(program, 1) == (2 * (6 + 16 + 6), (16 + 6) / 2)

    def profiled(self, measured: dict[str, Any]) -> profile.Profile | None:
        """A profile of a sampler whose backend reports `measured`."""
        model = tiny((1, 4, 5), hidden=4, dilations=(1, 2))
        sampler = pixelfast.compile(model)
        backend = sampler.backend

        def run(job: Job) -> Result:
            assert job.profile
            result = backend.run(replace(job, profile=False))
            return Result(result.images, result.params, {**result.stats, **measured})

        sampler.backend = SimpleNamespace(name=backend.name, run=run)
        found = profile.profile(sampler, problem_of(model), 2)
        assert sampler.backend.run is run and sampler.stats is None
        return found

    def test_a_backend_that_does_not_know(self) -> None:
        assert self.profiled({}) is None

    def test_groups(self) -> None:
        program = self.program()
        sites = [program.tasks[program.tasks[:, 1] == i, 3].mean() for i in range(len(program.kernels))]
        works = [profile.kernel_work(program, i) for i in range(len(program.kernels))]
        row = next(i for i, work in enumerate(works) if work[0] and sites[i] >= profile.ROW_SITES)
        pixel = next(i for i, work in enumerate(works) if work[0] and sites[i] < profile.ROW_SITES)
        measured = [
            {"kernel": row, "tasks": 4, "rows": 40, "seconds": 4.0, "waiting": 1.0},
            {"kernel": pixel, "tasks": 20, "rows": 40, "seconds": 2.0, "waiting": 0.5},
            {"kernel": 0, "tasks": 0, "rows": 0, "seconds": 0.0, "waiting": 0.0},
            {"kernel": -1, "tasks": 20, "rows": 40, "seconds": 1.0, "waiting": 0.0},
        ]
        found = self.profiled({"profile": measured})
        assert found is not None
        assert [entry.group for entry in found.entries] == ["rows", "pixels", "drawing"]
        flops, weights = works[row]
        assert found.entries[0].gflops == pytest.approx(2 * flops / 4.0 / 1e9)
        assert found.entries[0].weight_gbytes == pytest.approx(4 * 4 * weights / 4.0 / 1e9)
        lines = profile.summary(replace(found, seconds=8.0)).splitlines()
        shares = [next(word for word in line.split() if word.endswith("%")) for line in lines]
        assert shares == ["37.5%", "18.8%", "12.5%", "18.8%", "12.5%"]
        longest = profile.kernel_table(found, most=2).splitlines()
        assert len(longest) == 3 and f"  k{row} " in longest[1] and f"  k{pixel} " in longest[2]


class Constant(nn.Module):
    """Logits of one pixel with two levels, whatever the input."""

    def __init__(self, gap: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.0, gap], dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits.view(1, 2, 1, 1, 1).expand(len(x), 2, 1, 1, 1)


class TestAgreement:
    SEED = 3

    def compare_constants(self, ours: float, theirs: float) -> agreement.Agreement:
        """Image 0 of a sampler whose second logit is `ours`, and of naive sampling where it is `theirs`.

        Both are relative to the logit at which the noise of that image hangs in the balance.
        """
        setting = {"shape": (1, 1, 1), "likelihood": pixelfast.Categorical(2), "input": "unit"}
        gumbel = -torch.log(-torch.log(rng.uniforms(self.SEED, [0], [0], 2)[0, 0]))
        balance = float(gumbel[0] - gumbel[1])
        fast = pixelfast.compile(Constant(balance + ours), backend="reference", dtype=torch.float64, **setting)
        slow = make_problem(Constant(balance + theirs), outputs=None, condition=None, **setting)
        images = fast.sample(1, seed=self.SEED)
        naive_images = pixelfast.naive_sample(slow.model, 1, seed=self.SEED, **setting)
        return agreement.compare(fast, slow, images, naive_images, self.SEED)

    def test_same_images(self) -> None:
        assert self.compare_constants(1.0, 2.0) == agreement.Agreement(1, 1, 0, 0)

    def test_near_tie(self) -> None:
        found = self.compare_constants(-1e-7, 1e-7)
        assert found == agreement.Agreement(1, 1, 1, 1)
        assert "1 of 1 others part at a near-tie" in str(found)

    def test_other_parameters_are_no_near_tie(self) -> None:
        assert self.compare_constants(-1.0, 1.0) == agreement.Agreement(1, 1, 1, 0)

    def test_wrong_draw_from_the_same_parameters_is_no_near_tie(self) -> None:
        torch.manual_seed(0)
        model = GatedPixelCNN((3, 4, 5), levels=8, hidden=6, dilations=(1,)).eval()
        problem = make_problem(model, None, None, None, None, None)
        sampler = pixelfast.compile(model)
        images = sampler.sample(3, seed=self.SEED)
        other = images.clone()
        other[1, 2, 2, 2] ^= 1
        assert agreement.compare(sampler, problem, images, images, self.SEED).different == 0
        found = agreement.compare(sampler, problem, images, other, self.SEED)
        assert found == agreement.Agreement(3, 180, 1, 0)

    @pytest.mark.parametrize("channels", [1, 3])
    def test_draw_is_the_samplers(self, channels: int) -> None:
        """Redrawing every number from the parameters along an image gives the image."""
        torch.manual_seed(0)
        model = PixelCNNPlusPlus((channels, 4, 4), blocks=1, filters=2, mixtures=2).double().eval()
        problem = make_problem(model, None, None, None, None, None)
        sampler = pixelfast.compile(model, backend="reference", dtype=torch.float64)
        image = sampler.sample(1, seed=self.SEED).long()
        params = sampler.params(image).flatten(2)[0]
        redrawn = [
            [agreement.draw(problem, params[:, pixel], pixel, channel, self.SEED, 0) for pixel in range(16)]
            for channel in range(channels)
        ]
        assert redrawn == image[0].flatten(1).tolist()


class TestCommand:
    @pytest.fixture(autouse=True)
    def quickly(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """In an empty directory with a tiny model, with as little measuring as there can be."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(machine, "MATRIX", 64)
        monkeypatch.setattr(machine, "fastest", lambda work, seconds=0.0: 1e-3)
        monkeypatch.setattr(sampling, "ROUND_SECONDS", 1e-9)
        monkeypatch.setattr(sampling, "REPEAT_SECONDS", 1e-9)
        monkeypatch.setattr(naive, "SECONDS", 0.0)
        pixelfast.save(tiny((1, 4, 4), levels=4, classes=3), "tiny.safetensors")

    @pytest.fixture
    def run(self, capsys: pytest.CaptureFixture) -> Callable:
        def run(*words: str) -> tuple[int, str, str]:
            """Exit status, standard output, standard error."""
            try:
                status = main(["bench", *words])
            except SystemExit as stop:
                status = int(stop.code or 0)
            return status, *capsys.readouterr()

        return run

    def test_batches_dtypes_and_backends(self, run: Callable, tmp_path: Path) -> None:
        status, out, err = run(
            "tiny.safetensors", "--batch-sizes", "1,3", "--repeats", "2", "--json", "a.json",
            "--dtypes", "float32,bfloat16,float64", "--backends", "cpu,reference",
        )  # fmt: skip
        assert (status, err) == (0, "")
        assert "not run  cpu in float64: " in out and "times 16" in out
        report = json.loads((tmp_path / "a.json").read_text())
        rows = report["measurements"]
        refused = {(item["backend"], item["dtype"]) for item in report["setting"]["not_run"]}
        measured = {(row["backend"], row["dtype"]) for row in rows}
        assert {("cpu", "float32"), ("cpu", "bfloat16"), ("reference", "float32")} <= measured
        assert ("cpu", "float64") in refused and len(measured) + len(refused) == 6
        assert [row["batch"] for row in rows] == sorted([1, 3] * len(measured))
        for row in rows:
            assert row["images_per_second"] == pytest.approx(row["batch"] / row["seconds"])
            assert row["share"] == pytest.approx(row["limit_seconds"] / row["seconds"])
            assert row["naive_forwards_timed"] == 1
        assert len({row["naive_seconds"] for row in rows if row["batch"] == 3}) == 1
        assert {"pixelfast", "torch", "commit", "machine", "setting", "measurements"} == set(report)

    def test_sizes_and_plot(self, run: Callable, tmp_path: Path) -> None:
        status, out, err = run(
            "tiny.safetensors", "--batch-sizes", "2,4", "--repeats", "1", "--sizes", "3,8",
            "--plot", "a.png", "--json", "a.json",
        )  # fmt: skip
        assert (status, err) == (0, "")
        assert "3x3" in out and "8x8" in out
        report = json.loads((tmp_path / "a.json").read_text())
        assert [(row["size"], row["batch"]) for row in report["sizes"]] == [(3, 2), (8, 2)]
        with Image.open("a.png") as picture:
            assert picture.width > 3 * picture.height

    def test_profile(self, run: Callable, tmp_path: Path) -> None:
        status, out, err = run(
            "tiny.safetensors", "--batch-sizes", "1,2", "--repeats", "1", "--profile", "--json", "a.json"
        )
        assert (status, err) == (0, "")
        assert out.count("row tasks") == out.count("pixel tasks") == out.count("waiting for") == 2
        profiles = json.loads((tmp_path / "a.json").read_text())["profiles"]
        assert [found["batch"] for found in profiles] == [1, 2]
        for found in profiles:
            assert {entry["group"] for entry in found["entries"]} == {"rows", "pixels", "drawing"}
            assert 0 < sum(entry["seconds"] for entry in found["entries"])

    def test_latents_then_pixels(self, run: Callable, tmp_path: Path) -> None:
        pixelfast.save(registry.create("vae", shape=(1, 8, 8), latents=2, hidden=2).eval(), "vae.safetensors")
        status, out, err = run("vae.safetensors", "--batch-sizes", "2", "--repeats", "1", "--json", "a.json")
        assert (status, err) == (0, "")
        assert "(latents)" in out and "(pixels)" in out
        assert list(json.loads((tmp_path / "a.json").read_text())["stages"]) == ["latents", "pixels"]

    def test_stages_one_by_one_and_together(self, run: Callable, tmp_path: Path) -> None:
        pixelfast.save(staged(), "staged.safetensors")
        words = ("staged.safetensors", "--batch-sizes", "1,2", "--repeats", "1")
        status, out, err = run(*words, "--json", "a.json")
        assert (status, err) == (0, "")
        assert out.count("stage    ") == 2 and "staged.safetensors (bottom)" in out and "decoding s" in out
        report = json.loads((tmp_path / "a.json").read_text())
        assert list(report["stages"]) == ["top", "bottom"]
        for row in report["pipelines"]:
            assert row["decoding"] > 0
            assert row["seconds"] == pytest.approx(sum(row["stages"].values()) + row["decoding"])
            for name, seconds in row["stages"].items():
                measured = report["stages"][name]["measurements"]
                assert seconds in [one["seconds"] for one in measured if one["batch"] == row["batch"]]
        assert [row["batch"] for row in report["pipelines"]] == [1, 2]
        for option in (("--sizes", "8"), ("--plot", "a.png")):
            status, _, err = run(*words, *option)
            assert status == 1 and f"have no {option[0]}: leave it out" in err

    def test_standard_configuration(self, run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
        small = standard.Standard("a small network", "gated_pixelcnn", tiny((1, 3, 3)).config)
        monkeypatch.setitem(standard.MODELS, "small", small)
        status, out, _ = run("small", "--batch-sizes", "1", "--repeats", "1")
        assert status == 0 and "model    small" in out
        assert "small: a small network" in run("--help")[1]

    def test_help_has_every_model_and_default(self, run: Callable) -> None:
        status, out, _ = run("--help")
        assert status == 0
        for name in (*standard.MODELS, "gated-pixelcnn-mnist"):
            assert f"  {name}: " in out
        assert " ".join(out.split()).count("default: ") == 8

    @pytest.mark.parametrize(
        ("words", "status", "text"),
        [
            (["x"], 1, "(conditional-pixelsnail, gated-pixelcnn, "),
            (["pixelcnnpp", "--layout", "uvadlc"], 1, "leave --layout"),
            (
                ["tiny.safetensors", "--dtypes", "float16"],
                2,
                "'float16' is not one of float32, bfloat16, int8, float64",
            ),
            (["tiny.safetensors", "--batch-sizes", "1,99999999999999999999"], 2, "is not an integer from 1 to 65536"),
            (["tiny.safetensors", "--json", ""], 2, "the name of a file is empty"),
            (["tiny.safetensors", "--backends", "gpu"], 2, "'gpu' is not one of auto"),
            (["tiny.safetensors", "--backends", "cpu", "--dtypes", "float64"], 1, "nothing to measure: cpu in float64"),
            (["tiny.safetensors", "--plot", "no/a.png"], 1, "cannot write no/a.png"),
            (["tiny.safetensors", "--json", "a", "--plot", "a"], 1, "two outputs have the same name"),
            (["map.safetensors", "--sizes", "4,5"], 1, "does not take images of 5x5"),
        ],
    )
    def test_bad_arguments(self, run: Callable, words: list[str], status: int, text: str) -> None:
        pixelfast.save(tiny((1, 4, 4), spatial_condition=2), "map.safetensors")
        found, out, err = run(*words)
        assert (found, out) == (status, "") and text in err and err.count("\n") == 1
        assert sorted(path.name for path in Path.cwd().iterdir()) == ["map.safetensors", "tiny.safetensors"]
