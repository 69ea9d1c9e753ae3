"""The GPUs are named as the driver lists them, and only where the engine runs on one."""

from pathlib import Path

import pytest

from labelmint.bundle import open_bundle
from labelmint_service.engine import onnxruntime_engine
from labelmint_service.engine.graphics import describe_graphics
from labelmint_service.engine.onnxruntime_engine import OnnxRuntimeEngine

PROPRIETARY = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023\nGCC version:  gcc 12\n"
)
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86  Release Build  (builder)  Tue\n"


def write_driver(folder: Path, version: str, *models: str) -> Path:
    folder.mkdir()
    (folder / "version").write_text(version, encoding="utf-8")
    for number, model in enumerate(models):
        (folder / "gpus" / f"0000:0{number}:00.0").mkdir(parents=True)
        text = f"Model: \t\t {model}\nIRQ:   \t\t {number}\nGPU UUID: \t GPU-{number}\nBus Type: \t PCIe\n"
        (folder / "gpus" / f"0000:0{number}:00.0" / "information").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(("text", "version"), [(PROPRIETARY, "535.129.03"), (OPEN, "570.86"), ("NVRM\n", None)])
def test_driver_version_is_read(tmp_path: Path, text: str, version: str | None) -> None:
    assert describe_graphics(write_driver(tmp_path / "nvidia", text))["driver"] == version


def test_models_are_listed_sorted_and_once(tmp_path: Path) -> None:
    driver = write_driver(tmp_path / "nvidia", OPEN, "NVIDIA L4", "NVIDIA H100 80GB HBM3", "NVIDIA L4")

    assert describe_graphics(driver)["models"] == ["NVIDIA H100 80GB HBM3", "NVIDIA L4"]


def test_two_cards_of_a_model_are_described_alike(tmp_path: Path) -> None:
    one = write_driver(tmp_path / "one", OPEN, "NVIDIA L4")
    two = write_driver(tmp_path / "two", OPEN, "NVIDIA L4", "NVIDIA L4")

    assert describe_graphics(one) == describe_graphics(two)


def test_machine_without_a_driver_has_none(tmp_path: Path) -> None:
    assert describe_graphics(tmp_path / "none") == {"driver": None, "models": []}


@pytest.mark.parametrize(("provider", "is_described"), [("cuda", True), ("cpu", False)])
def test_graphics_are_part_of_the_numerics_on_cuda_only(
    bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch, provider: str, is_described: bool
) -> None:
    engine = OnnxRuntimeEngine(open_bundle(bundles["tiny"]))
    monkeypatch.setattr(engine, "_provider_name", provider)  # describing needs no GPU
    monkeypatch.setattr(onnxruntime_engine, "describe_graphics", lambda: {"driver": "1.2", "models": ["NVIDIA L4"]})

    assert ("graphics" in engine.describe()) is is_described
