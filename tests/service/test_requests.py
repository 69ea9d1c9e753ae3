"""Every field of a request that is missing or out of range names itself, and the server goes on serving."""

import math
import re
from typing import Any, cast

import grpc
import pytest

from labelmint.v1 import service_pb2, service_pb2_grpc
from labelmint.v1.service_pb2 import ClassArea, Filter, OutputOptions
from tests.service.calls import TIMEOUT_S, collect, describe_failure, expect_failure, make_request

WRONG_ID = "0" * 64

# Numbers that the contract does not know; proto3 lets any through.
UNKNOWN_FIELD = cast("service_pb2.SampleField", 99)
UNKNOWN_CODEC = cast("service_pb2.Codec", 77)
UNKNOWN_SUBSAMPLING = cast("service_pb2.ChromaSubsampling", 9)

BAD_FIELDS: list[tuple[str, dict[str, Any], str, str]] = [  # Any: fields of every type
    ("no model", {"model": None}, "model", "INVALID_ARGUMENT"),
    ("unknown model", {"model": "other"}, "model", "NOT_FOUND"),
    ("other digest", {"digest": WRONG_ID}, "digest", "FAILED_PRECONDITION"),
    ("other numerics", {"numerics_id": WRONG_ID}, "numerics_id", "FAILED_PRECONDITION"),
    ("no seed", {"seed": None}, "seed", "INVALID_ARGUMENT"),
    ("end before start", {"start_index": 5, "end_index": 4}, "end_index", "INVALID_ARGUMENT"),
    ("no limit", {"max_accepted": None}, "limit", "INVALID_ARGUMENT"),
    ("no samples", {"max_accepted": 0}, "max_accepted", "INVALID_ARGUMENT"),
    ("not endless", {"max_accepted": None, "endless": False}, "endless", "INVALID_ARGUMENT"),
    ("shard out of range", {"shard_index": 2, "num_shards": 2}, "shard_index", "INVALID_ARGUMENT"),
    ("shard of none", {"shard_index": 1}, "shard_index", "INVALID_ARGUMENT"),
    ("psi too large", {"truncation_psi": 1.5}, "truncation_psi", "INVALID_ARGUMENT"),
    ("psi negative", {"truncation_psi": -0.1}, "truncation_psi", "INVALID_ARGUMENT"),
    ("psi nan", {"truncation_psi": math.nan}, "truncation_psi", "INVALID_ARGUMENT"),
    ("class of an unconditional model", {"class_index": 0}, "class_index", "INVALID_ARGUMENT"),
    ("class out of range", {"model": "classy", "class_index": 3}, "class_index", "INVALID_ARGUMENT"),
    ("nothing scanned", {"max_scanned": 0}, "max_scanned", "INVALID_ARGUMENT"),
    *(
        (f"quantile {value}", {"filter": Filter(max_uncertainty_quantile=value)}, field, "INVALID_ARGUMENT")
        for field in ("filter.max_uncertainty_quantile",)
        for value in (0.0, 1.5, -1.0, math.nan, math.inf)
    ),
    *(
        (f"bound {value}", {"filter": Filter(max_uncertainty=value)}, field, "INVALID_ARGUMENT")
        for field in ("filter.max_uncertainty",)
        for value in (-0.5, math.nan, math.inf)
    ),
    (
        "unknown class name",
        {"filter": Filter(min_class_areas=[ClassArea(class_name="nose", min_fraction=0.1)])},
        "filter.min_class_areas[0].class_name",
        "INVALID_ARGUMENT",
    ),
    (
        "class named twice",
        {"filter": Filter(min_class_areas=[ClassArea(class_name="disc", min_fraction=0.1)] * 2)},
        "filter.min_class_areas[1].class_name",
        "INVALID_ARGUMENT",
    ),
    *(
        (
            f"area {value}",
            {"filter": Filter(min_class_areas=[ClassArea(class_name="disc", min_fraction=value)])},
            "filter.min_class_areas[0].min_fraction",
            "INVALID_ARGUMENT",
        )
        for value in (0.0, -0.1, 1.1, math.nan)
    ),
    (
        "areas above the whole",
        {
            "filter": Filter(
                min_class_areas=[ClassArea(class_name=name, min_fraction=0.6) for name in ("disc", "ring")],
            ),
        },
        "filter.min_class_areas",
        "INVALID_ARGUMENT",
    ),
    (
        "field zero",
        {"output": OutputOptions(fields=[service_pb2.SAMPLE_FIELD_UNSPECIFIED])},
        "output.fields[0]",
        "INVALID_ARGUMENT",
    ),
    (
        "unknown field",
        {"output": OutputOptions(fields=[service_pb2.SAMPLE_FIELD_IMAGE, UNKNOWN_FIELD])},
        "output.fields[1]",
        "INVALID_ARGUMENT",
    ),
    (
        "keypoints of a model without",
        {"model": "classy", "output": OutputOptions(fields=[service_pb2.SAMPLE_FIELD_KEYPOINTS])},
        "output.fields[0]",
        "INVALID_ARGUMENT",
    ),
    ("image as ZSTD", {"output": OutputOptions(image_codec="CODEC_ZSTD")}, "output.image_codec", "INVALID_ARGUMENT"),
    ("mask as JPEG", {"output": OutputOptions(mask_codec="CODEC_JPEG")}, "output.mask_codec", "INVALID_ARGUMENT"),
    ("unknown codec", {"output": OutputOptions(image_codec=UNKNOWN_CODEC)}, "output.image_codec", "INVALID_ARGUMENT"),
    ("quality 101", {"output": OutputOptions(jpeg_quality=101)}, "output.jpeg_quality", "INVALID_ARGUMENT"),
    (
        "subsampling 9",
        {"output": OutputOptions(jpeg_subsampling=UNKNOWN_SUBSAMPLING)},
        "output.jpeg_subsampling",
        "INVALID_ARGUMENT",
    ),
    ("tiny messages", {"output": OutputOptions(max_message_bytes=100)}, "output.max_message_bytes", "INVALID_ARGUMENT"),
    (
        "huge messages",
        {"output": OutputOptions(max_message_bytes=2**63)},
        "output.max_message_bytes",
        "INVALID_ARGUMENT",
    ),
]


@pytest.mark.parametrize(("fields", "field", "code"), [pytest.param(*row[1:], id=row[0]) for row in BAD_FIELDS])
def test_bad_field_is_named_with_the_right_code(
    stub: service_pb2_grpc.LabelMintStub,
    fields: dict[str, Any],  # Any: fields of every type
    field: str,
    code: str,
) -> None:
    failure = expect_failure(stub.Generate(make_request(**fields), timeout=TIMEOUT_S))

    assert failure.code == code
    assert failure.detail is not None
    assert failure.detail.field == field
    assert failure.detail.request_id
    assert field.partition("[")[0] in failure.text
    # What came, what should have, and what to do.
    assert re.search(r"(is|ask|asks) .+, (expected|but) .+; .+", failure.text), failure.text
    assert failure.batches == []
    # The server keeps serving.
    assert collect(stub.Generate(make_request(), timeout=TIMEOUT_S)).indices == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("field", ["digest", "numerics_id"])
def test_pin_mismatch_tells_both_ids(stub: service_pb2_grpc.LabelMintStub, field: str) -> None:
    model = stub.ListModels(service_pb2.ListModelsRequest()).models[0]
    failure = expect_failure(stub.Generate(make_request(**{field: WRONG_ID}), timeout=TIMEOUT_S))

    assert WRONG_ID in failure.text
    assert getattr(model, field) in failure.text


def test_right_pins_are_served(stub: service_pb2_grpc.LabelMintStub) -> None:
    model = next(m for m in stub.ListModels(service_pb2.ListModelsRequest()).models if m.name == "tiny")
    request = make_request(digest=model.digest, numerics_id=model.numerics_id)
    samples = collect(stub.Generate(request, timeout=TIMEOUT_S))

    assert len(samples.indices) == 5
    assert {(batch.digest, batch.numerics_id) for batch in samples.batches} == {(model.digest, model.numerics_id)}


@pytest.mark.parametrize(
    ("name", "code"), [("", "INVALID_ARGUMENT"), ("other", "NOT_FOUND"), ("x" * 5000, "NOT_FOUND")]
)
def test_get_model_names_the_served_models(stub: service_pb2_grpc.LabelMintStub, name: str, code: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetModel(service_pb2.GetModelRequest(model=name), timeout=TIMEOUT_S)
    failure = describe_failure(caught.value)

    assert (failure.code, failure.detail and failure.detail.field) == (code, "model")
    assert "tiny" in failure.text
    assert len(failure.text) < 300


def test_bytes_that_are_no_message_fail_and_the_server_goes_on(
    stub: service_pb2_grpc.LabelMintStub, served: Any
) -> None:
    raw = served.channel().unary_stream("/labelmint.v1.LabelMint/Generate")
    with pytest.raises(grpc.RpcError):
        list(raw(b"\xff" * 40, timeout=TIMEOUT_S))

    assert len(collect(stub.Generate(make_request(), timeout=TIMEOUT_S)).indices) == 5


def test_oversized_request_is_refused_and_the_server_goes_on(
    stub: service_pb2_grpc.LabelMintStub,
    served: Any,
) -> None:
    request = make_request(model="x" * (served.settings.max_request_bytes + 1))

    assert expect_failure(stub.Generate(request, timeout=TIMEOUT_S)).code == "RESOURCE_EXHAUSTED"
    assert len(collect(stub.Generate(make_request(), timeout=TIMEOUT_S)).indices) == 5


def test_request_id_of_the_caller_comes_back(stub: service_pb2_grpc.LabelMintStub) -> None:
    metadata = (("labelmint-request-id", "my-call.1"),)
    failure = expect_failure(stub.Generate(make_request(model="other"), metadata=metadata, timeout=TIMEOUT_S))

    assert failure.detail is not None
    assert failure.detail.request_id == "my-call.1"
