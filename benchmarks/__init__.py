"""Benchmarks of labelmint: what it costs and what it is good for, measured on this machine. See README.md."""
