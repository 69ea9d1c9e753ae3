"""Workloads: what they make, that contenders label alike, and how the numbers are summed up."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from benchmarks.errors import DeviceError, ParityError, WorkerError
from benchmarks.processes.worker import Worker
from benchmarks.reporting.files import RESULTS_FOLDER, Document
from benchmarks.workloads import __main__ as command
from benchmarks.workloads import engines, measuring
from benchmarks.workloads.__main__ import main
from benchmarks.workloads.devices import open_device
from benchmarks.workloads.floors import count_interpreter
from benchmarks.workloads.measuring import Contender, WorkloadSettings, compare_labels
from benchmarks.workloads.parts import make_generator, make_interpreter, write_bundle
from benchmarks.workloads.plots import plot_stages
from benchmarks.workloads.reference import ReferenceLabels, most_frequent
from benchmarks.workloads.shapes import STYLEGAN1_CHANNELS, STYLEGAN2_CHANNELS, WORKLOADS, Workload
from benchmarks.workloads.summary import draw_page, draw_table, find_commands, summarize
from labelmint.addresses import latents
from labelmint_service.engine import EngineChoice, LatentInputs, load_engine
from labelmint_service.models.served import load_model

TINY = Workload(
    family="stylegan1",
    resolution=16,
    label_resolution=16,
    first_row=4,
    num_rows=8,
    taps="datasetgan",
    num_features=3072,
    hidden_widths=(8, 8),
    num_classes=3,
    num_members=3,
)


def test_features_of_the_workloads_are_those_of_the_papers() -> None:
    for name, workload in WORKLOADS.items():
        widths = STYLEGAN1_CHANNELS if workload.family == "stylegan1" else STYLEGAN2_CHANNELS
        channels = [2 * width for r, width in widths.items() if r <= workload.resolution]
        expected = {"toonhead": 0, "cat-256": 4992, "car-512": 5056, "face-1024": 5088, "ffhq-512": 6016}[name]
        assert workload.num_features == expected
        assert workload.family != "stylegan1" or sum(channels) == expected


def test_contenders_of_a_tiny_workload_label_alike(tmp_path: Path) -> None:
    smaller = replace(TINY, resolution=8, first_row=2, num_rows=4, num_features=2048)
    generator = make_generator(smaller)
    interpreter = make_interpreter(smaller, generator)
    bundle = write_bundle("tiny", smaller, tmp_path, batch_size=2)
    assert write_bundle("tiny", smaller, tmp_path, batch_size=2) == bundle  # made once
    z = latents(1, np.arange(2, dtype=np.uint64), 512)
    with torch.inference_mode():
        features = generator.synthesis(generator.mapping(torch.from_numpy(z[:1])), "const").features
        label, divergence = ReferenceLabels(smaller, interpreter)(features)
    assert np.bincount(label.numpy()).max() < 0.9 * label.numel()
    model = load_model(bundle)
    fused = load_engine(model.bundle, EngineChoice(engine="fused", kernel="avx2"))
    assert fused.describe()["kernel"] == "avx2"  # where the summary finds it
    for engine in (model.engine, fused):
        batch = engine.run(LatentInputs(z=z, truncation_psi=np.ones(2, np.float32)))
        assert batch.label.shape == (2, 8, 16)
        assert (batch.label[0].reshape(-1) == label.numpy()).mean() > 0.99
        np.testing.assert_allclose(batch.uncertainty_map[0].reshape(-1), divergence.numpy(), atol=2e-3)


def test_bundles_of_each_precision_have_a_folder_of_their_own(tmp_path: Path) -> None:
    smaller = replace(TINY, resolution=8, first_row=2, num_rows=4, num_features=2048)
    paths = [write_bundle("tiny", smaller, tmp_path, 1, precision) for precision in ("float32", "float16")]
    assert [path.name for path in paths] == ["tiny-1", "tiny-1-float16"]
    models = [load_model(path) for path in paths]
    assert [model.bundle.manifest.precision for model in models] == ["float32", "float16"]
    inputs = LatentInputs(z=latents(1, np.arange(1, dtype=np.uint64), 512), truncation_psi=np.ones(1, np.float32))
    [wide, half] = [model.engine.run(inputs).label for model in models]
    assert (wide == half).mean() >= 0.98


@pytest.mark.parametrize(
    ("given", "expected"),
    [([], "float32"), (["--device", "cuda"], "float16"), (["--device", "cuda", "--precision", "float32"], "float32")],
)
def test_generator_is_in_float16_on_a_gpu_unless_asked_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], expected: str
) -> None:
    asked = []

    def measure(_: str, settings: WorkloadSettings) -> dict[str, Contender]:
        asked.append(settings.precision)
        return {"onnxruntime": Contender(description={"precision": settings.precision}, turns_ns=[[1]])}

    monkeypatch.setattr(command, "measure", measure)
    assert main(["cat-256", "--out", str(tmp_path), *given]) == 0
    assert asked == [expected]
    [result] = tmp_path.glob("*.json")
    entry = json.loads(result.read_text(encoding="utf-8"))["workloads"]["cat-256"]["contenders"]["onnxruntime"]
    assert entry["precision"] == expected


def test_table_names_precisions_where_they_differ(tmp_path: Path) -> None:
    seen = {
        "reference": Contender(
            description={**RATES, "rates": {**RATES["rates"], "gemm_float16": 1e10}}, turns_ns=[[9]]
        ),
        "fused-cuda": Contender(
            description={"precision": "float16", "numerics": {"engine": {"kernel": "gpu-float16"}}},
            turns_ns=[[3]],
            stages_ns=[{"synthesis": 80_000_000, "interpreter": 20_000_000}],
        ),
    }
    settings = WorkloadSettings(cache=tmp_path, device="cuda", precision="float16")
    document = summarize("cat-256", seen, settings)
    assert document["contenders"]["fused-cuda"]["times_their_floor"] == {"synthesis": 2.0, "interpreter": 2.0}
    table = draw_table({"workloads": {"cat-256": document}})
    assert [line.split("|")[3].strip() for line in table.splitlines() if "cat-256" in line] == ["float32", "float16"]
    del seen["fused-cuda"]
    assert "precision" not in draw_table({"workloads": {"cat-256": summarize("cat-256", seen, settings)}})


def test_operations_of_the_interpreter_by_hand() -> None:
    config = make_interpreter(TINY, make_generator(TINY)).config
    units, pixels = 3 * 8, 8 * 16
    # Rows 4 to 11 of 16 lie between rows 1 and 6 of the level of 8, and between 0 and 3 of that of 4.
    by_hand = 1024 * units * (4 * 4 + 8 * 6 + pixels) + 3 * (8 * 8 + 8 * 3) * pixels
    assert count_interpreter(config, TINY) == 2 * by_hand


def test_contender_that_labels_otherwise_is_no_contender() -> None:
    truth = (np.array([[0, 1, 2, 1]], np.uint8), np.zeros((1, 4), np.float32))
    other = (np.array([[0, 1, 1, 1]], np.uint8), np.zeros((1, 4), np.float32))
    seen = Contender(description={})
    compare_labels("fused", "reference", truth, truth, seen)
    assert seen.label_agreement == 1.0
    with pytest.raises(ParityError, match=r"fused gives 75\.000% of the labels of reference"):
        compare_labels("fused", "reference", other, truth, seen)


def test_summary_compares_with_the_reference_and_the_floor(tmp_path: Path) -> None:
    description = {
        "rates": {"gemm_float32": 1e9, "gemm_bfloat16": 2e9, "copy_bytes": 1e9},
        "generator_operations": 4e8,
        "interpreter_operations": 1e8,
        "reference_operations": 3e9,
    }
    reference = Contender(description=description, turns_ns=[[6_000_000_000]] * 3, peak_rss_bytes=10)
    stages = {"mapping": 1_000_000, "synthesis": 600_000_000, "interpreter": 100_000_000}
    fused = Contender(
        description={"digest": "0123", "batch_size": 4, "numerics": {"engine": {"kernel": "avx512bf16"}}},
        turns_ns=[[1_000_000_000, 1_000_000_000]] * 3,
        stages_ns=[stages] * 6,
    )
    document = summarize("cat-256", {"reference": reference, "fused": fused}, WorkloadSettings(cache=tmp_path))
    entry = document["contenders"]["fused"]
    assert entry["batch_size"] == 4
    assert entry["ms_a_picture"]["n"] == 6
    assert entry["times_the_reference"] == 6.0
    assert entry["share_of_float32_floor"] == 0.5  # half a second of arithmetic
    assert entry["stages_ms"] == {"mapping": 1.0, "synthesis": 600.0, "interpreter": 100.0}
    # 0.4 s of arithmetic in float32, and 0.05 s in bfloat16.
    assert entry["times_their_floor"] == {"synthesis": 1.5, "interpreter": 2.0}
    assert document["digest"] == "0123"
    assert document["reference_share_of_gemm_rate"] == 0.5
    assert document["reaches_goal"] is False
    assert "| cat-256" in draw_table({"workloads": {"cat-256": document}})
    plot_stages({"cat-256": document}, tmp_path / "stages.png")
    with Image.open(tmp_path / "stages.png") as picture:
        assert picture.width > 500


def test_page_of_the_committed_results_names_their_command() -> None:
    document = json.loads((RESULTS_FOLDER / "workloads.json").read_text(encoding="utf-8"))
    page = (RESULTS_FOLDER / "workloads.md").read_text(encoding="utf-8")
    assert page == draw_page(document)
    assert "Made by `python -m benchmarks.workloads " in page


def test_commands_of_workloads_are_theirs_or_for_earlier_results_measure_the_same_workloads() -> None:
    together = "python -m benchmarks.workloads cat-256 car-512"
    assert find_commands({"cat-256": {}, "car-512": {}}) == {"cat-256": together, "car-512": together}
    assert find_commands({"cat-256": {"command": "its own"}}) == {"cat-256": "its own"}


def test_summary_on_a_gpu_has_its_own_goals_and_floor(tmp_path: Path) -> None:
    """Made-up times: nothing was measured."""
    description = {
        "rates": {"gemm_float32": 1e13, "gemm_bfloat16": 1e14, "gemm_float16": 1e14, "copy_bytes": 1e12},
        "generator_operations": 6e10,
        "interpreter_operations": 4e10,
        "reference_operations": 3e11,
    }
    reference = Contender(description=description, turns_ns=[[99_000_000]] * 3, peak_device_bytes=12_000_000_000)
    described = {"numerics": {"engine": {"kernel": "gpu-float16"}}}
    stages = {"synthesis": 12_000_000, "interpreter": 800_000}
    fused = Contender(
        description=described, turns_ns=[[1_000_000]] * 3, stages_ns=[stages], peak_device_bytes=2_000_000_000
    )
    settings = WorkloadSettings(cache=tmp_path, device="cuda")
    document = summarize("car-512", {"reference": reference, "fused-cuda": fused}, settings)
    entry = document["contenders"]["fused-cuda"]
    assert entry["pictures_a_second"] == 1000.0
    assert entry["share_of_float16_floor"] == 1.0
    assert entry["times_their_floor"] == {"synthesis": 2.0, "interpreter": 2.0}  # the second in float16
    assert document["goal_pictures_a_second"] == 1000.0
    assert document["reaches_goal"] is False  # 99 times as fast as the reference, not 100
    last = draw_table({"workloads": {"car-512": document}}).splitlines()[-1]
    assert [cell.strip() for cell in last.split("|")][3:10] == ["1.00", "1000.00", "99.0", "10.00", "1.00", "", "2.00"]
    assert "reaches_goal" not in summarize("toonhead", {"fused-cuda": fused}, settings)


RATES: Document = {
    "rates": {"gemm_float32": 1e9, "copy_bytes": 1e9},
    "generator_operations": 4e8,
    "interpreter_operations": 1e8,
    "reference_operations": 3e9,
}


def test_processor_is_not_held_against_the_floor_of_a_gpu(tmp_path: Path) -> None:
    seen = {
        "reference": Contender(description=RATES, turns_ns=[[6_000_000_000]]),
        "fused": Contender(
            description={"numerics": {"engine": {"kernel": "avx2"}}},
            turns_ns=[[1_000_000_000]],
            stages_ns=[{"synthesis": 600_000_000, "interpreter": 100_000_000}],
        ),
    }
    [there, here] = [
        summarize("cat-256", seen, WorkloadSettings(cache=tmp_path, device=device))["contenders"]["fused"]
        for device in ("cuda", "cpu")
    ]
    assert not {"share_of_float32_floor", "times_their_floor"} & there.keys()
    assert {"share_of_float32_floor", "times_their_floor"} <= here.keys()


def test_floor_in_a_dtype_that_is_emulated_is_left_out(tmp_path: Path) -> None:
    fused = Contender(
        description={"numerics": {"engine": {"kernel": "avx512bf16"}}},
        turns_ns=[[1_000_000_000]],
        stages_ns=[{"synthesis": 600_000_000, "interpreter": 100_000_000}],
    )
    seen = {"reference": Contender(description=RATES, turns_ns=[[6_000_000_000]]), "fused": fused}
    document = summarize("cat-256", seen, WorkloadSettings(cache=tmp_path))
    assert document["contenders"]["fused"]["times_their_floor"] == {"synthesis": 1.5}


def test_speed_against_the_reference_is_the_median_of_the_rounds(tmp_path: Path) -> None:
    """The machine is slower in the second and third round, for both."""
    seen = {
        "reference": Contender(description=RATES, turns_ns=[[10], [40], [100]]),
        "fused": Contender(description={}, turns_ns=[[5, 5], [20, 20], [10, 10]]),
    }
    document = summarize("cat-256", seen, WorkloadSettings(cache=tmp_path))
    assert document["contenders"]["fused"]["times_the_reference"] == 2.0  # of 2, 2 and 10; medians of all: 4


class Gpu:
    """Of whose memory others hold 5 bytes, and the engine 7."""

    held = iter((5, 12))

    def allocated_bytes(self) -> int:
        return next(self.held)


def test_engine_times_its_runs_and_tells_what_it_alone_holds_of_a_gpu(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["engines", "--bundle", str(tiny), "--engine", "onnxruntime", "--provider", "cuda"]
    )
    monkeypatch.setattr(engines, "find_provider", lambda _: None)
    monkeypatch.setattr(engines, "CudaDevice", Gpu)
    monkeypatch.setattr(engines, "load_model", lambda bundle, _: load_model(bundle))
    description, answer = engines._prepare()
    rows = description["batch_size"]
    assert rows > 1
    answered: Document = {**answer({"seed": 1, "first_index": 1, "count": 2 * rows, "labels": ""})}
    assert len(answered["runs"]) == 2, "one time a run, not one a row"
    assert answered["peak_device_bytes"] == 7


def test_turn_of_an_engine_is_whole_runs(tmp_path: Path) -> None:
    asked = []

    class Recorder:
        description: ClassVar[dict[str, int]] = {"batch_size": 4}

        def ask(self, request: dict[str, int], *, timeout_s: float) -> dict[str, object]:
            asked.append(request["count"])
            return {"runs": [{"total_ns": 1, "stages_ns": {}}], "peak_rss_bytes": 1, "peak_device_bytes": None}

    seen = Contender(description={})
    for pictures in (1, 3, 4, 5):
        settings = WorkloadSettings(cache=tmp_path, pictures=pictures)
        measuring._take_turn(cast(Worker, Recorder()), settings, "fused", 0, seen)
    assert asked == [4, 4, 4, 8]


def test_workload_that_no_contender_can_run_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["toonhead", "--contenders", "reference", "compiled", "--out", str(tmp_path)]) == 1
    assert "toonhead can be run by engines alone, but the contenders are reference, compiled" in capsys.readouterr().err


def test_workloads_before_one_that_fails_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(name: str, _: WorkloadSettings) -> dict[str, Contender]:
        if name == "car-512":
            raise WorkerError("memory ran out")
        return {"onnxruntime": Contender(description={}, turns_ns=[[1]])}

    monkeypatch.setattr(command, "measure", measure)
    assert main(["cat-256", "car-512", "--out", str(tmp_path)]) == 1
    assert "memory ran out" in capsys.readouterr().err
    document = json.loads((tmp_path / "workloads.json").read_text(encoding="utf-8"))
    assert list(document["workloads"]) == ["cat-256"]
    assert "| cat-256 " in (tmp_path / "workloads.md").read_text(encoding="utf-8")
    (tmp_path / "workloads.json").write_text("[]", encoding="utf-8")
    assert main(["cat-256", "--out", str(tmp_path)]) == 1
    assert "workloads.json holds no measured workloads" in capsys.readouterr().err


def test_votes_that_tie_go_to_the_lowest_class() -> None:
    votes = torch.randint(0, 5, (6, 1000), generator=torch.Generator().manual_seed(0))
    expected, num_ties = [], 0
    for pixel in votes.t().tolist():
        most = max(pixel.count(label) for label in range(5))
        winners = [label for label in range(5) if pixel.count(label) == most]
        expected.append(winners[0])
        num_ties += len(winners) > 1
    assert most_frequent(votes, 5).tolist() == expected
    assert num_ties > 100


def test_device_that_is_missing_is_said() -> None:
    if torch.cuda.is_available():
        pytest.skip("this torch sees a GPU")
    with pytest.raises(DeviceError, match=r"device is 'cuda', but torch .* sees no GPU"):
        open_device("cuda")


def test_gpu_benchmark_ends_with_a_message_where_there_is_no_gpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command of the README, as far as this machine goes: workers start, and say what is missing."""
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    assert main(["--device", "cuda", "toonhead", "--out", str(tmp_path)]) == 1
    assert "provider 'cuda' needs CUDAExecutionProvider" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
