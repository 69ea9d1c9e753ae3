"""Log lines a person and a program can read: an event and its fields, as key=value text or as JSON."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal

_PLAIN = re.compile(r"[^\s\"=\x00-\x1f\x7f]+")
_FIELDS = "labelmint_fields"
_OWN = "labelmint_service"
_EVENTS_OF_OTHERS = {"opentelemetry": "tracing.export"}
"""Package of a library -> event that its lines are."""

FieldValue = str | int | float | bool | None

_context: ContextVar[Mapping[str, FieldValue]] = ContextVar("labelmint_log_context", default={})  # noqa: B039 - never changed


def configure_logging(level: str, style: Literal["text", "json"]) -> None:
    """Send the log of this package to stderr, and what Python and the libraries have to warn of.

    The core of grpc would print lines of its own between them, about whatever strangers send; the package has told it
    to be silent, unless GRPC_VERBOSITY says otherwise.

    Args:
        level: Least level that is written, for example "info".
        style: "text" for key=value, "json" for one object a line.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_EventFormatter(style))
    own, root = logging.getLogger(_OWN), logging.getLogger()
    own.setLevel(level.upper())
    own.propagate = False
    root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()]))
    for logger in (own, root):
        logger.handlers[:] = [handler]
    logging.captureWarnings(True)


@contextlib.contextmanager
def log_context(**fields: FieldValue) -> Iterator[None]:
    """Add fields to every event of a with block, and of the tasks that begin in it.

    Args:
        **fields: For example request_id.
    """
    token = _context.set({**_context.get(), **fields})
    try:
        yield
    finally:
        _context.reset(token)


def add_log_context(**fields: FieldValue) -> None:
    """Add fields to every further event of the innermost `log_context` around, or of the task.

    Args:
        **fields: For example model.
    """
    _context.set({**_context.get(), **fields})


def log_event(
    logger: logging.Logger,
    level: int,
    event: str,
    *,
    error: BaseException | None = None,
    **fields: FieldValue,
) -> None:
    """Log one event.

    Args:
        logger: Where to.
        level: logging.INFO and so on.
        event: Short name with dots, for example "stream.end".
        error: An exception whose trace belongs to it.
        **fields: What else is known, besides the context.
    """
    logger.log(level, event, exc_info=error, extra={_FIELDS: {**_context.get(), **fields}})


class _EventFormatter(logging.Formatter):
    def __init__(self, style: Literal["text", "json"]) -> None:
        super().__init__()
        self._is_json = style == "json"

    def format(self, record: logging.LogRecord) -> str:
        """Write one line; the trace of an error follows it (text) or is a field of it (JSON)."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        known: Mapping[str, FieldValue] | None = getattr(record, _FIELDS, None)
        fields: dict[str, FieldValue] = {
            "time": time,
            "level": record.levelname.lower(),
            "event": _event_of_other(record.name) if known is None else record.getMessage(),
            **({"logger": record.name, "message": record.getMessage()} if known is None else known),
        }
        trace = self.formatException(record.exc_info) if record.exc_info and record.exc_info[0] else ""
        if self._is_json:
            return json.dumps({**fields, "trace": trace} if trace else fields)
        line = " ".join(f"{key}={_shown(value)}" for key, value in fields.items() if value is not None)
        return f"{line}\n{trace}" if trace else line


def _event_of_other(logger: str) -> str:
    return _EVENTS_OF_OTHERS.get(logger.partition(".")[0], "library.message")


def _shown(value: FieldValue) -> str:
    """Quote what could break the line or fake another field."""
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
