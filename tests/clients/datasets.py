"""Models and samples for tests of the writers, with everything a data set can hold."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from labelmint.v1 import bundle_pb2
from labelmint_client import Model, Sample
from labelmint_client._writers.dataset import DatasetWriter
from labelmint_client._writers.spec import DatasetSpec, Format

CLASSES = (("background", (0, 0, 0)), ("face", (255, 225, 53)), ("hair", (133, 77, 39)), ("eyes", (0, 163, 255)))
KEYPOINTS = ("left_eye", "right_eye", "mouth")


def model_of(
    *, image_size: tuple[int, int] = (12, 10), label_size: tuple[int, int] = (12, 10), keypoints: bool = True
) -> Model:
    """A model that only its manifest describes."""
    manifest = bundle_pb2.Manifest(name="cartoon", version="3", digest="c" * 64, ignore_label=255)
    manifest.frame.CopyFrom(
        bundle_pb2.Frame(
            image_height=image_size[0],
            image_width=image_size[1],
            label_height=label_size[0],
            label_width=label_size[1],
        )
    )
    for name, (red, green, blue) in CLASSES:
        manifest.classes.add(name=name, red=red, green=green, blue=blue)
    if keypoints:
        manifest.keypoints.names.extend(KEYPOINTS)
        manifest.keypoints.skeleton.add(first=0, second=1)
        manifest.keypoints.skeleton.add(first=1, second=2)
        manifest.keypoints.left_right_pairs.add(first=0, second=1)
    manifest.licence.CopyFrom(
        bundle_pb2.Licence(
            weights="Apache-2.0", data="CC-BY-4.0", attribution="Drawn by Zoë Müller", url="https://example.org/terms"
        )
    )
    return Model(manifest=manifest, numerics_id="n" * 64, numerics="{}")


def sample_of(model: Model, index: int) -> Sample:
    """A sample of random content that depends on the index alone."""
    generator = np.random.default_rng(index)
    height, width = model.image_size
    points = generator.uniform(0, 10, (len(model.keypoint_names), 4)).astype(np.float32)
    points[:, 3] = generator.integers(0, 2, len(points))
    return Sample(
        index=index,
        uncertainty=float(np.float32(generator.uniform())),
        image=generator.integers(0, 256, (height, width, 3), dtype=np.uint8),
        mask=generator.integers(0, len(CLASSES), model.label_size, dtype=np.uint8),
        keypoints=points if len(points) else None,
        uncertainty_map=generator.uniform(0, 1, model.label_size).astype(np.float16),
    )


def spec_of(
    model: Model,
    *,
    formats: tuple[Format, ...] = ("png", "coco"),
    count: int | None = 6,
    uncertainty_maps: bool = False,
    seed: int = 1,
) -> DatasetSpec:
    """A data set of that model."""
    request = {"seed": seed, "start_index": 0, "end_index": None, "shard_index": 0, "num_shards": 1}
    return DatasetSpec(model=model, formats=formats, request=request, count=count, uncertainty_maps=uncertainty_maps)


def contents(folder: Path) -> dict[str, str]:
    """Hash of each file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def write(out: Path, spec: DatasetSpec, samples: list[Sample], *, resume: bool = False, overwrite: bool = False) -> int:
    """Write a whole data set."""
    writer = DatasetWriter(out, spec)
    writer.prepare(resume=resume, overwrite=overwrite)
    writer.begin("n" * 64)
    for sample in samples:
        writer.write(sample, sample.index + 1)
    return writer.finish(6)


def write_part(out: Path, spec: DatasetSpec, samples: list[Sample]) -> None:
    """Write as a run does that is killed after these samples."""
    writer = DatasetWriter(out, spec)
    writer.prepare(resume=False, overwrite=False)
    writer.begin("n" * 64)
    for sample in samples:
        writer.write(sample, sample.index + 1)
