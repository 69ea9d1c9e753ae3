"""Errors of the benchmarks.

BenchmarkError
├── WorkerError      a process of the benchmark ended, failed or did not answer in time
├── ParityError      contenders that have to give the same bits do not: their speeds mean nothing
├── DeviceError      the device that was asked for is not there
└── RecordError      a file of an earlier run does not belong to this one
"""

from labelmint.errors import LabelmintError


class BenchmarkError(LabelmintError):
    """Root of what a benchmark raises on purpose."""


class WorkerError(BenchmarkError):
    """A process ended, failed or did not answer in time."""


class ParityError(BenchmarkError):
    """Contenders give different outputs for the same addresses."""


class DeviceError(BenchmarkError):
    """The device that was asked for is not there, or cannot be used."""


class RecordError(BenchmarkError):
    """A stored file is malformed, or was made with other settings."""
