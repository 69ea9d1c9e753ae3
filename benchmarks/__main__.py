"""`python -m benchmarks`, which is `make bench`: throughput of a served model, beside its engine alone."""

import sys

from benchmarks.throughput.command import main

if __name__ == "__main__":
    sys.exit(main())
