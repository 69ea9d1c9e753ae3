"""What is wrong with a request, said a second time: from the comments of service.proto, and not from the server's code.

A server that accepts what this refuses, or refuses what this accepts, is at fault, or this is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from labelmint.v1 import bundle_pb2, service_pb2

Faults = dict[str, str]
"""Fields at fault, each with the name of the status that it deserves."""

LARGEST_MESSAGE_BYTES = 256 * 2**20
INVALID, STALE, MISSING = "INVALID_ARGUMENT", "FAILED_PRECONDITION", "NOT_FOUND"

_IMAGE_CODECS = {"CODEC_UNSPECIFIED", "CODEC_RAW", "CODEC_JPEG", "CODEC_PNG"}
_MASK_CODECS = {"CODEC_UNSPECIFIED", "CODEC_RAW", "CODEC_ZSTD", "CODEC_PNG"}
_SIZES = {service_pb2.DTYPE_UINT8: 1, service_pb2.DTYPE_FLOAT16: 2, service_pb2.DTYPE_FLOAT32: 4}


def generate_faults(request: service_pb2.GenerateRequest, models: Mapping[str, service_pb2.GetModelResponse]) -> Faults:
    """Every fault of a Generate request; what depends on the model is judged only if there is one."""
    faults = _model_faults(request, models, "")
    if not request.HasField("seed"):
        faults["seed"] = INVALID
    if request.shard_index >= max(request.num_shards, 1):
        faults["shard_index"] = INVALID
    if request.HasField("end_index") and request.end_index < request.start_index:
        faults["end_index"] = INVALID
    if request.WhichOneof("limit") is None:
        faults["limit"] = INVALID
    if request.HasField("endless") and not request.endless:
        faults["endless"] = INVALID
    if request.HasField("max_accepted") and not request.max_accepted:
        faults["max_accepted"] = INVALID
    if request.HasField("max_scanned") and not request.max_scanned:
        faults["max_scanned"] = INVALID
    if request.model in models:
        manifest = models[request.model].manifest
        if request.HasField("class_index") and request.class_index >= manifest.backbone.c_dim:
            faults["class_index"] = INVALID
        faults |= _filter_faults(request.filter, manifest)
        faults |= _output_faults(request.output, manifest, "output")
    return faults


def options_faults(options: service_pb2.LabelOptions, models: Mapping[str, service_pb2.GetModelResponse]) -> Faults:
    """Every fault of the options of a Label stream."""
    faults = _model_faults(options, models, "options.")
    if options.model in models:
        faults |= _output_faults(options.output, models[options.model].manifest, "options.output")
    return faults


def latents_faults(
    request: service_pb2.LabelRequest, manifest: bundle_pb2.Manifest, fields: Sequence[int]
) -> tuple[Faults, int]:
    """Every fault of the latents of a message, and how many there are if there is none."""
    kind = request.WhichOneof("latents")
    backbone = manifest.backbone
    faults: Faults = {}
    if request.class_indices and (kind != "z" or not backbone.c_dim):
        faults["class_indices"] = INVALID
    if kind is None:
        return faults, 0
    if kind != "z" and service_pb2.SAMPLE_FIELD_Z in fields:
        faults["options.output.fields"] = INVALID
    tails = {"z": (backbone.z_dim,), "w": (backbone.w_dim,), "w_plus": (backbone.num_ws, backbone.w_dim)}
    tensor: service_pb2.Tensor = getattr(request, kind)
    shape = tuple(tensor.shape)
    is_sound = tensor.dtype == service_pb2.DTYPE_FLOAT32 and shape[1:] == tails[kind] and bool(shape)
    if not is_sound or len(tensor.data) != math.prod(shape) * _SIZES[tensor.dtype] or not _is_finite(tensor.data):
        faults[kind] = INVALID
        return faults, 0
    if kind == "z" and backbone.c_dim:
        if len(request.class_indices) != shape[0]:
            faults["class_indices"] = INVALID
        elif any(index >= backbone.c_dim for index in request.class_indices):
            faults |= {f"class_indices[{at}]": INVALID for at in range(shape[0])}
    return faults, shape[0]


def _is_finite(data: bytes) -> bool:
    return all(math.isfinite(value) for value in memoryview(data).cast("f"))


def _model_faults(
    request: service_pb2.GenerateRequest | service_pb2.LabelOptions,
    models: Mapping[str, service_pb2.GetModelResponse],
    prefix: str,
) -> Faults:
    model = models.get(request.model)
    if model is None:
        return {f"{prefix}model": MISSING if request.model else INVALID}
    faults: Faults = {}
    if request.digest not in {"", model.manifest.digest}:
        faults[f"{prefix}digest"] = STALE
    if request.numerics_id not in {"", model.numerics_id}:
        faults[f"{prefix}numerics_id"] = STALE
    if request.HasField("truncation_psi") and not 0 <= request.truncation_psi <= model.manifest.truncation.max_psi:
        faults[f"{prefix}truncation_psi"] = INVALID
    return faults


def _filter_faults(wanted: service_pb2.Filter, manifest: bundle_pb2.Manifest) -> Faults:
    faults: Faults = {}
    if wanted.HasField("max_uncertainty_quantile") and not 0 < wanted.max_uncertainty_quantile <= 1:
        faults["filter.max_uncertainty_quantile"] = INVALID
    if wanted.HasField("max_uncertainty") and not 0 <= wanted.max_uncertainty < math.inf:
        faults["filter.max_uncertainty"] = INVALID
    names = [entry.name for entry in manifest.classes]
    seen: set[str] = set()
    for at, area in enumerate(wanted.min_class_areas):
        if area.class_name not in names or area.class_name in seen:
            faults[f"filter.min_class_areas[{at}].class_name"] = INVALID
        if not 0 < area.min_fraction <= 1:
            faults[f"filter.min_class_areas[{at}].min_fraction"] = INVALID
        seen.add(area.class_name)
    if not faults and sum(area.min_fraction for area in wanted.min_class_areas) > 1.000001:
        faults["filter.min_class_areas"] = INVALID
    return faults


def _output_faults(output: service_pb2.OutputOptions, manifest: bundle_pb2.Manifest, prefix: str) -> Faults:
    faults: Faults = {}
    for at, field in enumerate(output.fields):
        is_absent = field == service_pb2.SAMPLE_FIELD_KEYPOINTS and not manifest.keypoints.names
        if field not in service_pb2.SampleField.values() or not field or is_absent:
            faults[f"{prefix}.fields[{at}]"] = INVALID
    for name, codec, known in (
        ("image_codec", output.image_codec, _IMAGE_CODECS),
        ("mask_codec", output.mask_codec, _MASK_CODECS),
    ):
        if codec not in service_pb2.Codec.values() or service_pb2.Codec.Name(codec) not in known:
            faults[f"{prefix}.{name}"] = INVALID
    if output.jpeg_quality > 100:
        faults[f"{prefix}.jpeg_quality"] = INVALID
    if output.jpeg_subsampling not in service_pb2.ChromaSubsampling.values():
        faults[f"{prefix}.jpeg_subsampling"] = INVALID
    if output.max_message_bytes and not 65_536 <= output.max_message_bytes <= LARGEST_MESSAGE_BYTES:
        faults[f"{prefix}.max_message_bytes"] = INVALID
    return faults
