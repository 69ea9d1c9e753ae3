"""Streams of the same recorded samples, each server and reader in processes of their own, in turns."""

import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.errors import ParityError
from benchmarks.processes.worker import Worker
from benchmarks.reporting.files import Document
from benchmarks.transport.recording import record

OURS, SHARED, FLIGHT, TRITON = "labelmint", "labelmint, shared memory", "flight", "triton"
_SERVICE = ("benchmarks.transport.replay", "benchmarks.transport.reader")
_MODULES: Mapping[str, tuple[str, str]] = {
    OURS: _SERVICE,
    SHARED: _SERVICE,
    FLIGHT: ("benchmarks.transport.flight", "benchmarks.transport.flight"),
    TRITON: ("benchmarks.transport.triton", "benchmarks.transport.triton"),
}
_TIMEOUT_S = 300.0
_KEPT_SAMPLES = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class TransportSettings:
    """What to measure.

    Attributes:
        sizes: Heights and widths of the samples, multiples of 128.
        batch_bytes: Arrays of a batch, about; a batch is one message.
        stream_bytes: Arrays of a turn, about.
        rounds: Turns of each contender.
        triton_python: Interpreter of an environment with nvidia-pytriton; None leaves Triton out.
    """

    sizes: Sequence[int] = (128, 512)
    batch_bytes: int = 16 * 2**20
    stream_bytes: int = 512 * 2**20
    rounds: int = 7
    triton_python: str | None = None


@dataclass(kw_only=True, slots=True)
class Stream:
    """What was seen of one contender.

    Attributes:
        total_ns: Of each turn.
        reader_peak_rss_bytes: Most memory of the reader.
        versions: Of Python and its packages, where the contender has an environment of its own.
    """

    total_ns: list[int] = field(default_factory=list)
    reader_peak_rss_bytes: int | None = None
    versions: Mapping[str, str] | None = None


@dataclass(kw_only=True, slots=True)
class Measured:
    """What was seen at one size.

    Attributes:
        sample_bytes: Image, mask and keypoints of one sample.
        batch_size: Samples of a message.
        samples: Of a turn.
        streams: By contender.
    """

    sample_bytes: int
    batch_size: int
    samples: int
    streams: dict[str, Stream]


def measure(size: int, settings: TransportSettings) -> Measured:
    """Run all contenders at one size; says on standard error how far it is.

    Raises:
        ParityError: A reader got other bits than the first.
        WorkerError: A process ended, failed or did not answer.
    """
    sample_bytes = size * size * 4 + 9 * 16
    batch_size = max(1, settings.batch_bytes // sample_bytes)
    samples = max(2, settings.stream_bytes // sample_bytes // batch_size) * batch_size
    names = [OURS, SHARED, FLIGHT] + ([TRITON] if settings.triton_python else [])
    measured = Measured(
        sample_bytes=sample_bytes, batch_size=batch_size, samples=samples, streams={name: Stream() for name in names}
    )
    with _readers(size, batch_size, names, settings.triton_python) as readers:
        for name, reader in readers.items():
            measured.streams[name].versions = reader.description.get("versions")
        digests = {
            name: reader.ask({"samples": samples, "kept": _KEPT_SAMPLES}, timeout_s=_TIMEOUT_S)["digest"]
            for name, reader in readers.items()
        }
        _check(digests)
        for number in range(settings.rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                answer = readers[name].ask({"samples": samples, "kept": 0}, timeout_s=_TIMEOUT_S)
                measured.streams[name].total_ns.append(int(answer["total_ns"]))
                measured.streams[name].reader_peak_rss_bytes = answer["peak_rss_bytes"]
            _say(f"{size} x {size}: round {number + 1} of {settings.rounds}")
    return measured


@contextmanager
def _readers(
    size: int, batch_size: int, names: Sequence[str], triton_python: str | None
) -> Iterator[dict[str, Worker]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="labelmint-bench-")))
        recording = folder / "recording.npz"
        record(recording, size, batch_size)

        def start(name: str, role: int, arguments: Sequence[str]) -> Worker:
            python = triton_python if name == TRITON and triton_python else sys.executable
            worker = Worker(_MODULES[name][role], arguments, timeout_s=_TIMEOUT_S, python=python)
            return stack.enter_context(worker)

        yield {name: _start_pair(name, recording, start) for name in names}


def _start_pair(name: str, recording: Path, start: Callable[[str, int, Sequence[str]], Worker]) -> Worker:
    """Start a server, and the reader that is given back."""
    ports = ["--ports", *(str(port) for port in _free_ports(2))] if name == TRITON else []
    described: Document = start(name, 0, ["--recording", str(recording), *ports]).description
    if _MODULES[name] != _SERVICE:
        return start(name, 1, ["--recording", str(recording), "--address", described["address"]])
    # A batch and what is around it.
    message_bytes = recording.stat().st_size + 2**20
    arguments = ["--address", described["address"], "--model", described["model"]]
    arguments += ["--message-bytes", str(message_bytes)]
    if name == SHARED:
        arguments += ["--shared-bytes", str(4 * message_bytes)]
    return start(name, 1, arguments)


def _check(digests: Mapping[str, str]) -> None:
    expected = digests[OURS]
    for name, digest in digests.items():
        if digest != expected:
            raise ParityError(
                f"the samples of {name} have digest {digest}, those of {OURS} {expected}; rates of different samples "
                "cannot be compared: find the defect first",
            )


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
