"""Contenders: what makes the same labelled samples in different ways. Each module is a worker of its own."""
