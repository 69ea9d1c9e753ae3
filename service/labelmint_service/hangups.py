"""SIGHUP ends no stream of a server without a terminal: the log says which changed settings wait for a restart.

Nothing is taken over: tokens, certificates and models are read again by themselves, all else is fixed at the start.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence

from labelmint_service.errors import SettingsError
from labelmint_service.settings import ServiceSettings, load_settings
from labelmint_service.structured_logs import log_event

_log = logging.getLogger(__name__)
_STDIN = 0


@contextlib.contextmanager
def hangups_compare_settings(argv: Sequence[str], settings: ServiceSettings) -> Iterator[None]:
    """Compare the settings with those in force on each SIGHUP, until the block ends.

    To a server that was started from a terminal it says that the terminal is gone: there it does as SIGTERM does, once,
    for shell and system may both send it. A server that was told to ignore it (nohup) goes on doing so.

    Args:
        argv: Command line without the program's name.
        settings: Those in force.
    """
    if sys.platform == "win32" or signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        yield
        return
    has_terminal = os.isatty(_STDIN)  # asked now, for one that is gone says no

    def on_hangup(_number: int, _frame: object) -> None:
        if has_terminal:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.raise_signal(signal.SIGTERM)
        else:  # a handler that logs could interrupt a line of the log
            threading.Thread(target=_compare, args=(argv, settings), name="settings", daemon=True).start()

    before = signal.signal(signal.SIGHUP, on_hangup)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def _compare(argv: Sequence[str], settings: ServiceSettings) -> None:
    try:
        present = load_settings(argv)
    except SettingsError as error:
        log_event(
            _log,
            logging.ERROR,
            "settings.error",
            message=f"{error}; the settings before stay in force, but the server would not start again",
        )
        return
    waiting = [name for name in ServiceSettings.model_fields if getattr(present, name) != getattr(settings, name)]
    log_event(
        _log,
        logging.WARNING if waiting else logging.INFO,
        "settings.compared",
        waiting=",".join(waiting) or None,
        message="these settings are not in force; restart the server for them"
        if waiting
        else "what the file says is in force; flags and variables that changed reach a new process only",
    )
