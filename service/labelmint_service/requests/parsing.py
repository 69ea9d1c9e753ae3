"""Requests from the wire, checked field by field: a message goes in, a job that can be trusted comes out."""

from __future__ import annotations

from dataclasses import dataclass

from labelmint.addresses import NUM_INDICES
from labelmint.v1 import bundle_pb2, service_pb2
from labelmint_service.errors import PinMismatchError, RequestError
from labelmint_service.models.catalog import ModelCatalog
from labelmint_service.models.served import ServedModel
from labelmint_service.requests.filters import SampleFilter, parse_filter
from labelmint_service.requests.outputs import OutputPlan, parse_output


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamJob:
    """A request that can be carried out, as far as Generate and Label have it in common.

    Attributes:
        model: What makes the samples, or labels the latents.
        truncation_psi: In [0, max_psi]; w_plus is not truncated.
        output: What to send.
        sample_filter: What to keep; None for everything.
        max_accepted: Samples to send; None without an end.
        max_scanned: Rows to scan; None without a bound.
    """

    model: ServedModel
    truncation_psi: float
    output: OutputPlan
    sample_filter: SampleFilter | None = None
    max_accepted: int | None = None
    max_scanned: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateJob(StreamJob):
    """A Generate request that can be carried out.

    Attributes:
        seed: In [0, 2**64).
        start_index: First index that may be scanned.
        stop_index: Exclusive, at most NUM_INDICES.
        shard_index: Only indices congruent to it modulo num_shards are scanned.
        num_shards: At least 1.
        class_index: Class of a conditional model; None to draw it, or for an unconditional one.
    """

    seed: int
    start_index: int
    stop_index: int
    shard_index: int
    num_shards: int
    class_index: int | None


def parse_generate(
    request: service_pb2.GenerateRequest,
    catalog: ModelCatalog,
    *,
    max_message_bytes: int,
) -> GenerateJob:
    """Check a Generate request.

    Args:
        request: From the wire; nothing in it is trusted.
        catalog: The served models.
        max_message_bytes: Largest output.max_message_bytes allowed.

    Raises:
        RequestError: A field is missing, out of range or contradicts another.
        ModelNotFoundError: The model is not served.
        ModelNotReadyError: It is not ready.
        PinMismatchError: The served digest or numerics id is another.
    """
    model = _pinned_model(request.model, request.digest, request.numerics_id, catalog, prefix="")
    manifest = model.bundle.manifest
    if not request.HasField("seed"):
        raise RequestError("seed is missing, expected an integer in [0, 2**64); name the seed", field="seed")
    truncation_psi = _parse_psi(request, manifest, field="truncation_psi")
    class_index = _parse_class_index(request, manifest)
    shard_index, num_shards = _parse_shard(request)
    return GenerateJob(
        model=model,
        seed=request.seed,
        start_index=request.start_index,
        stop_index=_parse_stop(request),
        shard_index=shard_index,
        num_shards=num_shards,
        max_accepted=_parse_limit(request),
        max_scanned=_parse_max_scanned(request),
        truncation_psi=truncation_psi,
        class_index=class_index,
        sample_filter=parse_filter(request.filter, manifest, truncation_psi=truncation_psi, class_index=class_index),
        output=parse_output(request.output, manifest, max_message_bytes=max_message_bytes, prefix="output"),
    )


def parse_label_options(
    options: service_pb2.LabelOptions,
    catalog: ModelCatalog,
    *,
    max_message_bytes: int,
) -> StreamJob:
    """Check the options of a Label stream.

    Args:
        options: From the wire; nothing in it is trusted.
        catalog: The served models.
        max_message_bytes: Largest output.max_message_bytes allowed.

    Raises:
        RequestError: A field is missing, out of range or contradicts another.
        ModelNotFoundError: The model is not served.
        ModelNotReadyError: It is not ready.
        PinMismatchError: The served digest or numerics id is another.
    """
    model = _pinned_model(options.model, options.digest, options.numerics_id, catalog, prefix="options.")
    manifest = model.bundle.manifest
    return StreamJob(
        model=model,
        truncation_psi=_parse_psi(options, manifest, field="options.truncation_psi"),
        output=parse_output(options.output, manifest, max_message_bytes=max_message_bytes, prefix="options.output"),
    )


def _pinned_model(name: str, digest: str, numerics_id: str, catalog: ModelCatalog, *, prefix: str) -> ServedModel:
    """The version that a request means: of those that its reference allows, the first that has what it pins."""
    candidates = catalog.find(name, field=f"{prefix}model")
    for model in candidates:
        if digest in {"", model.bundle.digest} and numerics_id in {"", model.numerics.id}:
            return model
    first = candidates[0]
    field, pinned, served = f"{prefix}numerics_id", numerics_id, first.numerics.id
    if digest not in {"", first.bundle.digest}:
        field, pinned, served = f"{prefix}digest", digest, first.bundle.digest
    raise PinMismatchError(
        f"{field} is {pinned[:128]!r}, but this server has {served!r}; leave the field empty to accept that, or ask a "
        "server with the pinned one",
        field=field,
    )


def _parse_psi(
    request: service_pb2.GenerateRequest | service_pb2.LabelOptions,
    manifest: bundle_pb2.Manifest,
    *,
    field: str,
) -> float:
    truncation = manifest.truncation
    if not request.HasField("truncation_psi"):
        return truncation.default_psi
    if not 0.0 <= request.truncation_psi <= truncation.max_psi:  # also false for NaN
        raise RequestError(
            f"{field} is {request.truncation_psi}, expected a number in [0, {truncation.max_psi:g}]; choose another or "
            f"leave it out for {truncation.default_psi:g}",
            field=field,
        )
    return request.truncation_psi


def _parse_class_index(request: service_pb2.GenerateRequest, manifest: bundle_pb2.Manifest) -> int | None:
    if not request.HasField("class_index"):
        return None
    c_dim = manifest.backbone.c_dim
    if request.class_index >= c_dim:
        expected = f"an integer in [0, {c_dim})" if c_dim else "none, because the model is unconditional"
        raise RequestError(
            f"class_index is {request.class_index}, expected {expected}; choose another or leave it out",
            field="class_index",
        )
    return request.class_index


def _parse_shard(request: service_pb2.GenerateRequest) -> tuple[int, int]:
    num_shards = request.num_shards or 1
    if request.shard_index >= num_shards:
        raise RequestError(
            f"shard_index is {request.shard_index}, expected an integer in [0, {num_shards}) for {num_shards} shards; "
            "shards count from 0",
            field="shard_index",
        )
    return request.shard_index, num_shards


def _parse_stop(request: service_pb2.GenerateRequest) -> int:
    if not request.HasField("end_index"):
        return NUM_INDICES
    if request.end_index < request.start_index:
        raise RequestError(
            f"end_index is {request.end_index}, expected at least start_index {request.start_index}; it is exclusive",
            field="end_index",
        )
    return request.end_index


def _parse_limit(request: service_pb2.GenerateRequest) -> int | None:
    chosen = request.WhichOneof("limit")
    if chosen is None:
        raise RequestError(
            "limit is missing, expected max_accepted or endless; say how many samples to send",
            field="limit",
        )
    if chosen == "endless":
        if not request.endless:
            raise RequestError(
                "endless is false, expected true if it is set; set it to true or use max_accepted",
                field="endless",
            )
        return None
    if request.max_accepted < 1:
        raise RequestError("max_accepted is 0, expected at least 1; say how many samples to send", field="max_accepted")
    return request.max_accepted


def _parse_max_scanned(request: service_pb2.GenerateRequest) -> int | None:
    if not request.HasField("max_scanned"):
        return None
    if request.max_scanned < 1:
        raise RequestError("max_scanned is 0, expected at least 1; leave it out for no bound", field="max_scanned")
    return request.max_scanned
