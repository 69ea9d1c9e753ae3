"""What the server serves: bundles with an engine that runs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from labelmint.bundle import Bundle, open_bundle
from labelmint_service.engine import DEFAULT_CHOICE, Engine, EngineChoice, LatentInputs, load_engine
from labelmint_service.errors import EngineRunError, EngineStartError, ModelMemoryError
from labelmint_service.models.latents import latents_at
from labelmint_service.models.memory_use import release_freed_memory, resident_bytes
from labelmint_service.models.numerics import Numerics, describe_numerics

_PROBE_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Probe:
    """Rows whose outputs are known.

    Attributes:
        inputs: A whole batch.
        digests: Of the outputs of each row; None for rows that come out non-finite.
        promises_bits: Whether they come out with these bits every time.
    """

    inputs: LatentInputs
    digests: tuple[bytes | None, ...]
    promises_bits: bool = True

    def matches(self, digests: tuple[bytes | None, ...]) -> bool:
        """Whether outputs of these digests are what the rows have to give."""
        if self.promises_bits:
            return digests == self.digests
        return [digest is None for digest in digests] == [digest is None for digest in self.digests]


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
    choice: EngineChoice = DEFAULT_CHOICE,
    *,
    verify_files: bool = True,
    expect_digest: str | None = None,
    memory_limit_bytes: int | None = None,
    on_verified: Callable[[Bundle], None] = lambda _: None,
    on_made: Callable[[], None] = lambda: None,
) -> ServedModel:
    """Open a bundle, start its engines and run each once.

    Args:
        path: Folder of the bundle.
        choice: Which engines run it.
        verify_files: Whether to compare the sha256 of each file.
        expect_digest: The only digest that is accepted; None for any.
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
        for device in choice.devices:
            engines.append(load_engine(bundle, choice, device))  # noqa: PERF401 - those made before a failure have to be closed
        on_made()
        model = join_replicas([serve_bundle(bundle, made, choice) for made in engines])
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
        if twin.numerics.id != first.numerics.id or not first.probe.matches(twin.probe.digests):
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


def serve_bundle(bundle: Bundle, engine: Engine, choice: EngineChoice = DEFAULT_CHOICE) -> ServedModel:
    """Warm an engine up and join it with its bundle.

    Args:
        bundle: What is run.
        engine: What runs it.
        choice: How it was chosen.

    Raises:
        EngineStartError: The first run fails, or bits that are promised do not repeat on a GPU.
    """
    manifest = bundle.manifest
    inputs = latents_at(manifest, _PROBE_SEED, np.arange(engine.batch_size, dtype=np.uint64), class_index=0)
    try:
        digests = engine.run(inputs).digests()
        if choice.provider != "cpu" and choice.promises_bits:
            _check_repetition(bundle, engine, inputs, digests)
        average_style = engine.average_style()
        engine.run_styles(np.tile(average_style, (1, manifest.backbone.num_ws, 1)))  # the other entry, warm as well
    except EngineRunError as error:
        raise EngineStartError(
            f"the first run of bundle {bundle.name!r} failed: {error}; run `labelmint-export verify` on it",
        ) from error
    return ServedModel(
        bundle=bundle,
        engine=engine,
        numerics=describe_numerics(bundle, engine, promises_bits=choice.promises_bits),
        average_style=average_style,
        probe=Probe(inputs=inputs, digests=digests, promises_bits=choice.promises_bits),
    )


def _check_repetition(bundle: Bundle, engine: Engine, inputs: LatentInputs, digests: tuple[bytes | None, ...]) -> None:
    """Run the rows in reverse order: where a row lies in a batch, and when it is run, must not matter.

    Raises:
        EngineStartError: It does.
    """
    again = engine.run(inputs.reversed_rows()).digests()[::-1]
    differing = sum(one != other for one, other in zip(digests, again, strict=True))
    if differing:
        raise EngineStartError(
            f"{differing} of {len(digests)} rows of bundle {bundle.name!r} had other bits when they were run again, in "
            "reverse order, but algorithms is 'repeatable'; choose 'fast' and do without the same bits, or provider "
            "'cpu'",
            field="algorithms",
        )
