"""Files read each in a process of its own, with bounds on memory: one that crashes or hangs is told from the others.

Run as a program, it imports once and forks for each file.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import torch

from labelmint.errors import LabelmintError
from labelmint_export.checkpoints.loading import inspect_checkpoint, load_generator

ROOT = Path(__file__).parents[2]
MEMORY_BYTES = 2_000_000_000
"""What a file may take on top of what the program has."""
LIFE_S = 20
"""After so long a reader is killed."""

CALLS: Mapping[str, Callable[[Path], object]] = {"load": load_generator, "inspect": inspect_checkpoint}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How reading a file ended."""

    told: str
    """The error that was refused with, "made" where there was none, or the signal that ended the process."""
    seconds: float
    """How long it took."""


def read_apart(folder: Path, files: Mapping[str, tuple[str, bytes]]) -> dict[str, Outcome]:
    """Read files.

    Args:
        folder: Where they are written.
        files: Name -> call ("load" or "inspect") and content.

    Returns:
        Name -> how it ended.
    """
    tasks = []
    for index, (name, (call, content)) in enumerate(files.items()):
        path = folder / f"{index}.checkpoint"
        path.write_bytes(content)
        tasks.append([name, call, str(path)])
    command = [sys.executable, "-m", "tests.export.reading_apart"]
    ran = subprocess.run(command, input=json.dumps(tasks), capture_output=True, text=True, cwd=ROOT, check=True)
    return {name: Outcome(**outcome) for name, outcome in json.loads(ran.stdout.splitlines()[-1]).items()}


def _read(call: str, path: Path, answer: int) -> None:
    """What the forked process does; it never returns from here into the program."""
    signal.alarm(LIFE_S)
    limit = psutil.Process().memory_info().vms + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        CALLS[call](path)
        told = "made"
    except LabelmintError as error:
        told = f"refused: {error}"
    except BaseException as error:  # noqa: BLE001 - that any other comes out is what is being looked for
        told = f"raised {type(error).__name__}: {error}"
    os.write(answer, told[:2000].encode())
    os._exit(0)


def _fork(call: str, path: Path) -> Outcome:
    receiver, answer = os.pipe()
    start = time.perf_counter()
    child = os.fork()
    if child == 0:
        _read(call, path, answer)
    os.close(answer)
    with os.fdopen(receiver) as stream:
        told = stream.read()
    _, status = os.waitpid(child, 0)
    seconds = time.perf_counter() - start
    return Outcome(told or f"ended by {signal.Signals(os.WTERMSIG(status)).name}", seconds)


def main() -> None:
    torch.set_num_threads(1)  # threads do not survive a fork
    load_generator(ROOT / "tests/data/checkpoints/rosinality_32.pt")  # torch imports parts of itself when first used
    outcomes = {name: asdict(_fork(call, Path(path))) for name, call, path in json.load(sys.stdin)}
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
