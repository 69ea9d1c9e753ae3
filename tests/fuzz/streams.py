"""What holds for each message of a stream, whatever was asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence

from labelmint.arrays import array_from_tensor
from labelmint.v1 import bundle_pb2, service_pb2

NUM_INDICES = 2**64
_FIELDS = {
    service_pb2.SAMPLE_FIELD_IMAGE: "image",
    service_pb2.SAMPLE_FIELD_MASK: "mask",
    service_pb2.SAMPLE_FIELD_KEYPOINTS: "keypoints",
    service_pb2.SAMPLE_FIELD_UNCERTAINTY_MAP: "uncertainty_map",
    service_pb2.SAMPLE_FIELD_Z: "z",
}


def check_addresses(
    request: service_pb2.GenerateRequest, batches: Sequence[service_pb2.SampleBatch], *, code: str
) -> None:
    """Addresses, counts and limits of a Generate stream; `code` is how it ended, empty if it was left."""
    step = max(request.num_shards, 1)
    first = request.start_index + (request.shard_index - request.start_index) % step
    stop = request.end_index if request.HasField("end_index") else NUM_INDICES
    wanted = request.filter
    has_filter = (
        wanted.HasField("max_uncertainty") or wanted.HasField("max_uncertainty_quantile") or wanted.min_class_areas
    )
    due, num_scanned, num_sent = first, 0, 0
    for batch in batches:
        after = due + batch.num_scanned * step  # the first address that no message has accounted for
        for index in batch.indices:
            assert due <= index < min(after, stop), f"{index} is out of turn: {due} to {after} are due"
            assert index % step == request.shard_index, f"{index} is of another shard"
            if not has_filter:
                assert index == due
            due = index + step
        assert batch.num_scanned - batch.num_rejected == len(batch.indices)
        assert batch.num_scanned or has_filter, "a message that says nothing"
        if batch.num_scanned:
            last = after - step
            assert (batch.next_index, batch.exhausted) == (min(last + 1, NUM_INDICES - 1), last + 1 == NUM_INDICES)
        due = after
        num_scanned += batch.num_scanned
        num_sent += len(batch.indices)
    if request.HasField("max_accepted"):
        assert num_sent <= request.max_accepted
    if request.HasField("max_scanned"):
        assert num_scanned <= request.max_scanned
    is_at_end = due >= stop or first >= stop
    if code == "OK":
        assert is_at_end or (request.HasField("max_accepted") and num_sent == request.max_accepted)
    elif code == "FAILED_PRECONDITION":
        assert num_scanned == request.max_scanned
        assert not is_at_end


def check_message(
    batch: service_pb2.SampleBatch,
    num_bytes: int,
    output: service_pb2.OutputOptions,
    model: service_pb2.GetModelResponse,
) -> None:
    """Fields, shapes, codecs and size of one message."""
    manifest = model.manifest
    assert num_bytes <= (output.max_message_bytes or 4 * 2**20)
    assert (batch.digest, batch.numerics_id) == (manifest.digest, model.numerics_id)
    count = len(batch.indices)
    if not count:
        assert batch.num_scanned == batch.num_rejected
        return
    _check_fields(batch, output, manifest)
    frame = manifest.frame
    image, mask = (frame.image_height, frame.image_width, 3), (frame.label_height, frame.label_width)
    shapes = {
        "image_raw": image,
        "mask_raw": mask,
        "keypoints": (len(manifest.keypoints.names), 4),
        "uncertainty_map": mask,
        "uncertainty": (),
        "z": (manifest.backbone.z_dim,),
    }
    for name, tail in shapes.items():
        if batch.HasField(name):
            tensor: service_pb2.Tensor = getattr(batch, name)
            assert tuple(tensor.shape) == (count, *tail), name
            if not tensor.HasField("shared_offset"):
                array_from_tensor(tensor, field=name)
    for name, codec, tail in (
        ("image_encoded", output.image_codec, image),
        ("mask_encoded", output.mask_codec, mask),
    ):
        if batch.HasField(name):
            encoded: service_pb2.EncodedArrays = getattr(batch, name)
            assert (encoded.codec, tuple(encoded.shape), len(encoded.items)) == (codec, tail, count)
            assert all(encoded.items)


def check_filter(batch: service_pb2.SampleBatch, wanted: service_pb2.Filter, manifest: bundle_pb2.Manifest) -> None:
    """Every sample is one that the filter keeps, as far as the message shows it."""
    if not batch.indices:
        return
    scores = array_from_tensor(batch.uncertainty, field="uncertainty")
    assert all(math.isfinite(score) for score in scores)
    if wanted.HasField("max_uncertainty"):
        assert scores.max() <= wanted.max_uncertainty
    if batch.HasField("mask_raw") and not batch.mask_raw.HasField("shared_offset"):
        masks = array_from_tensor(batch.mask_raw, field="mask_raw")
        names = [entry.name for entry in manifest.classes]
        for area in wanted.min_class_areas:
            covered = (masks == names.index(area.class_name)).mean(axis=(1, 2))
            assert covered.min() >= area.min_fraction - 1e-6, area.class_name


def _check_fields(
    batch: service_pb2.SampleBatch, output: service_pb2.OutputOptions, manifest: bundle_pb2.Manifest
) -> None:
    usual = {"image", "mask", "keypoints"} if manifest.keypoints.names else {"image", "mask"}
    asked = {_FIELDS[field] for field in output.fields} or usual
    came = {
        "image": batch.WhichOneof("image") is not None,
        "mask": batch.WhichOneof("mask") is not None,
        **{name: batch.HasField(name) for name in ("keypoints", "uncertainty_map", "z")},
    }
    assert {name for name, is_there in came.items() if is_there} == asked
    is_raw = {service_pb2.CODEC_UNSPECIFIED, service_pb2.CODEC_RAW}
    if "image" in asked:
        assert (batch.WhichOneof("image") == "image_raw") == (output.image_codec in is_raw)
    if "mask" in asked:
        assert (batch.WhichOneof("mask") == "mask_raw") == (output.mask_codec in is_raw)
    assert batch.HasField("uncertainty")
