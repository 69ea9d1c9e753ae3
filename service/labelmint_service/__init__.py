"""Service side of labelmint: serves the labelled samples of a bundle over gRPC."""
