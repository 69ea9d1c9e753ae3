"""The ready file: what a server tells its surroundings once it serves, and takes back when it stops."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from labelmint_service.errors import StartError
from labelmint_service.structured_logs import log_event

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """What a server that is ready tells its surroundings.

    Attributes:
        address: host:port of gRPC.
        metrics: URL of the metrics; empty if there are none.
        models: Numerics id by model name.
        admin: host:port of the admin service; empty if there is none.
    """

    address: str
    metrics: str
    models: dict[str, str]
    admin: str = ""


def remove_ready_file(path: Path | None) -> None:
    """Remove what an earlier server may have left, so that nobody takes it for this one's.

    Raises:
        StartError: It cannot be removed.
    """
    if path is None:
        return
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _ready_file_error(path, "replaced", error) from error


@contextlib.contextmanager
def ready_file(path: Path | None, readiness: Readiness) -> Iterator[None]:
    """Keep the file for the length of a with block; whoever sees it sees all of it.

    Raises:
        StartError: It cannot be written.
    """
    if path is None:
        yield
        return
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_text(json.dumps(asdict(readiness)) + "\n", encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # there may be none
            unfinished.unlink()
        raise _ready_file_error(path, "written", error) from error
    try:
        yield
    finally:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:  # no reason not to stop cleanly
            log_event(_log, logging.WARNING, "server.ready_file", path=str(path), message=str(error))


def _ready_file_error(path: Path, verb: str, error: OSError) -> StartError:
    return StartError(
        f"ready file {path} cannot be {verb} ({error.strerror}); choose another --ready-file in a folder that exists "
        "and can be written",
        field="ready_file",
    )
