"""Processes of a pool do not outlive the one that started them, however that one ended."""

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """Make this process end when the one that started it is no more; it would work on, or wait for work, for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
