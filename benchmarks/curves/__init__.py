"""Curves of the embedded model: throughput by batch size, latency by load, time by stage."""
