"""What an earlier run left in the folder of a data set."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from labelmint_client._errors import OutputError
from labelmint_client._writers.atomic import clear_errors, final_name
from labelmint_client._writers.journal import Journal, Record, parse_record
from labelmint_client._writers.layout import (
    DATASET_NAME,
    FINISHED_KEYS,
    foreign_files,
    foreign_sample_files,
    is_data_set,
)
from labelmint_client._writers.spec import DatasetSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class ResumePoint:
    """Where an earlier run stopped.

    Attributes:
        num_samples: Samples on disk.
        next_index: Address to go on with.
        numerics_id: Engine they were made with.
        is_complete: Whether nothing is left to do.
    """

    num_samples: int
    next_index: int
    numerics_id: str
    is_complete: bool


def look_at_folder(out: Path, spec: DatasetSpec, *, resume: bool, overwrite: bool) -> ResumePoint | None:
    """Look at the folder of a data set, changing nothing.

    Args:
        out: The folder.
        spec: What is to go into it.
        resume: Go on with what is there.
        overwrite: Replace what is there.

    Returns:
        What is there already, if it is to be continued.

    Raises:
        OutputError: The folder holds something that must not be touched.
    """
    with clear_errors(out, "read"):
        if not out.exists():
            return None
        names = sorted(path.name for path in out.iterdir() if final_name(path.name) == path.name)
    _refuse(out, foreign_files(out))
    if not names:
        return None
    if not is_data_set(out):
        _refuse(out, names)
    if overwrite:
        _refuse(out, foreign_sample_files(out))
        return None
    journal = Journal(out)
    if not resume:
        state = "an unfinished" if journal.exists else "a finished"
        raise OutputError(
            f"{out} holds {state} data set already; go on with --resume, start again with --overwrite, "
            "or choose another folder",
            field="out",
        )
    return _unfinished(out, spec, journal) if journal.exists else _finished(out, spec)


def _refuse(out: Path, foreign: Iterable[str]) -> None:
    if listed := ", ".join(itertools.islice(foreign, 5)):
        raise OutputError(
            f"{out} holds files that labelmint did not write ({listed}); move them away, or choose an empty folder",
            field="out",
        )


def _unfinished(out: Path, spec: DatasetSpec, journal: Journal) -> ResumePoint:
    header = journal.header()
    _check_same(out, spec, header)
    num_samples, next_index = 0, spec.request["start_index"]
    for record in journal.steps():
        num_samples, next_index = num_samples + ("index" in record), record["next_index"]
    if spec.count is not None and num_samples > spec.count:
        raise OutputError(
            f"{out} holds {num_samples} samples already, asked for were {spec.count}; "
            "ask for at least as many, or start again with --overwrite",
            field="count",
        )
    return ResumePoint(
        num_samples=num_samples, next_index=next_index, numerics_id=header["numerics_id"], is_complete=False
    )


def _finished(out: Path, spec: DatasetSpec) -> ResumePoint:
    path = out / DATASET_NAME
    with clear_errors(path, "read"):
        description = parse_record(path.read_bytes(), str(path), FINISHED_KEYS)
    _check_same(out, spec, description)
    if description["count"] != spec.count:
        raise OutputError(
            f"{out} holds a finished data set with count {description['count']}, asked for was "
            f"{spec.count}; write the rest to another folder, from index {description['next_index']}",
            field="count",
        )
    return ResumePoint(
        num_samples=description["num_samples"],
        next_index=description["next_index"],
        numerics_id=description["numerics_id"],
        is_complete=True,
    )


def _check_same(out: Path, spec: DatasetSpec, there: Record) -> None:
    # The engine is the server's business: the stream is pinned to it, or not.
    wanted = spec.header(there["numerics_id"])
    if differences := "; ".join(_differences(there, wanted)):
        raise OutputError(
            f"{out} holds another data set: {differences}; repeat its arguments, or start again with --overwrite",
            field="resume",
        )


def _differences(there: Record, wanted: Record) -> list[str]:
    # "formats" and the like stand on top, seed and filters in "request".
    old, new = ({**record, **record["request"], "request": None} for record in (there, wanted))
    return [
        f"{key} is {old.get(key)!r} there and {value!r} here" for key, value in new.items() if old.get(key) != value
    ]
