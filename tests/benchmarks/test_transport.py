"""The transport benchmark end to end, small: real servers and readers in processes of their own."""

import json
from pathlib import Path

import pytest

from benchmarks.errors import ParityError
from benchmarks.transport import __main__ as command
from benchmarks.transport import measuring
from benchmarks.transport.__main__ import main
from benchmarks.transport.measuring import FLIGHT, OURS, SHARED, TRITON, Measured, Stream
from benchmarks.transport.summary import summarize
from labelmint.bundle import open_bundle
from labelmint_service.settings import EMBEDDED_BUNDLE


def test_streams_are_measured_and_carry_the_same_bits(tmp_path: Path) -> None:
    arguments = ["--sizes", "128", "--rounds", "2", "--megabytes", "4", "--batch-megabytes", "1"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "transport.json").read_text(encoding="utf-8"))
    assert report["command"].startswith("python -m benchmarks.transport --sizes 128 --rounds 2 ")
    assert report["digest"] == open_bundle(EMBEDDED_BUNDLE).digest
    part = report["sizes"]["128"]
    assert part["sample_bytes"] == 128 * 128 * 4 + 9 * 16
    assert part["samples_a_turn"] % part["batch_size"] == 0
    assert list(part["contenders"]) == [OURS, SHARED, FLIGHT]
    assert all(len(entry["seconds_of_turns"]) == 2 for entry in part["contenders"].values())
    assert f"| 128 x 128 | {FLIGHT:>24} |" in (tmp_path / "transport.md").read_text(encoding="utf-8")


def test_size_that_the_recording_cannot_have_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--sizes", "100"])
    assert "size is 100, expected a multiple of 128" in capsys.readouterr().err


def test_other_samples_end_the_benchmark() -> None:
    with pytest.raises(ParityError, match="samples of flight have digest b, those of labelmint a"):
        measuring._check({OURS: "a", SHARED: "a", FLIGHT: "b"})


def test_where_triton_lies_is_kept_out_of_the_result_and_its_versions_are_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton itself is not installed here: its worker's answer is made up."""
    streams = {OURS: Stream(total_ns=[1]), TRITON: Stream(total_ns=[2], versions={"nvidia-pytriton": "0.5"})}
    measured = Measured(sample_bytes=10, batch_size=1, samples=4, streams=streams)
    monkeypatch.setattr(command, "measure", lambda size, settings: measured)
    assert main(["--sizes", "128", "--triton-python", "/home/a/python", "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "transport.json").read_text(encoding="utf-8"))
    assert report["command"].startswith("python -m benchmarks.transport --sizes 128 --triton-python PYTHON ")
    contenders = report["sizes"]["128"]["contenders"]
    assert contenders[TRITON]["versions"] == {"nvidia-pytriton": "0.5"}
    assert "versions" not in contenders[OURS]


def test_speed_is_the_median_of_the_ratios_of_rounds() -> None:
    streams = {OURS: Stream(total_ns=[10, 20, 40]), FLIGHT: Stream(total_ns=[10, 40, 20])}
    part = summarize(Measured(sample_bytes=10, batch_size=1, samples=4, streams=streams))
    assert part["contenders"][FLIGHT]["speed_of_labelmint_of_rounds"] == [1.0, 2.0, 0.5]
    assert part["contenders"][FLIGHT]["speed_of_labelmint"] == 1.0
    assert part["contenders"][FLIGHT]["reaches_goal"]
    assert part["contenders"][OURS]["samples_per_s"] == 4 / 20e-9
