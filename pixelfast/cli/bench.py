"""pixelfast bench: how fast a model is sampled, beside naive sampling and the machine's limits."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

import pixelfast
from pixelfast import machine as machines
from pixelfast.bench import naive, sampling, versions
from pixelfast.causality import analyse
from pixelfast.cli import arguments, progress
from pixelfast.cli.loading import load_model
from pixelfast.cli.outputs import Outputs
from pixelfast.limit import fewest_weight_bytes
from pixelfast.models import PixelCNNPlusPlus
from pixelfast.problem import make_problem

REFERENCE = "pixelcnnpp"


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("bench", help="measure sampling speed", description=__doc__)
    reference = f"{REFERENCE}: PixelCNN++ of 5 blocks and 160 filters with random weights"
    arguments.add_model(parser, also=f", or {reference}")
    parser.add_argument("--batch-sizes", type=arguments.integers(1), default=[1, 16], metavar="B,B,...")
    parser.add_argument("--repeats", type=arguments.integer(1), default=3, help="default: 3")
    parser.add_argument("--backend", choices=arguments.BACKENDS, default="auto")
    parser.add_argument("--json", metavar="FILE", help="all figures, the machine and the versions")
    arguments.add_progress(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    model = PixelCNNPlusPlus().eval() if args.model == REFERENCE else load_model(args.model, args.layout)
    show = progress.wanted(args.progress)
    problem = make_problem(model, None, None, None, None, getattr(model, "condition_example", None))
    with Outputs() as outputs:
        stream = outputs.open(args.json) if args.json else None
        machine = machines.measure()
        sampler = pixelfast.compile(model, backend=args.backend)
        analysis = analyse(problem)
        weight_bytes = fewest_weight_bytes(analysis.graph, analysis.ready)
        sampler.sample(1, condition=problem.batch_condition(None, 1), progress=show)
        setting = _setting(args.model, model, sampler, weight_bytes)
        print(
            f"model    {args.model}, {setting['parameters'] / 1e6:.2f} M parameters, "
            f"{sampler.program.flops / 1e9:.2f} GFLOP per image, "
            f"at least {weight_bytes / 1e9:.2f} GB of weights read\n"
            f"engine   {setting['backend']} {setting['isa']} {setting['dtype']}, "
            f"compiled in {sampler.compile_seconds:.1f} s, "
            f"{setting['bytes_per_image'] / 1e6:.2f} MB per image",
            flush=True,
        )
        times = []
        for batch in args.batch_sizes:
            with progress.bar(f"naive forwards, batch {batch}", "forward", show) as update:
                slow = naive.extrapolate(problem, batch, update)
            seconds = sampling.time_batch(sampler, problem, batch, args.repeats, progress=show)
            times.append((batch, seconds, slow))
        machine = machine.best(machines.measure())
        rows = [
            sampling.measurement(sampler, batch, seconds, slow, weight_bytes, machine) for batch, seconds, slow in times
        ]
        print(f"machine  {machine}\n\n{sampling.table(rows)}\n")
        print(
            f"seconds: median of {args.repeats}; limit: the larger of arithmetic and reading weights;\n"
            f"naive: eager torch, the fastest of {rows[0].naive_forwards_timed} forwards, "
            f"times {rows[0].naive_forwards:,}"
        )
        if stream:
            report = {
                **versions.versions(),
                "machine": asdict(machine),
                "setting": setting,
                "measurements": [asdict(row) for row in rows],
            }
            stream.write(json.dumps(report, indent=2).encode() + b"\n")
            outputs.commit()


def _setting(name: str, model: Any, sampler: pixelfast.Sampler, weight_bytes: int) -> dict[str, Any]:
    """What was measured."""
    stats = sampler.stats
    assert stats is not None
    return {
        "model": name,
        "config": model.config,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "flops_per_image": sampler.program.flops,
        "fewest_weight_bytes": weight_bytes,
        "bytes_per_image": stats.bytes_per_image,
        "compile_seconds": sampler.compile_seconds,
        "backend": stats.backend,
        "isa": stats.isa,
        "dtype": stats.dtype,
        "threads": stats.threads,
    }
