"""Streamed samples: fetched once through the client, kept in a file, taken up again after an interruption.

Legend: N samples, H rows, W columns, K keypoints.
"""

import contextlib
import json
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from benchmarks.downstream.settings import STREAMED_SEED, DownstreamSettings
from benchmarks.errors import BenchmarkError, RecordError
from benchmarks.processes.server import ServerProcess
from labelmint.bundle import open_bundle
from labelmint_client import Client, Model, Sample

SAMPLES_A_PART = 500

_START_TIMEOUT_S = 600.0
_JOINED = ("pictures", "masks", "keypoints", "indices")
_Arrays = dict[str, npt.NDArray[Any]]  # Any: arrays of several dtypes


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamedSamples:
    """Samples as they came.

    Attributes:
        class_names: Name of each class id.
        pictures: uint8 [N, H, W, 3].
        masks: uint8 [N, H, W].
        keypoints: float32 [N, K, 4], x, y, score, visibility.
        source: Where they came from, ready for JSON.
        engine: What made them; None if that was another's server, or was not kept.
    """

    class_names: tuple[str, ...]
    pictures: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.uint8]
    keypoints: npt.NDArray[np.float32]
    source: dict[str, object]
    engine: str | None


def fetch_samples(settings: DownstreamSettings) -> StreamedSamples:
    """Read the samples from the cache, or fetch them from a server and keep them there.

    Raises:
        RecordError: The cache holds something else.
        LabelmintError: The server cannot be started or reached, or the stream broke for good.
    """
    if settings.cache.exists():
        return _load_cache(settings, None if settings.address else open_bundle(settings.bundle).digest)
    with _serving(settings) as address, Client(address) as client:
        model = _choose_model(client, settings.model)
        parts = _fetch_parts(client, model, settings)
    source = json.loads(str(parts[0]["source"])) | {"next_index": int(parts[-1]["next_index"])}
    joined = {key: np.concatenate([part[key] for part in parts]) for key in _JOINED}
    engines = dict.fromkeys(str(part.get("engine", "")) for part in parts)
    del parts  # as large as what is joined
    engine = np.array("" if "" in engines else ", ".join(engines))
    _save(settings.cache, {**joined, "source": np.array(json.dumps(source)), "engine": engine})
    del joined
    shutil.rmtree(_parts_folder(settings.cache))
    return _load_cache(settings, model.digest)


@contextlib.contextmanager
def _serving(settings: DownstreamSettings) -> Iterator[str]:
    if settings.address is not None:
        yield settings.address
        return
    with ServerProcess(settings.bundle, engine=settings.engine, timeout_s=_START_TIMEOUT_S) as server:
        yield server.address


def _choose_model(client: Client, name: str | None) -> Model:
    if name is None:
        names = [summary.name for summary in client.list_models()]
        if len(names) != 1:
            raise BenchmarkError(f"the server has the models {', '.join(names)}; name one with --model", field="model")
        [name] = names
    return client.get_model(name)


def _fetch_parts(client: Client, model: Model, settings: DownstreamSettings) -> list[_Arrays]:
    """Fetch what is missing, a file for each SAMPLES_A_PART samples."""
    folder = _parts_folder(settings.cache)
    folder.mkdir(parents=True, exist_ok=True)
    source = _source(settings, model)
    parts = [_load(path) for path in sorted(folder.glob("*.npz"))]
    for part in parts:
        _check_source(json.loads(str(part["source"])), source, folder)
    num_there = sum(len(part["indices"]) for part in parts)
    missing = settings.num_samples - num_there
    if missing <= 0:
        return parts
    quantile = settings.max_uncertainty_quantile
    with (
        client.generate(
            model.name,
            seed=STREAMED_SEED,
            count=missing,
            start_index=int(parts[-1]["next_index"]) if parts else 0,
            max_uncertainty_quantile=quantile if quantile < 1 else None,
            digest=model.digest,
        ) as stream,
        tqdm(total=settings.num_samples, initial=num_there, desc="fetch", unit="sample", mininterval=2.0) as bar,
    ):
        while samples := list(islice(stream, SAMPLES_A_PART)):
            # numerics_id: ids may change between interruptions, labels then differ within the manifest's tolerances.
            document = json.dumps(source | {"numerics_id": stream.numerics_id})
            part = _stack(samples, model) | {"source": np.array(document), "next_index": np.array(stream.next_index)}
            part["engine"] = np.array("" if settings.address else settings.engine)
            _save(folder / f"{len(parts):05d}.npz", part)
            parts.append(part)
            bar.update(len(samples))
    return parts


def _stack(samples: list[Sample], model: Model) -> _Arrays:
    count, points = len(samples), len(model.keypoint_names)
    keypoints = [sample.keypoints for sample in samples] if points else [np.zeros((0, 4), np.float32)] * count
    return {
        "pictures": np.stack([sample.image for sample in samples]),
        "masks": np.stack([sample.mask for sample in samples]),
        "keypoints": np.stack(keypoints),
        "indices": np.array([sample.index for sample in samples], dtype=np.uint64),
    }


def _source(settings: DownstreamSettings, model: Model) -> dict[str, object]:
    return {
        "model": model.name,
        "digest": model.digest,
        "class_names": list(model.class_names),
        "seed": STREAMED_SEED,
        "max_uncertainty_quantile": settings.max_uncertainty_quantile,
        "truncation_psi": model.manifest.truncation.default_psi,
    }


def _check_source(found: dict[str, object], wanted: dict[str, object], path: Path) -> None:
    for key, value in wanted.items():
        if found.get(key) != value:
            raise RecordError(
                f"{path} holds samples with {key} {found.get(key)!r}, expected {value!r}; give another --cache, or "
                "delete this one",
                field="cache",
            )


def _load_cache(settings: DownstreamSettings, digest: str | None) -> StreamedSamples:
    arrays = _load(settings.cache)
    source: dict[str, Any] = json.loads(str(arrays["source"]))  # Any: a document of JSON
    wanted: dict[str, object] = {
        "seed": STREAMED_SEED,
        "max_uncertainty_quantile": settings.max_uncertainty_quantile,
    }
    _check_source(source, wanted if digest is None else {**wanted, "digest": digest}, settings.cache)
    num_there = len(arrays["pictures"])
    if num_there < settings.num_samples:
        raise RecordError(
            f"{settings.cache} holds {num_there} samples, expected at least {settings.num_samples}; give another "
            "--cache, or delete this one",
            field="cache",
        )
    return StreamedSamples(
        class_names=tuple(source["class_names"]),
        pictures=arrays["pictures"][: settings.num_samples],
        masks=arrays["masks"][: settings.num_samples],
        keypoints=arrays["keypoints"][: settings.num_samples],
        source=source,
        engine=str(arrays.get("engine", "")) or None,
    )


def _parts_folder(cache: Path) -> Path:
    return cache.with_name(f"{cache.name}.parts")


def _load(path: Path) -> _Arrays:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        missing = {*_JOINED, "source"} - arrays.keys()
        if missing:
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise RecordError(f"{path} holds no streamed samples ({error}); delete it", field="cache") from error
    return arrays


def _save(path: Path, arrays: _Arrays) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.unfinished")
    with unfinished.open("wb") as out:
        np.savez(out, **arrays)  # type: ignore[arg-type]  # the stub takes allow_pickle for one of the arrays
    unfinished.replace(path)
