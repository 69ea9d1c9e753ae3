"""Arguments become requests.

Only what protobuf cannot carry is refused here; ranges that depend on the model are the server's to judge.
"""

from collections.abc import Iterable, Mapping
from typing import Literal, TypeVar

from labelmint.v1 import service_pb2
from labelmint.wire import DEFAULT_MESSAGE_BYTES
from labelmint_client._checks import UINT32_MAX, UINT64_MAX, integer, number, text
from labelmint_client._errors import InvalidArgumentError

Field = Literal["image", "mask", "keypoints", "uncertainty_map", "z"]
ImageCodec = Literal["raw", "jpeg", "png"]
MaskCodec = Literal["raw", "zstd", "png"]
ChromaSubsampling = Literal["444", "422", "420"]

_FIELDS: dict[Field, service_pb2.SampleField] = {
    "image": service_pb2.SAMPLE_FIELD_IMAGE,
    "mask": service_pb2.SAMPLE_FIELD_MASK,
    "keypoints": service_pb2.SAMPLE_FIELD_KEYPOINTS,
    "uncertainty_map": service_pb2.SAMPLE_FIELD_UNCERTAINTY_MAP,
    "z": service_pb2.SAMPLE_FIELD_Z,
}
_IMAGE_CODECS: dict[ImageCodec, service_pb2.Codec] = {
    "raw": service_pb2.CODEC_RAW,
    "jpeg": service_pb2.CODEC_JPEG,
    "png": service_pb2.CODEC_PNG,
}
_MASK_CODECS: dict[MaskCodec, service_pb2.Codec] = {
    "raw": service_pb2.CODEC_RAW,
    "zstd": service_pb2.CODEC_ZSTD,
    "png": service_pb2.CODEC_PNG,
}
_SUBSAMPLINGS: dict[ChromaSubsampling, service_pb2.ChromaSubsampling] = {
    "444": service_pb2.CHROMA_SUBSAMPLING_444,
    "422": service_pb2.CHROMA_SUBSAMPLING_422,
    "420": service_pb2.CHROMA_SUBSAMPLING_420,
}

_NameT = TypeVar("_NameT", bound=str)
_EnumT = TypeVar("_EnumT")


def output_options(
    *,
    fields: Iterable[Field] | None,
    image_codec: ImageCodec,
    mask_codec: MaskCodec,
    jpeg_quality: int | None,
    jpeg_subsampling: ChromaSubsampling,
    max_message_bytes: int | None,
    max_receive_bytes: int,
) -> service_pb2.OutputOptions:
    """Build the encodings and fields of a request.

    Args:
        fields: Arrays to send; None for image, mask and keypoints.
        image_codec: How images travel.
        mask_codec: How masks travel.
        jpeg_quality: 1 to 100; None for the server's default.
        jpeg_subsampling: Chroma subsampling of JPEG.
        max_message_bytes: Largest message; None for 4 MiB, or what the channel accepts if that is less.
        max_receive_bytes: What the channel of the client accepts.

    Raises:
        InvalidArgumentError: A name is unknown or a number cannot be sent.
    """
    options = service_pb2.OutputOptions(
        image_codec=_choice("image_codec", image_codec, _IMAGE_CODECS),
        mask_codec=_choice("mask_codec", mask_codec, _MASK_CODECS),
        jpeg_subsampling=_choice("jpeg_subsampling", jpeg_subsampling, _SUBSAMPLINGS),
    )
    if isinstance(fields, str):
        raise InvalidArgumentError(
            f"fields is the text {fields!r}, expected a list such as [{fields!r}]", field="fields"
        )
    if fields is not None:
        options.fields.extend(_choice("fields", field, _FIELDS) for field in fields)
        if not options.fields:
            raise InvalidArgumentError(
                f"fields is empty, expected some of {', '.join(_FIELDS)}; leave it out for the default", field="fields"
            )
    if jpeg_quality is not None:
        options.jpeg_quality = integer("jpeg_quality", jpeg_quality, 1, 100)
    if max_message_bytes is not None:
        options.max_message_bytes = integer("max_message_bytes", max_message_bytes, 1, UINT64_MAX)
        if max_message_bytes > max_receive_bytes:
            raise InvalidArgumentError(
                f"max_message_bytes is {max_message_bytes}, but this client receives at most {max_receive_bytes}; "
                "create it with a larger max_receive_bytes",
                field="max_message_bytes",
            )
    elif max_receive_bytes < DEFAULT_MESSAGE_BYTES:
        options.max_message_bytes = max_receive_bytes
    return options


def generate_request(
    *,
    model: str,
    seed: int,
    count: int | None,
    endless: bool,
    start_index: int,
    end_index: int | None,
    shard_index: int,
    num_shards: int,
    truncation_psi: float | None,
    class_index: int | None,
    max_uncertainty_quantile: float | None,
    max_uncertainty: float | None,
    min_class_areas: Mapping[str, float] | None,
    max_scanned: int | None,
    digest: str | None,
    numerics_id: str | None,
    output: service_pb2.OutputOptions,
) -> service_pb2.GenerateRequest:
    """Build the request of `Client.generate`, whose arguments these are.

    Raises:
        InvalidArgumentError: An argument is of the wrong type, cannot be sent, or contradicts another.
    """
    request = service_pb2.GenerateRequest(
        model=text("model", model),
        digest=text("digest", digest or ""),
        numerics_id=text("numerics_id", numerics_id or ""),
        seed=integer("seed", seed, 0, UINT64_MAX),
        start_index=integer("start_index", start_index, 0, UINT64_MAX),
        shard_index=integer("shard_index", shard_index, 0, UINT64_MAX),
        num_shards=integer("num_shards", num_shards, 1, UINT64_MAX),
        output=output,
    )
    if end_index is not None:
        request.end_index = integer("end_index", end_index, 0, UINT64_MAX)
    if count is not None and endless:
        raise InvalidArgumentError(f"count is {count} and endless is True; give one of them", field="count")
    if count is not None:
        request.max_accepted = integer("count", count, 1, UINT64_MAX)
    elif endless or end_index is not None:
        request.endless = True
    else:
        raise InvalidArgumentError(
            "nothing says how many samples are wanted; give count=, end_index= or endless=True", field="count"
        )
    if truncation_psi is not None:
        request.truncation_psi = number("truncation_psi", truncation_psi)
    if class_index is not None:
        request.class_index = integer("class_index", class_index, 0, UINT32_MAX)
    if max_uncertainty_quantile is not None:
        request.filter.max_uncertainty_quantile = number("max_uncertainty_quantile", max_uncertainty_quantile)
    if max_uncertainty is not None:
        request.filter.max_uncertainty = number("max_uncertainty", max_uncertainty)
    for name, fraction in (min_class_areas or {}).items():
        area = request.filter.min_class_areas.add()
        area.class_name = text("min_class_areas", name)
        area.min_fraction = number(f"min_class_areas[{name!r}]", fraction)
    if max_scanned is not None:
        request.max_scanned = integer("max_scanned", max_scanned, 1, UINT64_MAX)
    return request


def _choice(field: str, name: _NameT, values: Mapping[_NameT, _EnumT]) -> _EnumT:
    try:
        return values[name]
    except (KeyError, TypeError):
        expected = ", ".join(repr(known) for known in values)
        raise InvalidArgumentError(f"{field} is {name!r}, expected one of {expected}", field=field) from None
