"""Label streams: latents of the caller, labelled as Generate would."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

from labelmint.addresses import latents
from labelmint.arrays import tensor_from_array
from labelmint.v1 import service_pb2, service_pb2_grpc
from labelmint.v1.service_pb2 import LabelOptions, LabelRequest, OutputOptions, Tensor
from tests.service.calls import EVERY_FIELD, TIMEOUT_S, collect, expect_failure, make_request

FloatArray = npt.NDArray[np.float32]
LABEL_FIELDS = EVERY_FIELD[:-1]


def make_z(count: int, seed: int = 7) -> FloatArray:
    return latents(seed, np.arange(count, dtype=np.uint64), 8)


def options(model: str = "tiny", psi: float | None = None, **output: object) -> LabelOptions:
    fields = output.pop("fields", LABEL_FIELDS)
    return LabelOptions(model=model, truncation_psi=psi, output=OutputOptions(fields=fields, **output))  # type: ignore[arg-type]  # fields of every type


def map_latents(bundle: Path, z: FloatArray, psi: float, onehot: FloatArray | None = None) -> FloatArray:
    """The mapping graph's ws, float32 [N, num_ws, w_dim]."""
    session = onnxruntime.InferenceSession(bundle / "mapping.onnx", providers=["CPUExecutionProvider"])
    feed = {"z": z, "truncation_psi": np.full(len(z), psi, dtype=np.float32)}
    if onehot is not None:
        feed["c"] = onehot
    ws: FloatArray = session.run(["ws"], feed)[0]
    return ws


def test_z_gives_the_samples_that_generate_gives(stub: service_pb2_grpc.LabelMintStub) -> None:
    z = make_z(11)
    requests = [
        LabelRequest(options=options(fields=EVERY_FIELD)),
        LabelRequest(z=tensor_from_array(z[:6])),
        LabelRequest(z=tensor_from_array(z[6:])),
    ]
    labelled = collect(stub.Label(iter(requests), timeout=TIMEOUT_S))
    generated = collect(
        stub.Generate(make_request(max_accepted=11, output=OutputOptions(fields=EVERY_FIELD)), timeout=TIMEOUT_S),
    )

    assert labelled.indices == list(range(11))
    assert labelled.batches[-1].next_index == 11
    assert set(labelled.arrays) == set(generated.arrays)
    for name, array in generated.arrays.items():
        assert labelled.arrays[name].tobytes() == array.tobytes(), name


def test_options_may_carry_latents_themselves(stub: service_pb2_grpc.LabelMintStub) -> None:
    request = LabelRequest(options=options(), z=tensor_from_array(make_z(3)))

    assert collect(stub.Label(iter([request]), timeout=TIMEOUT_S)).indices == [0, 1, 2]


def test_w_plus_is_used_as_it_is_and_w_is_truncated(
    stub: service_pb2_grpc.LabelMintStub,
    bundles: dict[str, Path],
) -> None:
    """`classy` truncates its first two of four layers, so a wrong cutoff or average would show."""
    z, onehot = make_z(6), np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2]]
    ws = map_latents(bundles["classy"], z, 0.6, onehot)
    w = map_latents(bundles["classy"], z, 1.0, onehot)[:, 0]
    fields = [field for field in LABEL_FIELDS if field != service_pb2.SAMPLE_FIELD_KEYPOINTS]
    asked = options("classy", psi=0.6, fields=fields)

    by_z, by_w, by_w_plus = (
        collect(stub.Label(iter([LabelRequest(options=asked), request]), timeout=TIMEOUT_S))
        for request in (
            LabelRequest(z=tensor_from_array(z), class_indices=[0, 1, 2, 0, 1, 2]),
            LabelRequest(w=tensor_from_array(w)),
            LabelRequest(w_plus=tensor_from_array(ws)),
        )
    )

    assert [n for batch in by_z.batches for n in batch.class_indices] == [0, 1, 2, 0, 1, 2]
    assert not any(batch.class_indices for batch in [*by_w.batches, *by_w_plus.batches])
    for other in (by_w, by_w_plus):
        assert other.indices == by_z.indices
        difference = np.abs(other.arrays["image_raw"].astype(int) - by_z.arrays["image_raw"])
        assert difference.max() <= 1
        assert (other.arrays["mask_raw"] == by_z.arrays["mask_raw"]).mean() > 0.999


def test_kinds_of_latents_may_follow_each_other(stub: service_pb2_grpc.LabelMintStub, bundles: dict[str, Path]) -> None:
    z = make_z(9)
    ws = map_latents(bundles["tiny"], z, 0.7)
    requests = [LabelRequest(options=options())]
    for first in range(0, 9, 3):
        rows = slice(first, first + 3)
        requests.append(
            LabelRequest(w_plus=tensor_from_array(ws[rows]))
            if first == 3
            else LabelRequest(z=tensor_from_array(z[rows])),
        )
    mixed = collect(stub.Label(iter(requests), timeout=TIMEOUT_S))
    plain = collect(
        stub.Label(iter([LabelRequest(options=options(), z=tensor_from_array(z))]), timeout=TIMEOUT_S),
    )

    assert mixed.indices == list(range(9))
    np.testing.assert_allclose(
        mixed.arrays["image_raw"].astype(int),
        plain.arrays["image_raw"].astype(int),
        rtol=0,
        atol=1,
    )


def test_long_message_is_labelled_in_batches(stub: service_pb2_grpc.LabelMintStub) -> None:
    request = LabelRequest(options=options(), z=tensor_from_array(make_z(50)))
    samples = collect(stub.Label(iter([request]), timeout=TIMEOUT_S))

    assert samples.indices == list(range(50))


def test_options_alone_are_an_empty_stream(stub: service_pb2_grpc.LabelMintStub) -> None:
    empty = np.zeros((0, 8), dtype=np.float32)
    requests = [LabelRequest(options=options()), LabelRequest(z=tensor_from_array(empty))]

    assert collect(stub.Label(iter(requests), timeout=TIMEOUT_S)).batches == []


NAN_Z = make_z(3)
NAN_Z[1, 4] = np.nan
BAD_LATENTS = [
    ("wrong length", LabelRequest(z=tensor_from_array(make_z(2)[:, :7].copy())), "z"),
    ("wrong rank", LabelRequest(z=tensor_from_array(make_z(2)[0])), "z"),
    ("no shape", LabelRequest(z=Tensor(dtype=service_pb2.DTYPE_FLOAT32, data=b"\0\0\0\0")), "z"),
    ("wrong dtype", LabelRequest(z=tensor_from_array(make_z(2).astype(np.float16))), "z"),
    ("no dtype", LabelRequest(z=Tensor(shape=[0, 8])), "z.dtype"),
    (
        "missing bytes",
        LabelRequest(z=Tensor(dtype=service_pb2.DTYPE_FLOAT32, shape=[2, 8], data=b"1234")),
        "z.data",
    ),
    (
        "a count that overflows",
        LabelRequest(z=Tensor(dtype=service_pb2.DTYPE_FLOAT32, shape=[2**62, 8], data=b"")),
        "z.shape",
    ),
    ("not finite", LabelRequest(z=tensor_from_array(NAN_Z)), "z"),
    ("w of another length", LabelRequest(w=tensor_from_array(np.zeros((1, 9), dtype=np.float32))), "w"),
    (
        "w_plus of another depth",
        LabelRequest(w_plus=tensor_from_array(np.zeros((1, 5, 8), dtype=np.float32))),
        "w_plus",
    ),
    ("classes of a plain model", LabelRequest(z=tensor_from_array(make_z(1)), class_indices=[0]), "class_indices"),
    ("options again", LabelRequest(options=options(), z=tensor_from_array(make_z(1))), "options"),
]


@pytest.mark.parametrize(("request_", "field"), [pytest.param(*row[1:], id=row[0]) for row in BAD_LATENTS])
def test_bad_latents_are_named_and_the_server_goes_on(
    stub: service_pb2_grpc.LabelMintStub,
    request_: LabelRequest,
    field: str,
) -> None:
    failure = expect_failure(stub.Label(iter([LabelRequest(options=options()), request_]), timeout=TIMEOUT_S))

    assert failure.code == "INVALID_ARGUMENT"
    assert failure.detail is not None
    assert failure.detail.field == field
    good = LabelRequest(options=options(), z=tensor_from_array(make_z(1)))
    assert collect(stub.Label(iter([good]), timeout=TIMEOUT_S)).indices == [0]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (LabelRequest(z=tensor_from_array(make_z(2))), "class_indices"),
        (LabelRequest(z=tensor_from_array(make_z(2)), class_indices=[0]), "class_indices"),
        (LabelRequest(z=tensor_from_array(make_z(2)), class_indices=[0, 3]), "class_indices[1]"),
        (LabelRequest(w=tensor_from_array(make_z(1)), class_indices=[0]), "class_indices"),
        (LabelRequest(class_indices=[0]), "class_indices"),
    ],
)
def test_classes_of_a_conditional_model_go_with_z(
    stub: service_pb2_grpc.LabelMintStub,
    request_: LabelRequest,
    field: str,
) -> None:
    fields = [service_pb2.SAMPLE_FIELD_IMAGE]
    failure = expect_failure(
        stub.Label(iter([LabelRequest(options=options("classy", fields=fields)), request_]), timeout=TIMEOUT_S),
    )

    assert (failure.code, failure.detail and failure.detail.field) == ("INVALID_ARGUMENT", field)


@pytest.mark.parametrize(
    ("requests", "field", "code"),
    [
        ([], "options", "INVALID_ARGUMENT"),
        ([LabelRequest(z=tensor_from_array(make_z(1)))], "options", "INVALID_ARGUMENT"),
        ([LabelRequest(options=options(""))], "options.model", "INVALID_ARGUMENT"),
        ([LabelRequest(options=options("other"))], "options.model", "NOT_FOUND"),
        ([LabelRequest(options=options(psi=-1.0))], "options.truncation_psi", "INVALID_ARGUMENT"),
        ([LabelRequest(options=options(jpeg_quality=200))], "options.output.jpeg_quality", "INVALID_ARGUMENT"),
        ([LabelRequest(options=LabelOptions(model="tiny", digest="0" * 64))], "options.digest", "FAILED_PRECONDITION"),
        (
            [
                LabelRequest(options=options(fields=[service_pb2.SAMPLE_FIELD_Z])),
                LabelRequest(w=tensor_from_array(np.zeros((1, 8), dtype=np.float32))),
            ],
            "options.output.fields",
            "INVALID_ARGUMENT",
        ),
    ],
)
def test_bad_options_are_named(
    stub: service_pb2_grpc.LabelMintStub,
    requests: list[LabelRequest],
    field: str,
    code: str,
) -> None:
    failure = expect_failure(stub.Label(iter(requests), timeout=TIMEOUT_S))

    assert (failure.code, failure.detail and failure.detail.field) == (code, field)


def test_latents_are_read_no_faster_than_they_are_labelled(stub: service_pb2_grpc.LabelMintStub) -> None:
    """The caller sends without an end and takes nothing: the server must stop reading."""
    num_sent = 0

    def endless() -> Iterator[LabelRequest]:
        nonlocal num_sent
        yield LabelRequest(options=options(fields=[service_pb2.SAMPLE_FIELD_KEYPOINTS]))
        while num_sent < 3000:
            num_sent += 1
            yield LabelRequest(z=tensor_from_array(np.tile(make_z(64), (16, 1))))  # 1,024 rows, 32 KiB

    call = stub.Label(endless(), timeout=TIMEOUT_S)
    first = next(call)
    call.cancel()

    assert list(first.indices) == list(range(len(first.indices)))
    assert num_sent < 3000


def test_non_finite_result_of_a_style_ends_the_stream_at_it(stub: service_pb2_grpc.LabelMintStub) -> None:
    ws = np.zeros((5, 4, 8), dtype=np.float32)
    ws[3] = 3e38
    request = LabelRequest(options=options(), w_plus=tensor_from_array(ws))
    failure = expect_failure(stub.Label(iter([request]), timeout=TIMEOUT_S))

    assert failure.code == "DATA_LOSS"
    assert [index for batch in failure.batches for index in batch.indices] == [0, 1, 2]
    assert failure.detail is not None
    assert failure.detail.next_index == 4
