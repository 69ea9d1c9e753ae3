"""`labelmint-serve`, which also stops once its standard input ends: when who started it has gone, however that was."""

import os
import signal
import sys
import threading

from labelmint_service.__main__ import main


def _stop_when_left() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_stop_when_left, daemon=True).start()
    sys.exit(main())
