"""The journal of a data set in the making: INCOMPLETE.jsonl.

Its first line says what is made. Each further line is a step: a sample whose files are on disk, one that the server
cannot make and that is left out, or nothing but an address up to which a filter rejected everything; each says where to
go on. While the journal lies in a folder, the data set there is not finished. A line that was cut off by a fault is
dropped, and its step is made again.
"""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from labelmint_client._errors import OutputError
from labelmint_client._writers.atomic import clear_errors, write_atomic

JOURNAL_NAME = "INCOMPLETE.jsonl"

# A line of the journal. Any: JSON.
Record = dict[str, Any]

_HEADER_KEYS = ("numerics_id", "request")
_STEP_KEYS = ("next_index",)
_SAMPLE_KEYS = ("index", *_STEP_KEYS, "image", "class_index", "uncertainty", "keypoints")


class Journal:
    """Reads and extends the journal of one folder.

    Args:
        folder: Folder of the data set.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / JOURNAL_NAME
        self._ends_whole = False

    @property
    def exists(self) -> bool:
        """Whether the folder holds an unfinished data set."""
        return self._path.exists()

    def begin(self, header: Record) -> None:
        """Start anew.

        Args:
            header: What is made.
        """
        write_atomic(self._path, _line(header))
        self._ends_whole = True

    def mark(self) -> None:
        """Mark the folder as unfinished before anything in it is removed."""
        write_atomic(self._path, b"")

    def header(self) -> Record:
        """Read what is made.

        Raises:
            OutputError: The journal has no first line, or cannot be read.
        """
        for record in self._lines():
            return record
        raise OutputError(
            f"{self._path} does not say what was being written; start again with --overwrite", field="resume"
        )

    def records(self) -> Iterator[Record]:
        """Read the samples that are on disk, in order.

        Raises:
            OutputError: The journal cannot be read.
        """
        yield from (record for record in self.steps() if "index" in record)

    def steps(self) -> Iterator[Record]:
        """Read all steps, in order.

        Raises:
            OutputError: The journal cannot be read.
        """
        lines = self._lines()
        next(lines, None)
        yield from lines

    def append(self, step: Record) -> None:
        """Note a step.

        Args:
            step: A sample whose files are on disk, one that is left out, or an address to go on with.

        Raises:
            OutputError: The journal cannot be written.
        """
        if not self._ends_whole:
            self._repair()
        with clear_errors(self._path, "write"), self._path.open("ab") as file:
            file.write(_line(step))

    def remove(self) -> None:
        """Declare the data set finished.

        Raises:
            OutputError: The journal cannot be removed.
        """
        with clear_errors(self._path, "remove"):
            self._path.unlink()

    def _repair(self) -> None:
        """Cut off a line that a fault left unfinished."""
        with clear_errors(self._path, "repair"):
            whole = 0
            with self._path.open("rb") as file:
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    whole += len(line)
            os.truncate(self._path, whole)
        self._ends_whole = True

    def _lines(self) -> Iterator[Record]:
        with clear_errors(self._path, "read"), self._path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return
                is_sample = line.startswith(b'{"index"')
                keys = _HEADER_KEYS if number == 1 else _SAMPLE_KEYS if is_sample else _STEP_KEYS
                yield parse_record(line, f"line {number} of {self._path}", keys)


def parse_record(text: bytes, name: str, keys: Iterable[str]) -> Record:
    """Read a JSON object that an earlier run wrote.

    Args:
        text: The JSON.
        name: What it is, for errors.
        keys: Keys it must have.

    Raises:
        OutputError: It is no such object.
    """
    try:
        record = json.loads(text)
    except ValueError:
        record = None
    if not isinstance(record, dict) or not record.keys() >= set(keys):
        raise OutputError(f"{name} is damaged; start again with --overwrite", field="resume")
    return record


def _line(record: Record) -> bytes:
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
