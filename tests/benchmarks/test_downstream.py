"""Downstream use: both arms are really trained, and an interrupted run goes on where it was."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.downstream import streamed
from benchmarks.downstream.__main__ import main
from benchmarks.downstream.settings import DownstreamSettings
from benchmarks.downstream.streamed import fetch_samples
from benchmarks.downstream.summary import draw_page, summarize
from benchmarks.errors import RecordError
from benchmarks.reporting.environment import describe_command
from benchmarks.reporting.files import RESULTS_FOLDER
from labelmint_client import Client
from labelmint_export.datasets.toonhead import CLASS_NAMES
from labelmint_service.engine.processor import describe_processor
from tests.serving import serving


def command(bundle: Path, folder: Path, **changes: object) -> list[str]:
    chosen: dict[str, object] = {
        "bundle": bundle,
        "cache": folder / "samples.npz",
        "out": folder,
        "samples": 24,
        "rendered": 16,
        "test": 8,
        "steps": 2,
        "batch-size": 4,
        "seeds": "3",
        **changes,
    }
    return [text for name, value in chosen.items() for text in (f"--{name}", str(value))]


def settings(bundle: Path, cache: Path, **changes: Any) -> DownstreamSettings:  # Any: fields of every type
    chosen = {
        "bundle": bundle,
        "engine": "onnxruntime",
        "address": None,
        "model": None,
        "num_samples": 40,
        "max_uncertainty_quantile": 0.5,
        "cache": cache,
        "num_rendered": 16,
        "num_test": 8,
        "pose_range": 0.4,
        "steps": 2,
        "batch_size": 4,
        "blur_share": 0.0,
        "with_keypoints": False,
        "device": "cpu",
        "arms": ("streamed", "rendered"),
        "seeds": (0,),
        "threads": None,
        "jobs": 1,
        "out": cache.parent,
    }
    return DownstreamSettings(**{**chosen, **changes})


def record_of(folder: Path) -> dict[str, Any]:  # Any: a document of JSON
    document: dict[str, Any] = json.loads((folder / "downstream.json").read_text())
    return document


def test_interrupted_run_goes_on_and_trains_nothing_twice(
    toonish: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(toonish, tmp_path)) == 0
    first = record_of(tmp_path)
    assert [(run["arm"], run["seed"]) for run in first["runs"]] == [("streamed", 3), ("rendered", 3)]
    assert first["complete"]
    assert set(first["summary"]["iou"]) == set(CLASS_NAMES)
    called = describe_command("benchmarks.downstream", command(toonish, tmp_path))
    assert first["command"] == called
    for run in first["runs"]:
        assert (run["command"], run["processor"]) == (called, describe_processor())
        assert run["compute_dtype"] in {"float32", "bfloat16"}
        assert run.get("engine") == ("onnxruntime" if run["arm"] == "streamed" else None)
    page = (tmp_path / "downstream.md").read_text()
    assert f"Summed up by `{called}`" in page
    assert "not recorded" not in page

    # What an interruption during the second seed leaves behind.
    (tmp_path / "downstream.json").write_text(json.dumps({**first, "complete": False, "runs": first["runs"][:1]}))
    assert main(command(toonish, tmp_path, seeds="3,4")) == 0
    second = record_of(tmp_path)
    assert [(run["arm"], run["seed"]) for run in second["runs"]] == [
        ("streamed", 3),
        ("rendered", 3),
        ("streamed", 4),
        ("rendered", 4),
    ]
    assert second["runs"][0] == first["runs"][0], "it was trained again"
    assert second["runs"][1]["scores"] == first["runs"][1]["scores"], "the same seed gives another network"
    assert second["summary"]["seeds"] == [3, 4]
    assert "| mIoU " in (tmp_path / "downstream.md").read_text()

    # What only one arm depends on may change without the other's being lost.
    capsys.readouterr()
    fewer = [*command(toonish, tmp_path, seeds="3,4"), "--samples", "16"]
    assert main(fewer) == 1
    assert "give --restart, with the arm that it concerns" in capsys.readouterr().err
    assert main([*fewer, "--arms", "rendered", "--restart", "streamed"]) == 0
    assert "2 trainings are left: streamed, seed 3, streamed, seed 4" in capsys.readouterr().out
    assert record_of(tmp_path)["runs"] == [run for run in second["runs"] if run["arm"] == "rendered"]
    (tmp_path / "downstream.json").write_text(json.dumps(second))

    assert main(command(toonish, tmp_path, steps=3)) == 1
    assert "with steps 2, expected 3; give --restart" in capsys.readouterr().err
    assert record_of(tmp_path) == second


@pytest.mark.thorough
def test_trainings_beside_each_other_give_the_same_networks(toonish: Path, tmp_path: Path) -> None:
    small = {"samples": 8, "rendered": 8, "test": 4, "threads": 1}
    assert main(command(toonish, tmp_path, **small)) == 0
    one_by_one = record_of(tmp_path)["runs"]
    assert main([*command(toonish, tmp_path, **small), "--jobs", "2", "--restart"]) == 0
    beside = {run["arm"]: run["scores"] for run in record_of(tmp_path)["runs"]}
    assert beside == {run["arm"]: run["scores"] for run in one_by_one}


@pytest.mark.thorough
def test_failure_of_a_training_beside_others_is_reported(
    toonish: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = {"samples": 8, "rendered": 2, "test": 4, "threads": 1, "jobs": 2}
    assert main(command(toonish, tmp_path, **few)) == 1
    assert "rendered has 2 pictures for batches of 4" in capsys.readouterr().err


def test_model_of_other_classes_is_refused(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(tiny, tmp_path)) == 1
    assert "the model has the classes background, disc, ring, bar" in capsys.readouterr().err
    assert not (tmp_path / "downstream.json").exists()


def test_interrupted_fetch_goes_on_without_loss(toonish: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "SAMPLES_A_PART", 8)
    with serving([toonish]) as running:
        whole = fetch_samples(settings(toonish, tmp_path / "whole.npz", address=running.address))
        cache = tmp_path / "parts.npz"
        with Client(running.address) as client:
            partly = settings(toonish, cache, address=running.address, num_samples=20)
            streamed._fetch_parts(client, client.get_model("toonish"), partly)
        assert len(list((tmp_path / "parts.npz.parts").glob("*.npz"))) == 3
        parts = fetch_samples(settings(toonish, cache, address=running.address))

    with np.load(tmp_path / "whole.npz") as one, np.load(cache) as other:
        assert one["indices"].tolist() == other["indices"].tolist()
        assert int(one["indices"][-1]) > 40, "the filter rejected nothing"
    assert np.array_equal(whole.pictures, parts.pictures)
    assert np.array_equal(whole.masks, parts.masks)
    assert np.array_equal(whole.keypoints, parts.keypoints)
    assert whole.source == parts.source
    assert not (tmp_path / "parts.npz.parts").exists()


def test_cache_of_another_filter_is_refused(toonish: Path, tmp_path: Path) -> None:
    cache = tmp_path / "samples.npz"
    with serving([toonish]) as running:
        fetch_samples(settings(toonish, cache, address=running.address, num_samples=4))
    assert len(fetch_samples(settings(toonish, cache, num_samples=3)).pictures) == 3  # no server is asked any more
    with pytest.raises(RecordError, match=r"max_uncertainty_quantile 0\.5, expected 0\.9"):
        fetch_samples(settings(toonish, cache, max_uncertainty_quantile=0.9))
    with pytest.raises(RecordError, match="holds 4 samples, expected at least 5"):
        fetch_samples(settings(toonish, cache, num_samples=5))


def test_engine_of_the_samples_is_known_if_their_file_tells(toonish: Path, tmp_path: Path) -> None:
    cache = tmp_path / "samples.npz"
    with serving([toonish]) as running:
        another = fetch_samples(settings(toonish, cache, address=running.address, num_samples=4))
    assert another.engine is None, "another's server does not tell"
    with np.load(cache) as file:
        arrays = dict(file)
    np.savez(cache, **{**arrays, "engine": np.array("fused")})
    assert fetch_samples(settings(toonish, cache, num_samples=4)).engine == "fused"
    np.savez(cache, **{name: array for name, array in arrays.items() if name != "engine"})
    assert fetch_samples(settings(toonish, cache, num_samples=4)).engine is None, "a file of before it told"


def test_earlier_runs_count_and_what_they_do_not_tell_is_said(toonish: Path, tmp_path: Path) -> None:
    assert main(command(toonish, tmp_path)) == 0
    document = record_of(tmp_path)
    for run in document["runs"]:
        for key in ("engine", "processor", "command"):
            run.pop(key, None)
    for key in ("compute_dtype", "device"):
        del document["runs"][1][key]
    (tmp_path / "downstream.json").write_text(json.dumps(document))
    assert main(command(toonish, tmp_path)) == 0
    assert record_of(tmp_path)["runs"] == document["runs"], "they were trained again"
    page = (tmp_path / "downstream.md").read_text()
    told = ("precision", "device", "processor", "command")
    assert f"- rendered, seeds 3: {', '.join(f'{name} not recorded' for name in told)}" in page


def test_committed_page_is_that_of_the_committed_record() -> None:
    document = record_of(RESULTS_FOLDER)
    page = draw_page(document["summary"], document["runs"], document["configuration"], document)
    assert (RESULTS_FOLDER / "downstream.md").read_text(encoding="utf-8") == page


def run_of(arm: str, seed: int, miou: float, iou: dict[str, float | None]) -> dict[str, Any]:  # Any: JSON
    return {"arm": arm, "seed": seed, "scores": {"miou": miou, "iou": iou}}


def test_summary_compares_means_and_finds_the_worst_class() -> None:
    runs = [
        run_of("streamed", 0, 0.72, {"face": 0.9, "mouth": 0.35, "beard": None}),
        run_of("streamed", 1, 0.74, {"face": 0.9, "mouth": 0.37, "beard": None}),
        run_of("streamed", 2, 0.0, {"face": 0.0, "mouth": 0.0, "beard": None}),
        run_of("rendered", 0, 0.8, {"face": 0.9, "mouth": 0.5, "beard": None}),
        run_of("rendered", 1, 0.8, {"face": 0.9, "mouth": 0.5, "beard": None}),
    ]
    summary = summarize(runs, (0, 1))
    assert summary["miou"]["ratio"] == pytest.approx(0.73 / 0.8, abs=1e-4)
    assert summary["reaches_miou_target"]
    assert summary["iou"]["mouth"]["ratio"] == pytest.approx(0.72)
    assert summary["worst_class"] == "mouth"
    assert not summary["reaches_class_target"]
    assert summary["iou"]["beard"]["ratio"] is None
