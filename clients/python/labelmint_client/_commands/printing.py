"""Standard output, which may be full, or closed by its reader."""

import os
import sys
from contextlib import suppress

from labelmint_client._errors import OutputError
from labelmint_client._writers.atomic import advice


def say(text: str) -> None:
    """Print a line and make sure that it is out.

    Args:
        text: The line.

    Raises:
        BrokenPipeError: Nobody reads it.
        OutputError: It cannot be written.
    """
    try:
        print(text, flush=True)  # noqa: T201  # here it is meant
    except BrokenPipeError:
        _give_up()
        raise
    except OSError as error:
        _give_up()
        raise OutputError(f"cannot write to standard output: {advice(error)}") from error


def _give_up() -> None:
    """Keep the interpreter, which writes what is left when it ends, from failing again."""
    with suppress(OSError):  # where standard output is no file, as in a test
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
