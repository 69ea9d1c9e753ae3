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
_LOGGERS = ("labelmint_service", "opentelemetry")
"""This package's, and that of a library which writes lines of its own when it cannot send traces."""

FieldValue = str | int | float | bool | None

_context: ContextVar[Mapping[str, FieldValue]] = ContextVar("labelmint_log_context", default={})  # noqa: B039 - never changed


def configure_logging(level: str, style: Literal["text", "json"]) -> None:
    """Send this package's log to stderr, and what OpenTelemetry has to say.

    Args:
        level: Least level that is written, for example "info".
        style: "text" for key=value, "json" for one object a line.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_EventFormatter(style))
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level.upper())
        logger.propagate = False


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
            "event": "tracing.export" if known is None else record.getMessage(),
            **({"message": record.getMessage()} if known is None else known),
        }
        trace = self.formatException(record.exc_info) if record.exc_info and record.exc_info[0] else ""
        if self._is_json:
            return json.dumps({**fields, "trace": trace} if trace else fields)
        line = " ".join(f"{key}={_shown(value)}" for key, value in fields.items() if value is not None)
        return f"{line}\n{trace}" if trace else line


def _shown(value: FieldValue) -> str:
    """Quote what could break the line or fake another field."""
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
