"""Throughput of the service: measured for real on a tiny bundle, and worthless without equal bits."""

import json
import statistics
from pathlib import Path

import onnxruntime
import pytest

from benchmarks.contenders.engine import EngineContender
from benchmarks.contenders.rounds import Round, check_parity
from benchmarks.contenders.stream import ENCODINGS, StreamContender
from benchmarks.errors import ParityError
from benchmarks.throughput.command import main
from labelmint_client import Client
from tests.serving import serving
from tests.tiny_bundle import BATCH_SIZE, write_tiny_bundle

ROUND = Round(seed=7, start_index=1000, warmup_batches=1, timed_batches=3)


def test_a_run_writes_speeds_ratios_and_proof_of_equal_bits(tiny: Path, tmp_path: Path) -> None:
    status = main(["--bundle", str(tiny), "--rounds", "2", "--seconds", "0.02", "--out", str(tmp_path)])

    assert status == 0
    report = json.loads((tmp_path / "service.json").read_text())
    assert report["command"].startswith(f"python -m benchmarks --bundle {tiny} --rounds 2 ")
    assert f"`{report['command']}`" in (tmp_path / "service.md").read_text()
    timed = report["configuration"]["timed_batches"]
    assert list(report["contenders"]) == ["engine", "grpc_raw", "grpc_jpeg_zstd"]
    engine_rates = report["contenders"]["engine"]["samples_per_s_of_rounds"]
    for name, summary in report["contenders"].items():
        assert summary["batch_ms"]["n"] == 2 * timed
        assert 0 < summary["batch_ms"]["p50"] <= summary["batch_ms"]["p90"] <= summary["batch_ms"]["p99"]
        assert summary["samples_per_s"] == pytest.approx(
            statistics.median(summary["samples_per_s_of_rounds"]), abs=1e-3
        )
        if name != "engine":
            ratios = [a / b for a, b in zip(summary["samples_per_s_of_rounds"], engine_rates, strict=True)]
            assert summary["ratio_to_engine"] == pytest.approx(statistics.median(ratios), rel=1e-2)
            # Warm-up and timed batches of both rounds.
            assert summary["bit_identical_samples"] == 2 * BATCH_SIZE * (2 + timed)
    assert 0 < report["contenders"]["grpc_jpeg_zstd"]["image_difference_levels"] < 8
    assert "| grpc_raw " in (tmp_path / "service.md").read_text()
    assert not list(tmp_path.glob("*.unfinished"))


def test_missing_bundle_is_an_error_and_leaves_no_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--bundle", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 1
    assert "there is no bundle at" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_provider_reaches_the_engine(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    assert main(["--bundle", str(tiny), "--provider", "cuda", "--out", str(tmp_path)]) == 1
    assert "provider 'cuda' needs CUDAExecutionProvider" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", list(ENCODINGS))
def test_stream_has_the_digests_of_the_engine(tiny: Path, encoding: str) -> None:
    expected = EngineContender(tiny).run(ROUND)
    with serving([tiny]) as running, Client(running.address) as client:
        got = StreamContender(client, "tiny", ENCODINGS[encoding], BATCH_SIZE).run(ROUND)

    compared = check_parity(expected.digests, got.digests, name=encoding, start_index=ROUND.start_index)
    assert compared == 4 * BATCH_SIZE
    assert len(expected.batch_ns) == len(got.batch_ns) == ROUND.timed_batches
    assert {"mask", "keypoints", "uncertainty"} <= set(got.digests)
    assert ("image" in got.digests) == ENCODINGS[encoding].is_lossless


def test_other_outputs_are_a_parity_error_that_names_the_sample(tiny: Path, tmp_path: Path) -> None:
    engine = EngineContender(tiny).run(ROUND)
    other = EngineContender(write_tiny_bundle(tmp_path / "other", seed=1)).run(ROUND)
    with pytest.raises(ParityError, match=f"other: image of sample {ROUND.start_index} "):
        check_parity(engine.digests, other.digests, name="other", start_index=ROUND.start_index)


def test_a_single_altered_sample_is_found(tiny: Path) -> None:
    engine = EngineContender(tiny).run(ROUND)
    altered = {field: list(digests) for field, digests in engine.digests.items()}
    altered["mask"][5] = altered["mask"][6]
    with pytest.raises(ParityError, match=f"mask of sample {ROUND.start_index + 5} "):
        check_parity(engine.digests, altered, name="altered", start_index=ROUND.start_index)


def test_nothing_to_compare_is_a_parity_error(tiny: Path) -> None:
    engine = EngineContender(tiny).run(ROUND)
    with pytest.raises(ParityError, match="no samples"):
        check_parity(engine.digests, {"mask": []}, name="empty", start_index=0)
