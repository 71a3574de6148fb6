"""The command `pixelfast`: parses, dispatches, and turns errors into one line and an exit status."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable, Sequence

import pixelfast
from pixelfast.cli import bench, codes, complete, convert, doctor, evaluate, models, reconstruct, sample, train
from pixelfast.cli.arguments import Parser
from pixelfast.errors import PixelfastError
from pixelfast.training.stop import Stopped

COMMANDS = (sample, complete, train, evaluate, reconstruct, codes, bench, convert, models, doctor)

SUCCESS, FAILURE, INTERRUPTED = 0, 1, 130
"""Exit statuses; errors of usage are 2, as everywhere."""

LONGEST_LINE = 500
"""Characters of a message; some libraries print whole arrays."""


def make_parser() -> Parser:
    """The parser of all commands; each stores its function as `run`."""
    parser = Parser(prog="pixelfast", description="Fast exact sampling from PixelCNN-family models.")
    parser.add_argument("--version", action="version", version=f"pixelfast {pixelfast.__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit status. Errors of usage raise SystemExit(2)."""
    args = make_parser().parse_args(argv)
    return report_errors(lambda: args.run(args), args.debug)


def report_errors(work: Callable[[], None], debug: bool) -> int:
    """Do the work; what goes wrong becomes one line and an exit status, or is raised with `debug`."""
    try:
        work()
        print(end="", flush=True)  # a closed standard output is None
    except Stopped as stop:
        print(f"pixelfast: {stop.word}", file=sys.stderr)
        return stop.status
    except KeyboardInterrupt:
        print("pixelfast: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe has gone; there is nobody to tell, and nothing more may be flushed to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except Exception as error:
        if debug:
            raise
        print(f"pixelfast: error: {describe(error)}", file=sys.stderr)
        return FAILURE
    return SUCCESS


def describe(error: Exception) -> str:
    """An error as one line; those not raised on purpose name their type and how to see more."""
    text = textwrap.shorten(str(error), LONGEST_LINE, placeholder=" ...")
    if isinstance(error, PixelfastError):
        return text
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"{type(error).__name__}: {text} (pixelfast --debug shows where)"
