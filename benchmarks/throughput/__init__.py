"""Throughput of the service beside its engine alone."""
