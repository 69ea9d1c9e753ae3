"""The terminal: what the process tells whoever started it, if there is anybody who can be told."""

from __future__ import annotations

import os
import sys
from typing import TextIO


def tell(text: str) -> None:
    """Write a line to stdout."""
    _write(sys.stdout, text)


def complain(text: str) -> None:
    """Write a line to stderr."""
    _write(sys.stderr, text)


def _write(stream: TextIO | None, text: str) -> None:
    """A pipe without a reader or a full disk must neither end a server nor keep it from ending."""
    if stream is None:  # it was closed before the process began
        return
    try:
        print(text, file=stream, flush=True)
    except OSError:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())  # what is left in its buffer would fail again when the process ends
        os.close(nothing)
