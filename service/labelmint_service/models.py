"""What the server serves: bundles with an engine that runs them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from labelmint.addresses import latents
from labelmint.bundle import Bundle, open_bundle
from labelmint_service.engine import Engine, EngineBatch, LatentInputs, load_engine
from labelmint_service.engine.protocol import run_inputs
from labelmint_service.errors import (
    EngineRunError,
    EngineStartError,
    ModelForbiddenError,
    ModelNotFoundError,
    RequestError,
    StartError,
)
from labelmint_service.numerics import Numerics, describe_numerics

_PROBE_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Probe:
    """Rows whose outputs are known.

    Attributes:
        inputs: A whole batch.
        digests: Of the outputs of each row; None for rows that come out non-finite.
    """

    inputs: LatentInputs
    digests: tuple[bytes | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ServedModel:
    """A bundle, ready to run.

    Attributes:
        bundle: Verified bundle.
        engine: Warm engine.
        numerics: What outputs are bit-identical for.
        average_style: float32 [w_dim], towards which truncation pulls.
        probe: Rows of the warm-up, by which a doubtful engine is judged.
    """

    bundle: Bundle
    engine: Engine
    numerics: Numerics
    average_style: npt.NDArray[np.float32]
    probe: Probe

    @property
    def name(self) -> str:
        """The name that requests use."""
        return self.bundle.name


def load_model(
    path: Path,
    *,
    engine: str = "onnxruntime",
    provider: str = "cpu",
    kernel: str = "auto",
    verify_files: bool = True,
    expect_digest: str | None = None,
) -> ServedModel:
    """Open a bundle, start its engine and run it once.

    Args:
        path: Folder of the bundle.
        engine: Name of the engine.
        provider: What the engine runs on.
        kernel: Form of the fused engine's kernel.
        verify_files: Whether to compare the sha256 of each file.
        expect_digest: The only digest that is accepted; None for any.

    Raises:
        BundleError: The bundle is missing, malformed, altered, or not the expected one.
        EngineStartError: The engine is missing or cannot run the bundle.
    """
    bundle = open_bundle(path, expect_digest=expect_digest, verify_files=verify_files)
    return serve_bundle(bundle, load_engine(bundle, engine=engine, provider=provider, kernel=kernel))


def serve_bundle(bundle: Bundle, engine: Engine) -> ServedModel:
    """Warm an engine up and join it with its bundle.

    Raises:
        EngineStartError: The first run fails.
    """
    backbone, num_rows = bundle.manifest.backbone, engine.batch_size
    onehot = np.zeros((num_rows, backbone.c_dim), dtype=np.float32)
    onehot[:, :1] = 1.0
    psi = np.full(num_rows, bundle.manifest.truncation.default_psi, dtype=np.float32)
    z = latents(_PROBE_SEED, np.arange(num_rows, dtype=np.uint64), backbone.z_dim)
    inputs = LatentInputs(z=z, class_onehot=onehot, truncation_psi=psi)
    try:
        digests = digest_rows(run_inputs(engine, inputs))
        average_style = engine.average_style()
    except EngineRunError as error:
        raise EngineStartError(
            f"the first run of bundle {bundle.name!r} failed: {error}; run `labelmint-export verify` on it",
        ) from error
    return ServedModel(
        bundle=bundle,
        engine=engine,
        numerics=describe_numerics(bundle, engine),
        average_style=average_style,
        probe=Probe(inputs=inputs, digests=digests),
    )


def digest_rows(batch: EngineBatch) -> tuple[bytes | None, ...]:
    """The sha256 of each row's arrays; None for rows that are not finite."""

    def digest(row: int) -> bytes:
        arrays = (batch.image, batch.label, batch.uncertainty_map)
        points = b"" if batch.keypoints is None else batch.keypoints[row].tobytes()
        return hashlib.sha256(b"".join([*(array[row].tobytes() for array in arrays), points])).digest()

    return tuple(digest(row) if finite else None for row, finite in enumerate(batch.finite))


class ModelCatalog:
    """The served models by name.

    Args:
        models: At least one, with names of their own.

    Raises:
        StartError: Two models share a name.
    """

    def __init__(self, models: Iterable[ServedModel]) -> None:
        self._models: dict[str, ServedModel] = {}
        for model in models:
            if model.name in self._models:
                raise StartError(
                    f"bundles {self._models[model.name].bundle.root} and {model.bundle.root} both have the name "
                    f"{model.name!r}, expected names of their own; serve one of them",
                    field="bundle",
                )
            self._models[model.name] = model
        self._hidden: frozenset[str] = frozenset()

    def limited_to(self, names: frozenset[str] | None) -> ModelCatalog:
        """The catalog as somebody sees it who may use some of the models only.

        Args:
            names: Names of these models, of which not all need be served; None for all there are.
        """
        if names is None:
            return self
        limited = ModelCatalog(model for model in self if model.name in names)
        limited._hidden = frozenset(self._models) - names
        return limited

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    def find(self, name: str, *, field: str) -> ServedModel:
        """The model of a name.

        Args:
            name: As the request has it.
            field: Request field the name came in.

        Raises:
            RequestError: The name is empty.
            ModelForbiddenError: It is served, but not to whom this catalog is for.
            ModelNotFoundError: No such model is served.
        """
        served = ", ".join(sorted(self._models)) or "none"
        if not name:
            raise RequestError(f"{field} is empty, expected one of {served}; name the model", field=field)
        if name in self._hidden:
            raise ModelForbiddenError(
                f"{field} is {name!r}, which your token does not open, expected one of {served}; choose one of these "
                "or ask the operator for access",
                field=field,
            )
        model = self._models.get(name)
        if model is None:
            raise ModelNotFoundError(
                f"{field} is {name[:64]!r}, expected one of {served}; choose a served model",
                field=field,
            )
        return model
