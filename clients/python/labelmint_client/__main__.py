"""`python -m labelmint_client`: the command `labelmint`."""

import sys

from labelmint_client.cli import main

if __name__ == "__main__":
    sys.exit(main())
