"""Generate streams: the right samples, bit for bit, however they are asked for."""

import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from labelmint.addresses import class_indices, latents
from labelmint.bundle import open_bundle
from labelmint.scores import image_score
from labelmint.v1 import service_pb2, service_pb2_grpc
from labelmint.v1.service_pb2 import Filter, OutputOptions
from tests.service.calls import EVERY_FIELD, TIMEOUT_S, Collected, collect, expect_failure, make_request

LAST = 2**64 - 1
ALL = OutputOptions(fields=EVERY_FIELD)


def generate(stub: service_pb2_grpc.LabelMintStub, **fields: Any) -> Collected:  # Any: fields of every type
    return collect(stub.Generate(make_request(**{"output": ALL, **fields}), timeout=TIMEOUT_S))


def assert_same_samples(got: Collected, expected: Collected) -> None:
    for index in got.indices:
        assert got.row(index) == expected.row(index)


@pytest.fixture(scope="module")
def whole(stub: service_pb2_grpc.LabelMintStub) -> Collected:
    """Indices 0 to 39 of seed 7 in one stream."""
    samples = generate(stub, max_accepted=40)
    assert samples.indices == list(range(40))
    return samples


def test_stream_is_bit_identical_to_the_model_graph_run_directly(whole: Collected, bundles: dict[str, Path]) -> None:
    manifest = open_bundle(bundles["tiny"]).manifest
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = manifest.runtime.onnxruntime.intra_op_num_threads
    options.inter_op_num_threads = manifest.runtime.onnxruntime.inter_op_num_threads
    session = onnxruntime.InferenceSession(
        bundles["tiny"] / manifest.graphs.model,
        options,
        providers=["CPUExecutionProvider"],
    )
    size = manifest.runtime.batch_size
    for first in range(0, 40, size):
        z = latents(7, np.arange(first, first + size, dtype=np.uint64), manifest.backbone.z_dim)
        psi = np.full(size, manifest.truncation.default_psi, dtype=np.float32)
        names = ["image", "label", "keypoints", "uncertainty_map"]
        image, label, keypoints, uncertainty_map = session.run(names, {"z": z, "truncation_psi": psi})
        expected = {
            "image_raw": image,
            "mask_raw": label,
            "keypoints": keypoints,
            "uncertainty_map": uncertainty_map,
            "uncertainty": image_score(uncertainty_map),
            "z": z,
        }
        for name, array in expected.items():
            np.testing.assert_array_equal(whole.arrays[name][first : first + size], array, err_msg=name, strict=True)


def test_samples_differ_from_each_other(whole: Collected) -> None:
    assert len({whole.arrays["image_raw"][place].tobytes() for place in range(40)}) == 40


@pytest.mark.parametrize("num_shards", [2, 3, 7])
def test_shards_together_are_the_whole_stream(
    stub: service_pb2_grpc.LabelMintStub,
    whole: Collected,
    num_shards: int,
) -> None:
    seen: list[int] = []
    for shard in range(num_shards):
        part = generate(stub, end_index=40, max_accepted=100, shard_index=shard, num_shards=num_shards)
        assert part.indices == [index for index in range(40) if index % num_shards == shard]
        assert_same_samples(part, whole)
        seen += part.indices
    assert sorted(seen) == whole.indices


def test_resumed_stream_loses_nothing_and_repeats_nothing(
    stub: service_pb2_grpc.LabelMintStub,
    whole: Collected,
) -> None:
    indices: list[int] = []
    next_index = 0
    while len(indices) < 40:
        call = stub.Generate(
            make_request(start_index=next_index, max_accepted=40 - len(indices), output=ALL),
            timeout=TIMEOUT_S,
        )
        part = collect([next(call)])  # takes one message and hangs up
        call.cancel()
        assert_same_samples(part, whole)
        indices += part.indices
        next_index = part.batches[-1].next_index
    assert indices == list(range(40))


def test_resumed_filtered_shard_is_the_uninterrupted_one(stub: service_pb2_grpc.LabelMintStub) -> None:
    fields = {
        "filter": Filter(max_uncertainty_quantile=0.5),
        "shard_index": 1,
        "num_shards": 3,
        "end_index": 120,
        "max_accepted": None,
        "endless": True,
    }
    whole = generate(stub, **fields)
    first = generate(stub, **{**fields, "endless": None, "max_accepted": 5})
    rest = generate(stub, **fields, start_index=first.batches[-1].next_index)

    assert first.indices + rest.indices == whole.indices
    assert 10 < len(whole.indices) < 40
    assert sum(batch.num_scanned for batch in whole.batches) == 40
    assert sum(batch.num_rejected for batch in whole.batches) == 40 - len(whole.indices)
    assert_same_samples(first, whole)
    assert_same_samples(rest, whole)


def test_small_messages_carry_the_same_samples(stub: service_pb2_grpc.LabelMintStub, whole: Collected) -> None:
    sizes = OutputOptions(fields=EVERY_FIELD, max_message_bytes=64 * 1024)
    small = generate(stub, max_accepted=40, output=sizes)

    assert small.indices == whole.indices
    assert_same_samples(small, whole)


def test_concurrent_load_does_not_change_a_bit(stub: service_pb2_grpc.LabelMintStub, whole: Collected) -> None:
    """Streams of other seeds, psi and lengths share the batches, so rows stand beside others and in other places."""
    stopping = threading.Event()
    others_got = threading.Barrier(4)

    def disturb(seed: int) -> None:
        call = stub.Generate(
            make_request(seed=seed, truncation_psi=seed / 4, max_accepted=None, endless=True),
            timeout=TIMEOUT_S,
        )
        next(call)
        others_got.wait(TIMEOUT_S)
        for _ in call:
            if stopping.is_set():
                call.cancel()
                return

    threads = [threading.Thread(target=disturb, args=(seed,)) for seed in (1, 2, 3)]
    for thread in threads:
        thread.start()
    try:
        others_got.wait(TIMEOUT_S)
        beside = generate(stub, max_accepted=40)
    finally:
        stopping.set()
        for thread in threads:
            thread.join()

    assert beside.indices == whole.indices
    assert len(beside.batches) > len(whole.batches), "no batch was shared"
    assert_same_samples(beside, whole)


def test_psi_is_the_manifests_unless_asked_for(stub: service_pb2_grpc.LabelMintStub, whole: Collected) -> None:
    same = generate(stub, truncation_psi=0.7)
    other = generate(stub, truncation_psi=0.3)

    assert_same_samples(same, whole)
    assert other.row(0) != whole.row(0)
    assert other.row(0)["z"] == whole.row(0)["z"]


def test_classes_are_drawn_from_the_address_or_fixed(stub: service_pb2_grpc.LabelMintStub) -> None:
    fields = [field for field in EVERY_FIELD if field != service_pb2.SAMPLE_FIELD_KEYPOINTS]
    output = OutputOptions(fields=fields)
    drawn = generate(stub, model="classy", max_accepted=30, output=output)
    fixed = generate(stub, model="classy", max_accepted=30, output=output, class_index=2)

    classes = [number for batch in drawn.batches for number in batch.class_indices]
    expected = class_indices(7, np.arange(30, dtype=np.uint64), np.full(3, 1 / 3))
    assert classes == expected.tolist()
    assert {number for batch in fixed.batches for number in batch.class_indices} == {2}
    for index in range(30):
        assert (drawn.row(index) == fixed.row(index)) == (classes[index] == 2)


def test_default_fields_are_image_mask_and_keypoints(stub: service_pb2_grpc.LabelMintStub) -> None:
    samples = generate(stub, output=None)

    assert set(samples.arrays) == {"image_raw", "mask_raw", "keypoints", "uncertainty"}
    assert samples.arrays["image_raw"].shape == (5, 16, 16, 3)
    assert samples.arrays["mask_raw"].shape == (5, 16, 16)
    assert samples.arrays["keypoints"].shape == (5, 3, 4)


def test_progress_and_times_of_a_plain_stream_add_up(whole: Collected) -> None:
    assert sum(batch.num_scanned for batch in whole.batches) == 40
    assert sum(batch.num_rejected for batch in whole.batches) == 0
    for batch in whole.batches:
        assert batch.next_index == batch.indices[-1] + 1
        assert not batch.exhausted
        assert min(batch.times.queue_ns, batch.times.compute_ns, batch.times.encode_ns) > 0


def test_last_index_of_all_is_served_and_exhausts_the_stream(stub: service_pb2_grpc.LabelMintStub) -> None:
    samples = generate(stub, start_index=LAST - 2, max_accepted=None, endless=True)

    assert samples.indices == [LAST - 2, LAST - 1, LAST]
    assert samples.batches[-1].exhausted
    assert samples.batches[-1].next_index == LAST
    assert samples.arrays["z"].tobytes() == latents(7, np.array(samples.indices, dtype=np.uint64), 8).tobytes()


def test_shards_near_the_last_index_do_not_overflow(stub: service_pb2_grpc.LabelMintStub) -> None:
    shards = LAST - 1
    for shard in (0, 1, 5):
        samples = generate(
            stub,
            start_index=LAST - 1,
            shard_index=shard,
            num_shards=shards,
            max_accepted=None,
            endless=True,
        )
        assert samples.indices == [index for index in (LAST - 1, LAST) if index % shards == shard]


def test_empty_range_is_an_empty_stream(stub: service_pb2_grpc.LabelMintStub) -> None:
    assert generate(stub, start_index=9, end_index=9).batches == []


def test_end_index_ends_before_the_limit(stub: service_pb2_grpc.LabelMintStub) -> None:
    assert generate(stub, start_index=3, end_index=6, max_accepted=2**63).indices == [3, 4, 5]


def test_max_scanned_ends_an_impossible_filter_with_a_resume_point(stub: service_pb2_grpc.LabelMintStub) -> None:
    request = make_request(start_index=10, max_scanned=50, filter=Filter(max_uncertainty=0.0))
    failure = expect_failure(stub.Generate(request, timeout=TIMEOUT_S))

    assert failure.code == "FAILED_PRECONDITION"
    assert failure.detail is not None
    assert (failure.detail.field, failure.detail.next_index) == ("max_scanned", 60)
    assert sum(batch.num_scanned for batch in failure.batches) == 50
    assert sum(batch.num_rejected for batch in failure.batches) == 50


def test_max_scanned_that_suffices_is_no_error(stub: service_pb2_grpc.LabelMintStub) -> None:
    assert generate(stub, max_scanned=5).indices == [0, 1, 2, 3, 4]
    assert generate(stub, end_index=5, max_accepted=100, max_scanned=5).indices == [0, 1, 2, 3, 4]


def test_filter_that_rejects_everything_reports_progress(stub: service_pb2_grpc.LabelMintStub) -> None:
    request = make_request(filter=Filter(max_uncertainty=0.0), max_accepted=None, endless=True)
    call = stub.Generate(request, timeout=TIMEOUT_S)
    batches = [next(call) for _ in range(3)]
    call.cancel()

    scanned = 0
    for batch in batches:
        assert not batch.indices
        assert batch.num_scanned == batch.num_rejected
        scanned += batch.num_scanned
        assert batch.next_index == scanned
    assert scanned > 0


def test_quantile_keeps_about_its_share(stub: service_pb2_grpc.LabelMintStub) -> None:
    request = {"max_accepted": None, "endless": True, "end_index": 400}
    for quantile in (0.25, 0.75):
        kept = generate(stub, **request, filter=Filter(max_uncertainty_quantile=quantile))
        # 400 draws against a table of 64: three standard deviations of both together.
        assert abs(len(kept.indices) / 400 - quantile) < 3 * math.sqrt(quantile * (1 - quantile) * (1 / 400 + 1 / 64))


def test_filters_keep_exactly_what_they_say(stub: service_pb2_grpc.LabelMintStub) -> None:
    whole = generate(stub, max_accepted=100)
    bound = float(np.median(whole.arrays["uncertainty"]))
    area = Filter(
        max_uncertainty=bound,
        min_class_areas=[service_pb2.ClassArea(class_name="disc", min_fraction=0.3)],
    )
    kept = generate(stub, filter=area, max_accepted=100, end_index=100)

    sure = whole.arrays["uncertainty"] <= np.float32(bound)
    wide = (whole.arrays["mask_raw"] == 1).mean(axis=(1, 2)) >= 0.3
    assert kept.indices == np.flatnonzero(sure & wide).tolist()
    assert 5 < len(kept.indices) < 50
    assert_same_samples(kept, whole)


def test_non_finite_sample_is_never_sent_and_ends_its_stream_only(stub: service_pb2_grpc.LabelMintStub) -> None:
    bad = np.flatnonzero(latents(7, np.arange(200, dtype=np.uint64), 8)[:, 0] > 1.0)
    request = make_request(model="poisoned", max_accepted=200)
    neighbour_request = make_request(
        model="poisoned",
        start_index=int(bad[0]) + 1,
        end_index=int(bad[1]),
        max_accepted=200,
    )
    neighbour: list[Collected] = []
    thread = threading.Thread(
        target=lambda: neighbour.append(collect(stub.Generate(neighbour_request, timeout=TIMEOUT_S))),
    )
    thread.start()
    failure = expect_failure(stub.Generate(request, timeout=TIMEOUT_S))
    thread.join()

    assert failure.code == "DATA_LOSS"
    assert f"sample {bad[0]} " in failure.text
    assert failure.detail is not None
    assert failure.detail.next_index == bad[0] + 1
    assert [index for batch in failure.batches for index in batch.indices] == list(range(bad[0]))
    assert neighbour[0].indices == list(range(bad[0] + 1, bad[1]))
