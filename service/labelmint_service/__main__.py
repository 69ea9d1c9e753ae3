"""labelmint-serve: reads the settings, serves, and says what went wrong. `labelmint-serve new-token` makes tokens."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import NoReturn

from labelmint.errors import LabelmintError
from labelmint.memory import keep_freed_memory
from labelmint_service.access import cli as access_cli
from labelmint_service.hangups import hangups_compare_settings
from labelmint_service.loading import load_models
from labelmint_service.open_files import allow_open_files
from labelmint_service.ready_file import Readiness, remove_ready_file
from labelmint_service.server import serve
from labelmint_service.settings import load_settings
from labelmint_service.structured_logs import configure_logging

_LOST_STATUS = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server until it is told to stop.

    Args:
        argv: Command line without the program's name; that of the process if None.

    Returns:
        Exit status: 0 after a clean stop, 2 if the server could not start. An engine that does not answer any more ends
        the process with status 3: its thread cannot be ended otherwise.
    """
    given = sys.argv[1:] if argv is None else argv
    if list(given[:1]) == [access_cli.COMMAND]:
        return access_cli.print_new_token(given[1:])
    try:
        settings = load_settings(given)
        configure_logging(settings.log_level, settings.log_format)
        keep_freed_memory()
        allow_open_files(settings.max_connections)
        with _sigterm_interrupts(), hangups_compare_settings(given, settings):
            remove_ready_file(settings.ready_file)
            # Outside the event loop, so that a signal ends the loading and does not wait for it.
            models = load_models(settings)
            if not asyncio.run(serve(settings, models, _announce)):
                _leave()
    except LabelmintError as error:
        print(f"labelmint-serve: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("labelmint-serve: stopped before it was ready", file=sys.stderr)
    finally:
        logging.shutdown()
    return 0


def _leave() -> NoReturn:
    """End the process although a thread of it does not end, for whoever supervises it to start another."""
    print("labelmint-serve: an engine does not answer any more; start the server again", file=sys.stderr, flush=True)
    logging.shutdown()
    os._exit(_LOST_STATUS)


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
    print(f"labelmint-serve ready at {readiness.address}, models: {models}, metrics: {metrics}{admin}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
