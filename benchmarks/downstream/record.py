"""The record of a benchmark in progress: each finished training is stored at once, so an interrupted one goes on."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.downstream.training import RENDERED, STREAMED
from benchmarks.errors import RecordError
from benchmarks.reporting.files import write_json

ONLY_OF: Mapping[str, Sequence[str]] = MappingProxyType(
    {STREAMED: ("num_samples", "streamed_seed", "source"), RENDERED: ("num_rendered", "rendered_seed")}
)
"""What only the trainings of one arm depend on."""

# Any: documents of JSON.
Run = dict[str, Any]


class Record:
    """Finished trainings, in a file.

    Args:
        path: The file; it may exist.
        configuration: What makes trainings comparable, as JSON gives it back; those of another one are refused.
        forgotten: Arms whose trainings are done again; what only they depend on may differ.

    Raises:
        RecordError: The file is malformed or has another configuration.
    """

    def __init__(self, path: Path, configuration: dict[str, Any], forgotten: Collection[str] = ()) -> None:
        self._path = path
        self._configuration = configuration
        self._forgotten = forgotten
        self.runs: list[Run] = []
        if path.exists():
            self.runs = self._read()

    def find(self, arm: str, seed: int) -> Run | None:
        """The finished training of an arm and a seed."""
        return next((run for run in self.runs if (run["arm"], run["seed"]) == (arm, seed)), None)

    def add(self, run: Run) -> None:
        """Store a finished training."""
        self.runs.append(run)
        self.write({"complete": False})

    def write(self, more: dict[str, Any]) -> None:
        """Write the file.

        Args:
            more: What it holds besides configuration and trainings.
        """
        document = {"benchmark": "downstream", **more, "configuration": self._configuration, "runs": self.runs}
        write_json(self._path, document)

    def _read(self) -> list[Run]:
        try:
            document = json.loads(self._path.read_text(encoding="utf-8"))
            found, runs = document["configuration"], document["runs"]
            for run in runs:
                run["arm"], run["seed"], run["scores"]["miou"], run["scores"]["iou"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RecordError(
                f"{self._path} is no record of trainings ({error!r}); delete it or give another --out", field="out"
            ) from error
        runs = [run for run in runs if run["arm"] not in self._forgotten]
        free = {key for arm in self._forgotten for key in ONLY_OF[arm]}
        differing = [
            key for key, value in self._configuration.items() if runs and key not in free and found.get(key) != value
        ]
        if differing:
            key = differing[0]
            raise RecordError(
                f"{self._path} holds trainings with {key} {found.get(key)!r}, expected {self._configuration[key]!r}; "
                "give --restart, with the arm that it concerns, to train again, or another --out to keep them",
                field=key,
            )
        return list(runs)
