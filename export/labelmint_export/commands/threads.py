"""`--threads`: how many of the processor's threads torch may take."""

import argparse

import torch

from labelmint_export.errors import TrainingError


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add the argument; `use_threads` heeds it."""
    parser.add_argument("--threads", type=int, help="threads that torch may take (default: one for each core)")


def use_threads(arguments: argparse.Namespace) -> None:
    """Let torch take as many threads as the arguments say; as many as it likes if they say nothing.

    Raises:
        TrainingError: The number is below 1.
    """
    if arguments.threads is None:
        return
    if arguments.threads < 1:
        raise TrainingError(f"--threads is {arguments.threads}, expected at least 1; leave it out", field="threads")
    torch.set_num_threads(arguments.threads)
