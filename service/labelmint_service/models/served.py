"""What the server serves: bundles with an engine that runs them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from labelmint.addresses import latents
from labelmint.bundle import Bundle, open_bundle
from labelmint_service.engine import Engine, EngineBatch, LatentInputs, load_engine
from labelmint_service.engine.protocol import run_inputs
from labelmint_service.errors import EngineRunError, EngineStartError, ModelMemoryError
from labelmint_service.models.memory_use import release_freed_memory, resident_bytes
from labelmint_service.models.numerics import Numerics, describe_numerics

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
        twins: The same bundle on further engines, which give the same bits.
        memory_bytes: By how much the process grew while all of it was loaded; 0 if nobody measured.
    """

    bundle: Bundle
    engine: Engine
    numerics: Numerics
    average_style: npt.NDArray[np.float32]
    probe: Probe
    twins: tuple[ServedModel, ...] = ()
    memory_bytes: int = 0

    @property
    def name(self) -> str:
        """The name that requests use."""
        return self.bundle.name

    @property
    def replicas(self) -> tuple[ServedModel, ...]:
        """All of them, each with an engine of its own."""
        return (self, *self.twins)

    def close(self) -> None:
        """Close all engines. It may take a while."""
        for replica in self.replicas:
            replica.engine.close()


def load_model(
    path: Path,
    *,
    engine: str = "onnxruntime",
    provider: str = "cpu",
    kernel: str = "auto",
    verify_files: bool = True,
    expect_digest: str | None = None,
    devices: Sequence[int | None] = (None,),
    memory_limit_bytes: int | None = None,
    on_verified: Callable[[Bundle], None] = lambda _: None,
    on_made: Callable[[], None] = lambda: None,
) -> ServedModel:
    """Open a bundle, start its engines and run each once.

    Args:
        path: Folder of the bundle.
        engine: Name of the engine.
        provider: What the engine runs on.
        kernel: Form of the fused engine's kernel.
        verify_files: Whether to compare the sha256 of each file.
        expect_digest: The only digest that is accepted; None for any.
        devices: Number of the GPU of each engine; None leaves it to the provider.
        memory_limit_bytes: Most that the process may grow by; None for no limit.
        on_verified: Called with the bundle before engines are made; may raise.
        on_made: Called when engines are made, before they run for the first time; may raise.

    Raises:
        BundleError: The bundle is missing, malformed, altered, or not the expected one.
        EngineStartError: The engine is missing or cannot run the bundle, or engines differ in their numerics.
        ModelMemoryError: The model needs more memory than it may have.
    """
    bundle = open_bundle(path, expect_digest=expect_digest, verify_files=verify_files)
    on_verified(bundle)
    file_bytes = sum(file.num_bytes for file in bundle.manifest.files)
    _check_memory(bundle, memory_limit_bytes, file_bytes, f"its files alone have {file_bytes:,} bytes")
    release_freed_memory()
    before = resident_bytes()
    engines: list[Engine] = []
    try:
        for device in devices:
            engines.append(load_engine(bundle, engine=engine, provider=provider, kernel=kernel, device=device))  # noqa: PERF401 - those made before a failure have to be closed
        on_made()
        model = join_replicas([serve_bundle(bundle, made) for made in engines])
        release_freed_memory()
        used = max(0, resident_bytes() - before)
        _check_memory(bundle, memory_limit_bytes, used, f"loading and warming it took {used:,} bytes")
    except BaseException:
        for made in engines:
            made.close()
        raise
    return replace(model, memory_bytes=used)


def join_replicas(models: Sequence[ServedModel]) -> ServedModel:
    """Join the same bundle on several engines into one model.

    Raises:
        EngineStartError: They would not give the same bits.
    """
    first, *twins = models
    for number, twin in enumerate(twins, start=1):
        if twin.numerics.id != first.numerics.id or twin.probe.digests != first.probe.digests:
            what = "numerics id" if twin.numerics.id != first.numerics.id else "outputs in the warm-up"
            raise EngineStartError(
                f"replica {number} of model {first.name!r} has other {what} than replica 0 ({twin.numerics.id} and "
                f"{first.numerics.id}), expected the same, so that it does not matter which one answers; choose "
                "devices of one kind",
                field="devices",
            )
    return replace(first, twins=tuple(twins))


def _check_memory(bundle: Bundle, limit_bytes: int | None, used_bytes: int, what: str) -> None:
    if limit_bytes is not None and used_bytes > limit_bytes:
        raise ModelMemoryError(
            f"model {bundle.name!r} needs more memory than it may have: {what}, its limit is {limit_bytes:,}; raise "
            "model_memory_bytes (or memory_limit_bytes in the model's model.json), or serve it elsewhere",
            field="model_memory_bytes",
        )


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
        engine.run_styles(np.tile(average_style, (1, backbone.num_ws, 1)))  # the other entry, warm as well
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
