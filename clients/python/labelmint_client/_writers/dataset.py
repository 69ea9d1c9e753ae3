"""Writes a data set sample by sample, so that it can be continued after any interruption."""

import itertools
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from labelmint_client._errors import OutputError
from labelmint_client._sample import Float32Array, Sample
from labelmint_client._writers.atomic import atomic_file, clear_errors, final_name, remove_drafts, write_atomic
from labelmint_client._writers.coco import coco_regions, write_coco
from labelmint_client._writers.journal import Journal, Record, parse_record
from labelmint_client._writers.layout import (
    DATASET_NAME,
    FILES,
    FINISHED_KEYS,
    FOLDERS,
    KEYPOINTS_NAME,
    LICENCE_NAME,
    foreign_files,
    foreign_sample_files,
    is_data_set,
)
from labelmint_client._writers.pictures import image_png, mask_png, npy
from labelmint_client._writers.spec import DatasetSpec, licence_text


@dataclass(frozen=True, kw_only=True, slots=True)
class ResumePoint:
    """What an earlier run left.

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


class DatasetWriter:
    """Writes one data set into one folder.

    Args:
        out: The folder.
        spec: What goes into it.
    """

    def __init__(self, out: Path, spec: DatasetSpec) -> None:
        self._out = out
        self._spec = spec
        self._journal = Journal(out)
        self._replaces = False
        self._resumes = False
        self._is_begun = False

    def prepare(self, *, resume: bool, overwrite: bool) -> ResumePoint | None:
        """Look at the folder, changing nothing.

        Args:
            resume: Go on with what is there.
            overwrite: Replace what is there.

        Returns:
            What is there already, if it is to be continued.

        Raises:
            OutputError: The folder holds something that must not be touched.
        """
        with clear_errors(self._out, "read"):
            if not self._out.exists():
                return None
            names = sorted(path.name for path in self._out.iterdir() if final_name(path.name) == path.name)
        self._refuse(foreign_files(self._out))
        if not names:
            return None
        if not is_data_set(self._out):
            self._refuse(names)
        if overwrite:
            self._refuse(foreign_sample_files(self._out))
            self._replaces = True
            return None
        if not resume:
            state = "an unfinished" if self._journal.exists else "a finished"
            raise OutputError(
                f"{self._out} holds {state} data set already; go on with --resume, start again with --overwrite, "
                "or choose another folder",
                field="out",
            )
        return self._resume_point()

    def begin(self, numerics_id: str) -> None:
        """Make the folder ready for the first sample of this run.

        Args:
            numerics_id: Engine that computes the samples.

        Raises:
            OutputError: The folder cannot be written.
        """
        with clear_errors(self._out, "create"):
            self._out.mkdir(parents=True, exist_ok=True)
        self._is_begun = True
        for folder in (self._out, *(self._out / name for name in FOLDERS)):
            remove_drafts(folder)
        if self._resumes:
            self._journal.repair()
            return
        if self._replaces:
            self._remove_old()
        self._journal.begin(self._spec.header(numerics_id))
        for name in self._folders():
            with clear_errors(self._out / name, "create"):
                (self._out / name).mkdir(exist_ok=True)

    def write(self, sample: Sample, next_index: int) -> None:
        """Add a sample.

        Args:
            sample: With all arrays that the data set stores.
            next_index: Address to go on with after it.

        Raises:
            OutputError: A file cannot be written; what was written before stays usable.
        """
        name = f"{sample.index:06d}"
        image = f"images/{name}.png"
        model = self._spec.model
        write_atomic(self._out / image, image_png(sample.image))
        if "png" in self._spec.formats:
            write_atomic(self._out / "masks" / f"{name}.png", mask_png(sample.mask, model.palette))
        if self._spec.uncertainty_maps:
            write_atomic(self._out / "uncertainty_maps" / f"{name}.npy", npy(sample.uncertainty_map))
        record: Record = {
            "index": sample.index,
            "next_index": next_index,
            "image": image,
            "class_index": sample.class_index,
            "uncertainty": _short_float(np.float32(sample.uncertainty)),
            "keypoints": _short_floats(sample.keypoints) if model.keypoint_names else [],
        }
        if "coco" in self._spec.formats:
            record["regions"] = coco_regions(sample, model)
        self._journal.append(record)

    def leave_out(self, index: int) -> None:
        """Note a sample that the server cannot make, so that the data set can be continued after it.

        Args:
            index: Its address. Where no data set was begun there is nothing to continue, and nothing is noted.

        Raises:
            OutputError: The journal cannot be written.
        """
        if self._is_begun or self._resumes:
            self._journal.repair()
            self._journal.append({"left_out": index, "next_index": index + 1})

    def indices(self) -> list[int]:
        """List the addresses of the samples on disk.

        Raises:
            OutputError: The journal cannot be read.
        """
        return [record["index"] for record in self._journal.records()]

    @property
    def numerics_id(self) -> str:
        """Engine that the data set began with.

        Raises:
            OutputError: The journal cannot be read.
        """
        numerics_id: str = self._journal.header()["numerics_id"]
        return numerics_id

    def finish(self, next_index: int) -> int:
        """Write the files that describe the whole, and declare it finished.

        Args:
            next_index: Address up to which samples were asked for.

        Returns:
            Number of samples in the data set.

        Raises:
            OutputError: A file cannot be written.
        """
        num_samples = sum(1 for _ in self._journal.records())
        left_out = [record["left_out"] for record in self._journal.steps() if "left_out" in record]
        if "png" in self._spec.formats and self._spec.model.keypoint_names:
            with atomic_file(self._out / KEYPOINTS_NAME) as file:
                self._write_keypoints(file)
        if "coco" in self._spec.formats:
            write_coco(self._out, self._spec, self._journal.records)
        write_atomic(self._out / LICENCE_NAME, licence_text(self._spec.model).encode())
        description = self._spec.description(
            self._journal.header(), num_samples=num_samples, next_index=next_index, left_out=left_out
        )
        write_atomic(self._out / DATASET_NAME, _indented(description))
        self._journal.remove()
        return num_samples

    def _refuse(self, foreign: Iterable[str]) -> None:
        if listed := ", ".join(itertools.islice(foreign, 5)):
            raise OutputError(
                f"{self._out} holds files that labelmint did not write ({listed}); "
                "move them away, or choose an empty folder",
                field="out",
            )

    def _folders(self) -> list[str]:
        wanted = {"images": True, "masks": "png" in self._spec.formats, "uncertainty_maps": self._spec.uncertainty_maps}
        return [name for name in FOLDERS if wanted[name]]

    def _resume_point(self) -> ResumePoint:
        if not self._journal.exists:
            return self._finished()
        header = self._journal.header()
        self._check_same(header)
        num_samples, next_index = 0, self._spec.request["start_index"]
        for record in self._journal.steps():
            num_samples, next_index = num_samples + ("left_out" not in record), record["next_index"]
        if self._spec.count is not None and num_samples > self._spec.count:
            raise OutputError(
                f"{self._out} holds {num_samples} samples already, asked for were {self._spec.count}; "
                "ask for at least as many, or start again with --overwrite",
                field="count",
            )
        self._resumes = True
        return ResumePoint(
            num_samples=num_samples, next_index=next_index, numerics_id=header["numerics_id"], is_complete=False
        )

    def _finished(self) -> ResumePoint:
        path = self._out / DATASET_NAME
        with clear_errors(path, "read"):
            description = parse_record(path.read_bytes(), str(path), FINISHED_KEYS)
        self._check_same(description)
        if description["count"] != self._spec.count:
            raise OutputError(
                f"{self._out} holds a finished data set with count {description['count']}, asked for was "
                f"{self._spec.count}; write the rest to another folder, from index {description['next_index']}",
                field="count",
            )
        return ResumePoint(
            num_samples=description["num_samples"],
            next_index=description["next_index"],
            numerics_id=description["numerics_id"],
            is_complete=True,
        )

    def _check_same(self, there: Record) -> None:
        # The engine is the server's business: the stream is pinned to it, or not.
        wanted = self._spec.header(there["numerics_id"])
        differences = list(_differences(there, wanted))
        if differences:
            raise OutputError(
                f"{self._out} holds another data set: {'; '.join(differences)}; repeat its arguments, "
                "or start again with --overwrite",
                field="resume",
            )

    def _remove_old(self) -> None:
        self._journal.mark()
        with clear_errors(self._out, "empty"):
            for name in (DATASET_NAME, *FILES):
                (self._out / name).unlink(missing_ok=True)
            for name in FOLDERS:
                if (self._out / name).exists():
                    shutil.rmtree(self._out / name)

    def _write_keypoints(self, file: IO[bytes]) -> None:
        model = self._spec.model
        head = {"names": list(model.keypoint_names), "skeleton": [list(pair) for pair in model.skeleton]}
        file.write(json.dumps(head)[:-1].encode() + b', "columns": ["x", "y", "score", "visible"], "samples": [\n')
        for number, record in enumerate(self._journal.records()):
            sample = {key: record[key] for key in ("index", "image", "uncertainty", "keypoints")}
            file.write((b",\n" if number else b"") + json.dumps(sample).encode())
        file.write(b"\n]}\n")


def _differences(there: Record, wanted: Record) -> "list[str]":
    # "formats" and the like stand on top, seed and filters in "request".
    pairs: list[tuple[str, Any, Any]] = [
        (key, there.get(key), value) for key, value in wanted.items() if key != "request"
    ]
    request = there["request"]
    pairs += [(key, request.get(key), value) for key, value in wanted["request"].items()]
    return [f"{key} is {old!r} there and {new!r} here" for key, old, new in pairs if old != new]


def _short_floats(points: Float32Array) -> list[list[float]]:
    return [[_short_float(value) for value in point] for point in points]


def _short_float(value: np.float32) -> float:
    """The shortest decimal number that is this float32."""
    return float(str(value))


def _indented(record: Record) -> bytes:
    return json.dumps(record, indent=2, ensure_ascii=False).encode() + b"\n"
