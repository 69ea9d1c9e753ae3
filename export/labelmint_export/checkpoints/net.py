"""The net under reading and converting: whatever a malformed file makes Python or torch raise is a CheckpointError."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from labelmint_export.checkpoints.limits import ADVICE
from labelmint_export.errors import CheckpointError

_OF_THE_MACHINE = (OSError, MemoryError, ArithmeticError)
_OF_THE_CONTENT = (ValueError, TypeError, LookupError, AttributeError, BufferError, RuntimeError, struct.error)
"""Text that is no UTF-8, numbers that numpy refuses, shapes that torch refuses."""


def _printable(text: str) -> str:
    """Write out what would do something to a terminal: names in a file may be anything."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


@contextmanager
def refusing_malformed(path: Path, field: str) -> Iterator[None]:
    """Name a file in every error that comes of what it holds; values that overflow become infinite without a warning.

    Args:
        path: The file.
        field: What is at fault where the content is malformed in a way that has no message of its own.

    Raises:
        CheckpointError: As it is raised inside, and in place of what Python, numpy and torch raise there.
    """
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            yield
    except CheckpointError as error:
        text = _printable(str(error))
        if str(path) in str(error) and text == str(error):
            raise
        told = text if str(path) in str(error) else f"{path}: {text}"
        raise CheckpointError(told, field=_printable(error.field)) from error
    except _OF_THE_MACHINE as error:
        raise CheckpointError(
            f"{path} cannot be read ({str(error)[:200]}); check the file and the free memory", field="path"
        ) from error
    except _OF_THE_CONTENT as error:
        raise CheckpointError(f"{path} is malformed ({_printable(str(error)[:200])}); {ADVICE}", field=field) from error
