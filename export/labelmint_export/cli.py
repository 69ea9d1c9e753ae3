"""labelmint-export: from pictures to a bundle.

render -> train-gan -> sample / invert (-> import-annotations) / label -> train-interpreter -> report -> build -> verify
-> export
"""

import argparse
import contextlib
import io
import signal
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any, NoReturn

import torch

from labelmint.errors import LabelmintError
from labelmint_export.commands import (
    annotate,
    checkpoints,
    gan,
    importing,
    interpreter,
    inverting,
    judging,
    oracle,
    packing,
    pictures,
    targets,
)


class _Terminated(BaseException):
    """Somebody wants the process to end."""


class _Commands(argparse._SubParsersAction):  # type: ignore[type-arg]  # takes its argument in the stub alone
    """Commands whose own help begins with what the list of commands says of them."""

    def add_parser(self, name: str, **settings: Any) -> argparse.ArgumentParser:  # Any: argparse's own
        parser: argparse.ArgumentParser = super().add_parser(name, **{"description": f"{settings['help']}."} | settings)
        return parser


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="labelmint-export",
        description="Train a generator and its style interpreter, and build the bundle that labelmint-serve serves.",
        epilog="`labelmint-export COMMAND --help` explains a command.",
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"labelmint {metadata.version('labelmint')}",
        help="print the version and end",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", action=_Commands)
    for stage in (
        pictures,
        gan,
        judging,
        oracle,
        checkpoints,
        annotate,
        inverting,
        importing,
        interpreter,
        packing,
        targets,
    ):
        stage.add_parsers(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Without the program's name; None takes those of the process.

    Returns:
        Exit status: 0, 1 after a printed error, or 128 and the number of the signal that ended it.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files and classes may have what the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    parsed = make_parser().parse_args(arguments)
    try:
        with _ending_in_order():
            print(parsed.run(parsed), flush=True)
    except BrokenPipeError:  # whoever read this, such as `head`, has seen enough
        sys.stdout = None  # nothing is left to flush at the end
        return 141
    except (LabelmintError, OSError) as error:
        print(f"labelmint-export: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("labelmint-export: interrupted", file=sys.stderr)
        return 130
    except _Terminated:
        print("labelmint-export: terminated", file=sys.stderr)
        return 143
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        print(f"labelmint-export: memory does not suffice ({error}); ask for less at a time", file=sys.stderr)
        return 1
    return 0


@contextlib.contextmanager
def _ending_in_order() -> Iterator[None]:
    """Let SIGTERM unwind the stack as Ctrl-C does, so that nothing half-written and no process stays."""

    def end(_number: int, _frame: object) -> NoReturn:
        raise _Terminated

    try:
        before = signal.signal(signal.SIGTERM, end)
    except ValueError:  # another thread than the main one, which gets no signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _is_out_of_memory(error: MemoryError | RuntimeError) -> bool:
    """Tell from other errors: torch has a class for GPUs alone."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


if __name__ == "__main__":
    sys.exit(main())
