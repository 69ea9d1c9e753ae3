"""Service side of labelmint: serves the labelled samples of a bundle over gRPC."""

import os

# Read when grpc is imported. Its core would print lines about whatever strangers send between those of our log.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
# Read when onnxruntime is imported. A server tells nobody what it does, and leaves no files in somebody's home.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
