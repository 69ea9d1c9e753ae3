"""`python -m labelmint_service`: the command `labelmint-serve`, which heeds signals during its imports too."""

import signal
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Command line without the program's name; that of the process if None.

    Returns:
        Its exit status.
    """
    # The first process of a container ignores SIGTERM until it handles it, and the imports take a second or more.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        from labelmint_service.cli import main as serve  # noqa: PLC0415 - it has to come after the handler

        return serve(argv)
    except KeyboardInterrupt:
        print("labelmint-serve: stopped before it was ready", file=sys.stderr)
        return 0
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
