"""What `make demo` runs: 64 digits from the shipped model, and how they compare with naive sampling."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pixelfast
from pixelfast import shipped
from pixelfast.bench import naive
from pixelfast.bench.agreement import compare
from pixelfast.cli import images, pictures, progress
from pixelfast.cli.arguments import Parser
from pixelfast.cli.loading import load_model
from pixelfast.cli.main import report_errors
from pixelfast.cli.outputs import Outputs
from pixelfast.problem import make_problem

IMAGES = 64
COMPARED = 4
SEED = 0


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = Parser(prog="python -m pixelfast.cli.demo", description=__doc__)
    parser.add_argument("-o", "--output", metavar="PNG", default="demo.png", help="default: demo.png")
    args = parser.parse_args(argv)
    return report_errors(lambda: run(args.output), debug=False)


def run(output: str) -> None:
    show = progress.wanted(None)
    model = load_model(shipped.DEFAULT)
    with Outputs() as outputs:
        stream = outputs.open(output)
        sampler = pixelfast.compile(model)
        print(f"compiled {shipped.DEFAULT} in {sampler.compile_seconds:.1f} s", flush=True)
        sampler.sample(1, seed=SEED)
        digits = sampler.sample(IMAGES, seed=SEED, progress=show)
        stats = sampler.stats
        assert stats is not None
        images.write_png(stream, digits.numpy(), model.likelihood.levels)
        outputs.commit()
    print(f"sampled {IMAGES} digits into {output}: {pictures.summary(stats)}", flush=True)

    problem = make_problem(model, None, None, None, None, None)
    with progress.bar("naive forwards", "forward", show) as update:
        slow = naive.extrapolate(problem, IMAGES, update)
    print(
        f"naive sampling of {IMAGES}: {slow.seconds:.1f} s (the fastest of {slow.timed} forwards, times "
        f"{slow.forwards}); pixelfast is {slow.seconds / stats.seconds:.0f} times faster",
        flush=True,
    )
    expected = pixelfast.naive_sample(model, COMPARED, seed=SEED, progress=show)
    print(f"compared with naive sampling: {compare(sampler, problem, digits[:COMPARED], expected, SEED)}")


if __name__ == "__main__":
    sys.exit(main())
