"""Service side of labelmint: serves the labelled samples of a bundle over gRPC."""

import os

# Read when grpc is imported. Its core would print lines about whatever strangers send between those of our log.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
