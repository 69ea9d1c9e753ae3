"""What a stream sends: the checked OutputOptions of a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from labelmint.v1 import bundle_pb2, service_pb2
from labelmint.wire import DEFAULT_MESSAGE_BYTES
from labelmint_service.errors import RequestError

MIN_MESSAGE_BYTES = 64 * 2**10
DEFAULT_JPEG_QUALITY = 95

ENVELOPE_BYTES = 1024
"""At most this much of a message is not the data of samples: ids, headers of arrays, times and counts."""

SAMPLE_OVERHEAD_BYTES = 32
"""At most this much of a sample is not its arrays: its index, its class, its score, headers of its encoded items."""

_IMAGE_CODECS = frozenset({service_pb2.CODEC_RAW, service_pb2.CODEC_JPEG, service_pb2.CODEC_PNG})
_MASK_CODECS = frozenset({service_pb2.CODEC_RAW, service_pb2.CODEC_ZSTD, service_pb2.CODEC_PNG})
_SUBSAMPLINGS: Mapping[int, str] = MappingProxyType(
    {
        service_pb2.CHROMA_SUBSAMPLING_UNSPECIFIED: "444",
        service_pb2.CHROMA_SUBSAMPLING_444: "444",
        service_pb2.CHROMA_SUBSAMPLING_422: "422",
        service_pb2.CHROMA_SUBSAMPLING_420: "420",
    },
)
_FIELDS = frozenset(service_pb2.SampleField.values()) - {service_pb2.SAMPLE_FIELD_UNSPECIFIED}


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputPlan:
    """What goes into each message.

    Attributes:
        fields: SampleField numbers.
        image_codec: CODEC_RAW, CODEC_JPEG or CODEC_PNG.
        mask_codec: CODEC_RAW, CODEC_ZSTD or CODEC_PNG.
        jpeg_quality: 1 to 100.
        jpeg_subsampling: "444", "422" or "420".
        max_message_bytes: Largest message.
        shared_memory: Where RAW images, masks and maps go, as asked for; None puts them into the messages.
        prefix: Name of the request field that asked for it.
    """

    fields: frozenset[int]
    image_codec: service_pb2.Codec
    mask_codec: service_pb2.Codec
    jpeg_quality: int
    jpeg_subsampling: str
    max_message_bytes: int
    shared_memory: service_pb2.SharedMemory | None
    prefix: str

    @property
    def has_encoding(self) -> bool:
        """Whether a sample costs more than a copy."""
        images = service_pb2.SAMPLE_FIELD_IMAGE in self.fields and self.image_codec != service_pb2.CODEC_RAW
        masks = service_pb2.SAMPLE_FIELD_MASK in self.fields and self.mask_codec != service_pb2.CODEC_RAW
        return images or masks


def parse_output(
    options: service_pb2.OutputOptions,
    manifest: bundle_pb2.Manifest,
    *,
    max_message_bytes: int,
    prefix: str,
) -> OutputPlan:
    """Check the output options of a request.

    Args:
        options: From the wire; nothing in it is trusted.
        manifest: Of the model.
        max_message_bytes: Largest max_message_bytes allowed.
        prefix: Name of the request field that holds the options.

    Raises:
        RequestError: A field is out of range, asks for what the model lacks, or one sample does not fit a message.
    """
    quality = options.jpeg_quality or DEFAULT_JPEG_QUALITY
    if quality > 100:
        raise RequestError(
            f"{prefix}.jpeg_quality is {quality}, expected 1 to 100, or 0 for {DEFAULT_JPEG_QUALITY}; lower it",
            field=f"{prefix}.jpeg_quality",
        )
    subsampling = _SUBSAMPLINGS.get(options.jpeg_subsampling)
    if subsampling is None:
        raise RequestError(
            f"{prefix}.jpeg_subsampling is {options.jpeg_subsampling}, expected one of "
            f"{', '.join(service_pb2.ChromaSubsampling.Name(number) for number in _SUBSAMPLINGS)}; choose another",
            field=f"{prefix}.jpeg_subsampling",
        )
    plan = OutputPlan(
        fields=_parse_fields(options, manifest, f"{prefix}.fields"),
        image_codec=_parse_codec(options.image_codec, _IMAGE_CODECS, f"{prefix}.image_codec"),
        mask_codec=_parse_codec(options.mask_codec, _MASK_CODECS, f"{prefix}.mask_codec"),
        jpeg_quality=quality,
        jpeg_subsampling=subsampling,
        max_message_bytes=_parse_message_bytes(options, max_message_bytes, f"{prefix}.max_message_bytes"),
        shared_memory=options.shared_memory if options.HasField("shared_memory") else None,
        prefix=prefix,
    )
    check_fits(fixed_sample_bytes(plan, manifest), plan)
    return plan


def fixed_sample_bytes(plan: OutputPlan, manifest: bundle_pb2.Manifest) -> int:
    """Bytes of one sample in the fields whose size does not depend on its content."""
    frame = manifest.frame
    num_label_pixels = frame.label_height * frame.label_width
    sizes = {
        service_pb2.SAMPLE_FIELD_KEYPOINTS: len(manifest.keypoints.names) * 16,
        service_pb2.SAMPLE_FIELD_UNCERTAINTY_MAP: num_label_pixels * 2,
        service_pb2.SAMPLE_FIELD_Z: manifest.backbone.z_dim * 4,
    }
    if plan.image_codec == service_pb2.CODEC_RAW:
        sizes[service_pb2.SAMPLE_FIELD_IMAGE] = frame.image_height * frame.image_width * 3
    if plan.mask_codec == service_pb2.CODEC_RAW:
        sizes[service_pb2.SAMPLE_FIELD_MASK] = num_label_pixels
    return SAMPLE_OVERHEAD_BYTES + sum(size for field, size in sizes.items() if field in plan.fields)


def check_fits(sample_bytes: int, plan: OutputPlan) -> None:
    """Check that a message can hold one sample.

    Raises:
        RequestError: It cannot; the message says what it takes.
    """
    needed = sample_bytes + ENVELOPE_BYTES
    field = f"{plan.prefix}.max_message_bytes"
    if needed > plan.max_message_bytes:
        raise RequestError(
            f"{field} is {plan.max_message_bytes}, but one sample needs {needed} bytes; raise it to that (and the "
            "receive limit of the channel), ask for fewer fields, or choose a codec",
            field=field,
        )


def _parse_fields(options: service_pb2.OutputOptions, manifest: bundle_pb2.Manifest, field: str) -> frozenset[int]:
    has_keypoints = bool(manifest.keypoints.names)
    if not options.fields:
        default = {service_pb2.SAMPLE_FIELD_IMAGE, service_pb2.SAMPLE_FIELD_MASK}
        return frozenset(default | ({service_pb2.SAMPLE_FIELD_KEYPOINTS} if has_keypoints else set()))
    for position, number in enumerate(options.fields):
        if number not in _FIELDS:
            names = ", ".join(service_pb2.SampleField.Name(known) for known in sorted(_FIELDS))
            raise RequestError(
                f"{field}[{position}] is {number}, expected one of {names}; remove it or choose one of these",
                field=f"{field}[{position}]",
            )
        if number == service_pb2.SAMPLE_FIELD_KEYPOINTS and not has_keypoints:
            raise RequestError(
                f"{field}[{position}] asks for keypoints, but the model has none; remove it",
                field=f"{field}[{position}]",
            )
    return frozenset(options.fields)


def _parse_codec(codec: service_pb2.Codec, known: frozenset[service_pb2.Codec], field: str) -> service_pb2.Codec:
    if codec == service_pb2.CODEC_UNSPECIFIED:
        return service_pb2.CODEC_RAW
    if codec not in known:
        shown = service_pb2.Codec.Name(codec) if codec in service_pb2.Codec.values() else codec
        names = ", ".join(service_pb2.Codec.Name(number) for number in sorted(known))
        raise RequestError(f"{field} is {shown}, expected one of {names}; choose another", field=field)
    return codec


def _parse_message_bytes(options: service_pb2.OutputOptions, largest: int, field: str) -> int:
    value = options.max_message_bytes or min(DEFAULT_MESSAGE_BYTES, largest)
    if not MIN_MESSAGE_BYTES <= value <= largest:
        raise RequestError(
            f"{field} is {value}, expected {MIN_MESSAGE_BYTES} to {largest}, or 0 for {DEFAULT_MESSAGE_BYTES}; "
            "choose another",
            field=field,
        )
    return value
