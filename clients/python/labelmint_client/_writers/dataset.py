"""Writes a data set sample by sample, so that it can be continued after any interruption."""

import json
import shutil
from pathlib import Path

import numpy as np

from labelmint_client._sample import Float32Array, Sample
from labelmint_client._writers.atomic import clear_errors, remove_drafts, write_atomic
from labelmint_client._writers.coco import coco_regions, write_coco
from labelmint_client._writers.earlier import ResumePoint, look_at_folder
from labelmint_client._writers.journal import Journal, Record
from labelmint_client._writers.keypoints import write_keypoints
from labelmint_client._writers.layout import DATASET_NAME, FILES, FOLDERS, LICENCE_NAME
from labelmint_client._writers.pictures import image_png, mask_png, npy
from labelmint_client._writers.spec import DatasetSpec, licence_text


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
        point = look_at_folder(self._out, self._spec, resume=resume, overwrite=overwrite)
        self._replaces = overwrite
        self._resumes = point is not None and not point.is_complete
        return point

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
        self._note({"left_out": index, "next_index": index + 1})

    def pass_over(self, next_index: int) -> None:
        """Note up to where the filter rejected everything, so that nobody looks there again.

        Args:
            next_index: Address to go on with. Where no data set was begun there is nothing to continue, and nothing is
                noted.

        Raises:
            OutputError: The journal cannot be written.
        """
        self._note({"next_index": next_index})

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
            write_keypoints(self._out, self._spec.model, self._journal.records())
        if "coco" in self._spec.formats:
            write_coco(self._out, self._spec, self._journal.records)
        write_atomic(self._out / LICENCE_NAME, licence_text(self._spec.model).encode())
        description = self._spec.description(
            self._journal.header(), num_samples=num_samples, next_index=next_index, left_out=left_out
        )
        write_atomic(self._out / DATASET_NAME, _indented(description))
        self._journal.remove()
        return num_samples

    def _note(self, step: Record) -> None:
        if self._is_begun or self._resumes:
            self._journal.append(step)

    def _folders(self) -> list[str]:
        wanted = {"images": True, "masks": "png" in self._spec.formats, "uncertainty_maps": self._spec.uncertainty_maps}
        return [name for name in FOLDERS if wanted[name]]

    def _remove_old(self) -> None:
        self._journal.mark()
        with clear_errors(self._out, "empty"):
            for name in (DATASET_NAME, *FILES):
                (self._out / name).unlink(missing_ok=True)
            for name in FOLDERS:
                if (self._out / name).exists():
                    shutil.rmtree(self._out / name)


def _short_floats(points: Float32Array) -> list[list[float]]:
    return [[_short_float(value) for value in point] for point in points]


def _short_float(value: np.float32) -> float:
    """The shortest decimal number that is this float32."""
    return float(str(value))


def _indented(record: Record) -> bytes:
    return json.dumps(record, indent=2, ensure_ascii=False).encode() + b"\n"
