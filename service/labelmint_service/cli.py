"""The command `labelmint-serve`: reads the settings, serves, and says what went wrong; its `new-token` makes tokens."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import NoReturn

from labelmint.errors import LabelmintError
from labelmint.memory import keep_freed_memory
from labelmint_service.access import cli as access_cli
from labelmint_service.errors import LoadTimeoutError, StuckStartError
from labelmint_service.hangups import hangups_compare_settings
from labelmint_service.lifetime import serve
from labelmint_service.loading import load_models
from labelmint_service.models.served import ServedModel
from labelmint_service.open_files import allow_open_files
from labelmint_service.ready_file import Readiness, remove_ready_file
from labelmint_service.server import Ending
from labelmint_service.settings import ServiceSettings, load_settings
from labelmint_service.structured_logs import configure_logging
from labelmint_service.terminal import complain, tell

_START_STATUS, _LOST_STATUS = 2, 3
_LEAVING = {
    Ending.LOST: (_LOST_STATUS, "an engine does not answer any more; start the server again"),
    Ending.STUCK: (0, "stopped; an engine or a load was still at work when the grace was over, and was cut"),
}
"""Status and message of endings in which a thread is left that may never end."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server until it is told to stop.

    Args:
        argv: Command line without the program's name; that of the process if None.

    Returns:
        Exit status: 0 after a stop, 2 if the server could not start. An engine that does not answer any more ends the
        process with status 3: its thread cannot be ended otherwise.
    """
    given = sys.argv[1:] if argv is None else argv
    if list(given[:1]) == [access_cli.COMMAND]:
        return access_cli.print_new_token(given[1:])
    try:
        with _sigterm_interrupts():
            _serve(given)
    except StuckStartError as error:
        _leave(_START_STATUS, str(error))
    except LabelmintError as error:
        complain(f"labelmint-serve: {error}")
        return _START_STATUS
    except KeyboardInterrupt:
        complain("labelmint-serve: stopped before it was ready")
    finally:
        logging.shutdown()
    return 0


def _serve(given: Sequence[str]) -> None:
    settings = load_settings(given)
    configure_logging(settings.log_level, settings.log_format)
    keep_freed_memory()
    allow_open_files(settings.max_connections)
    with hangups_compare_settings(given, settings):
        remove_ready_file(settings.ready_file)
        # Outside the event loop, so that a signal ends the loading and does not wait for it.
        models = _load(settings)
        ending = asyncio.run(serve(settings, models, _announce))
        if ending is not Ending.CLEAN:
            _leave(*_LEAVING[ending])


def _load(settings: ServiceSettings) -> list[ServedModel]:
    """Load in a thread, so that a signal ends the process although a library of the engine does not return.

    Raises:
        StuckStartError: Loading takes longer than it may.
    """
    loaded: list[list[ServedModel]] = []
    failed: list[BaseException] = []

    def load() -> None:
        try:
            loaded.append(load_models(settings))
        except BaseException as error:  # noqa: BLE001 - it is the main thread's to handle
            failed.append(error)

    thread = threading.Thread(target=load, name="load", daemon=True)
    thread.start()
    try:
        limit_s = settings.load_timeout_s * len(settings.bundle)
        thread.join(limit_s)
    except KeyboardInterrupt:
        _leave(0, "stopped before it was ready")
    if thread.is_alive():
        raise StuckStartError(str(LoadTimeoutError("what the settings name", limit_s)))
    if failed:
        raise failed[0]
    return loaded[0]


def _leave(status: int, message: str) -> NoReturn:
    """End the process although a thread of it may never end."""
    complain(f"labelmint-serve: {message}")
    logging.shutdown()
    os._exit(status)


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """SIGTERM is a KeyboardInterrupt, as Ctrl-C is, until the server handles both."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _announce(readiness: Readiness) -> None:
    models = ", ".join(f"{name} (numerics {numerics_id[:12]})" for name, numerics_id in readiness.models.items())
    metrics = readiness.metrics or "off"
    admin = f", admin: {readiness.admin}" if readiness.admin else ""
    tell(f"labelmint-serve ready at {readiness.address}, models: {models}, metrics: {metrics}{admin}")
