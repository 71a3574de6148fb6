"""pixelfast bench: how fast a model is sampled, beside naive sampling and the machine's limits."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pixelfast import machine as machines
from pixelfast import shipped
from pixelfast.bench import engines, naive, plots, profile, quiet, sampling, sizes, stages, standard, versions
from pixelfast.cli import arguments, progress
from pixelfast.cli.loading import check_pixels, hints_of, load_model
from pixelfast.cli.outputs import Outputs
from pixelfast.errors import CheckpointError, PixelfastError
from pixelfast.limit import fewest_attended_bytes, fewest_weight_bytes
from pixelfast.machine import Machine
from pixelfast.problem import Problem, make_problem
from pixelfast.sampler import Sampler
from pixelfast.stages import in_stages

LARGEST_BATCH = 1 << 16


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "bench",
        help="measure sampling speed",
        description=f"{__doc__} Every figure is of this machine in this run.",
        epilog=_models(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arguments.add_model(parser, also=", or the name of a standard configuration; names below")
    parser.add_argument(
        "--batch-sizes",
        type=arguments.integers(1, LARGEST_BATCH),
        default=[1, 16],
        metavar="B,B,...",
        help="default: 1,16",
    )
    parser.add_argument(
        "--dtypes",
        type=choices(tuple(engines.DTYPES)),
        default=["float32"],
        metavar="D,D,...",
        help=f"of {', '.join(engines.DTYPES)}; default: float32",
    )
    parser.add_argument(
        "--backends",
        type=choices(arguments.BACKENDS),
        default=["auto"],
        metavar="NAME,...",
        help=f"of {', '.join(arguments.BACKENDS)}; default: auto, the best that runs the model",
    )
    parser.add_argument("--repeats", type=arguments.integer(1), default=3, help="timed repeats; default: 3")
    parser.add_argument(
        "--sizes",
        type=arguments.integers(1),
        default=[],
        metavar="S,S,...",
        help="also the model for square images of these sizes, at the smallest batch size; default: none",
    )
    parser.add_argument(
        "--profile", action="store_true", help="also say where the time goes, from one more call of each kind"
    )
    parser.add_argument(
        "--json",
        type=arguments.filename,
        metavar="FILE",
        help="all figures, the machine and the versions; default: none",
    )
    parser.add_argument(
        "--plot",
        type=arguments.filename,
        metavar="PNG",
        help="throughput against batch size under the machine's limits, and what --sizes finds; default: none",
    )
    arguments.add_progress(parser)
    parser.set_defaults(run=run)


def choices(accepted: tuple[str, ...]) -> Callable[[str], list[str]]:
    """An argument type: some of the accepted words, separated by commas, each once."""

    def parse(text: str) -> list[str]:
        words = text.split(",")
        for word in words:
            if word not in accepted:
                raise argparse.ArgumentTypeError(f"{word!r} is not one of {', '.join(accepted)}")
        return list(dict.fromkeys(words))

    return parse


def find_model(name: str, layout: str | None, **hints: Sequence[int]) -> Any:
    """A shipped model, a standard configuration or the model of a checkpoint file, in float32 and eval mode."""
    if name in standard.MODELS:
        if layout is not None or hints:
            raise CheckpointError(f"{name} is a standard configuration: leave --layout, --shape and --config out")
        return standard.create(name)
    if name not in shipped.names() and not Path(name).exists():
        raise CheckpointError(
            f"no model {name!r}: neither a file, nor a shipped model ({', '.join(shipped.names()) or 'none'}), "
            f"nor a standard configuration ({', '.join(standard.MODELS)})"
        )
    return load_model(name, layout, **hints).float()


@dataclass(frozen=True)
class Subject:
    """What is measured, and what any schedule must do for one image of it."""

    name: str
    model: Any
    problem: Problem
    flops: float
    weights_read: int
    attended_bytes: int

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())


@dataclass(frozen=True)
class Figures:
    """All that one run of the command finds out."""

    subject: Subject
    samplers: list[Sampler]
    refusals: list[engines.Refusal]
    machine: Machine
    rows: list[sampling.Measurement]
    by_size: list[sizes.SizeMeasurement]
    profiles: list[profile.Profile]
    own_spread: float | None
    doubts: list[str]


def run(args: argparse.Namespace) -> None:
    if args.plot:
        plots.new_figure()  # before the work: can there be one?
    model = find_model(args.model, args.layout, **hints_of(args))
    if in_stages(model):
        run_stages(args, model)
        return
    check_pixels(model, "bench")
    for size in args.sizes:
        sizes.problem_of_size(model, size)
    with Outputs() as outputs:
        report, picture = (outputs.open(path) if path else None for path in (args.json, args.plot))
        found = measure(args, model, args.model)
        print_figures(found)
        if picture:
            subject = found.subject
            plots.write_plot(
                picture,
                args.model,
                found.rows,
                found.by_size,
                subject.flops,
                subject.weights_read,
                found.machine,
                subject.attended_bytes,
            )
        if report:
            report.write(json.dumps(as_json(found), indent=2).encode() + b"\n")
        outputs.commit()


def run_stages(args: argparse.Namespace, model: Any) -> None:
    """Every stage of a model in stages by itself, then all of them together with decoding."""
    given = [name for name, value in (("--sizes", args.sizes), ("--plot", args.plot)) if value]
    if given:
        raise PixelfastError(f"{args.model} samples in stages, which have no {' and no '.join(given)}: leave it out")
    with Outputs() as outputs:
        report = outputs.open(args.json) if args.json else None
        found = {}
        for stage in model.stages:
            print(f"stage    {stage.name}")
            found[stage.name] = measure(args, stage.network, f"{args.model} ({stage.name})")
            print_figures(found[stage.name])
            print()
        decoding = {batch: stages.time_decoding(model, batch, args.repeats) for batch in args.batch_sizes}
        whole = stages.pipelines({name: one.rows for name, one in found.items()}, decoding)
        if whole:
            print(f"all stages\n\n{stages.pipeline_table(whole)}\n\ndecoding: in float64, one image at a time")
        if report:
            content = {
                "stages": {name: as_json(one) for name, one in found.items()},
                "pipelines": [{**asdict(one), "seconds": one.seconds} for one in whole],
            }
            report.write(json.dumps(content, indent=2).encode() + b"\n")
        outputs.commit()


def measure(args: argparse.Namespace, model: Any, name: str) -> Figures:
    """Everything the arguments ask for. What is measured is printed before the measurements."""
    show = progress.wanted(args.progress)
    samplers, refusals = engines.compile_each(model, args.backends, args.dtypes)
    problem = make_problem(model, None, None, None, None, None)
    analysis = samplers[0].analysis
    weights_read = fewest_weight_bytes(analysis.graph, analysis.ready, itemsize=1)
    attended_bytes = fewest_attended_bytes(analysis.graph, analysis.ready)
    subject = Subject(name, model, problem, samplers[0].program.flops, weights_read, attended_bytes)
    print_subject(subject, samplers, refusals)

    before, load = machines.measure(), quiet.load()
    machine = before
    times = []
    for batch in args.batch_sizes:
        with progress.bar(f"naive forwards, batch {batch}", "forward", show) as update:
            slow = naive.extrapolate(problem, batch, update)
        for sampler in samplers:
            fast = sampling.time_batch(sampler, problem, batch, args.repeats, progress=show)
            times.append((sampler, batch, fast, slow))
        machine = machine.best(machines.measure())
    by_size = [
        sizes.time_size(
            model, size, min(args.batch_sizes), args.repeats, sampler.backend.name, sampler.dtype, progress=show
        )
        for sampler in samplers
        for size in args.sizes
    ]
    after, loads, own_spread = machines.measure(), (load, quiet.load()), quiet.own_spread(args.repeats)
    machine = machine.best(after)
    rows = [sampling.measurement(*timed, weights_read, machine, attended_bytes) for timed in times]
    profiles = [
        found
        for batch in args.batch_sizes
        for sampler in samplers
        if args.profile and (found := profile.profile(sampler, problem, batch))
    ]
    spreads = [(row.name, row.spread) for row in rows] + [(size.name, size.spread) for size in by_size]
    doubts = quiet.doubts(before, after, loads, spreads)
    return Figures(subject, samplers, refusals, machine, rows, by_size, profiles, own_spread, doubts)


def print_subject(subject: Subject, samplers: list[Sampler], refusals: list[engines.Refusal]) -> None:
    attended = subject.attended_bytes / 4e6
    print(
        f"model    {subject.name}, {subject.parameters / 1e6:.2f} M parameters, {subject.flops / 1e9:.2f} GFLOP "
        f"per image, at least {subject.weights_read / 1e6:.0f} M weights"
        + (f" and {attended:.0f} M keys and values read" if attended else " read")
    )
    for sampler in samplers:
        print(f"engine   {engines.label(sampler)}, compiled in {sampler.compile_seconds:.1f} s")
    for refusal in refusals:
        print(f"not run  {refusal}")
    print(end="", flush=True)


def print_figures(found: Figures) -> None:
    for sampler in found.samplers:
        assert sampler.stats is not None
        print(f"memory   {engines.label(sampler)}: {sampler.stats.bytes_per_image / 1e6:.3g} MB per image")
    for row in found.rows:
        if row.plan is not None:
            print(f"threads  {row.name}: {sampling.plan_line(row.plan)}")
    print(f"machine  {found.machine}\n\n{sampling.measurement_table(found.rows)}")
    if found.by_size:
        print(f"\n{sizes.size_table(found.by_size)}")
    print(f"\n{sampling.footnotes(found.rows)}")
    if found.own_spread is not None:
        print(f"the machine itself: as many repeats of torch's own float32 product differ by {found.own_spread:.0%}")
    if found.doubts:
        print("\n  - ".join(["unreliable: the machine was not quiet", *found.doubts]))
    for item in found.profiles:
        print(f"\nprofile  batch {item.batch}, {item.backend} {item.dtype}: {item.seconds:.4g} s")
        print(f"{profile.summary(item)}\n\n{profile.kernel_table(item)}")


def as_json(found: Figures) -> dict[str, Any]:
    """The figures as numbers, lists and dicts."""
    subject = found.subject
    return {
        **versions.versions(),
        "machine": {**asdict(found.machine), "own_spread": found.own_spread, "doubts": found.doubts},
        "setting": {
            "model": subject.name,
            "config": getattr(subject.model, "config", None),  # the network of a stage may have none
            "parameters": subject.parameters,
            "flops_per_image": subject.flops,
            "fewest_weights_read": subject.weights_read,
            "fewest_attended_bytes": subject.attended_bytes,
            "engines": [_engine(sampler) for sampler in found.samplers],
            "not_run": [asdict(refusal) for refusal in found.refusals],
        },
        "measurements": [asdict(row) for row in found.rows],
        **({"sizes": [asdict(row) for row in found.by_size]} if found.by_size else {}),
        **({"profiles": [asdict(item) for item in found.profiles]} if found.profiles else {}),
    }


def _engine(sampler: Sampler) -> dict[str, Any]:
    stats = sampler.stats
    assert stats is not None
    return {
        "backend": stats.backend,
        "isa": stats.isa,
        "dtype": stats.dtype,
        "threads": stats.threads,
        "bytes_per_image": stats.bytes_per_image,
        "compile_seconds": sampler.compile_seconds,
    }


def _models() -> str:
    """The names there are, for --help."""
    lines = ["models:"]
    lines += [f"  {name}: shipped" for name in shipped.names()]
    lines += [f"  {name}: {one.description}, random weights" for name, one in standard.MODELS.items()]
    return "\n".join(lines)
