"""What grpc writes into the log by itself, without what callers send."""

from __future__ import annotations

import logging

_LOGGER = "grpc._cython.cygrpc"
_OF_BYTES = "Invalid encoding on"
"""With the value of any metadata that is no UTF-8 behind it, a token included."""


def keep_metadata_out() -> None:
    """Write no value of metadata into the log; once is enough."""
    logging.getLogger(_LOGGER).addFilter(_has_no_metadata)


def _has_no_metadata(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_OF_BYTES)
