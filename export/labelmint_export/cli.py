"""labelmint-export: from pictures to a bundle.

render -> train-gan -> sample / invert (-> import-annotations) / label -> train-interpreter -> report -> build -> verify
-> export
"""

import argparse
import sys
from collections.abc import Sequence

from labelmint.errors import LabelmintError
from labelmint_export.commands import (
    annotate,
    checkpoints,
    gan,
    importing,
    interpreter,
    inverting,
    oracle,
    packing,
    pictures,
    targets,
)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="labelmint-export",
        description="Train a generator and its style interpreter, and build the bundle that labelmint-serve serves.",
        epilog="`labelmint-export COMMAND --help` explains a command.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for stage in (pictures, gan, oracle, checkpoints, annotate, inverting, importing, interpreter, packing, targets):
        stage.add_parsers(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Without the program's name; None takes those of the process.

    Returns:
        Exit status: 0, or 1 after a printed error.
    """
    parsed = make_parser().parse_args(arguments)
    try:
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
    return 0


if __name__ == "__main__":
    sys.exit(main())
