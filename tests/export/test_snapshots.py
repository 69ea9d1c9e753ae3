"""Weights on disk: read back exactly, and refused when anything about them is wrong."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from labelmint_export.errors import CheckpointError, OutputError
from labelmint_export.generator import Generator
from labelmint_export.generator.snapshots import load_generator, save_generator
from labelmint_export.interpreter.ensemble import Interpreter
from labelmint_export.interpreter.storage import load_interpreter, save_interpreter
from labelmint_export.oracle.network import Segmenter, SegmenterConfig, load_segmenter, save_segmenter
from labelmint_export.stored import read_json, read_metadata, read_tensors, sha256_of_files, write_tensors
from tests.export.tiny_parts import make_generator


@pytest.fixture
def saved(generator: Generator, tmp_path: Path) -> Path:
    path = tmp_path / "generator.safetensors"
    save_generator(generator, path, {"images_seen": 7})
    return path


def edit_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def edit_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path)


def test_generator_is_read_back_exactly(generator: Generator, saved: Path) -> None:
    loaded = load_generator(saved)
    assert loaded.config == generator.config
    assert not loaded.training
    for name, tensor in generator.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    z = torch.randn(2, 8)
    assert torch.equal(loaded(z).image, generator(z).image)
    assert json.loads(saved.with_suffix(".json").read_text())["provenance"] == {"images_seen": 7}


def test_conditional_grey_generator_is_read_back(tmp_path: Path) -> None:
    generator = make_generator(c_dim=3, image_channels=1)
    save_generator(generator, tmp_path / "g.safetensors")
    loaded = load_generator(tmp_path / "g.safetensors")
    z, c = torch.randn(2, 8), torch.eye(3)[:2]
    assert torch.equal(loaded(z, c).image, generator(z, c).image)


def test_interpreter_is_read_back_exactly(interpreter: Interpreter, tmp_path: Path) -> None:
    save_interpreter(interpreter, tmp_path / "i.safetensors", {"steps": 1})
    loaded = load_interpreter(tmp_path / "i.safetensors")
    assert loaded.config == interpreter.config
    assert not loaded.training
    for name, tensor in interpreter.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_segmenter_is_read_back_exactly(tmp_path: Path) -> None:
    network = Segmenter(SegmenterConfig(num_classes=3, num_keypoints=2, widths=(4, 6))).eval()
    save_segmenter(network, tmp_path / "s.safetensors", {"miou": 0.5})
    loaded = load_segmenter(tmp_path / "s.safetensors")
    x = torch.rand(1, 3, 16, 16)
    for got, expected in zip(loaded(x), network(x), strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda t: t.pop("mapping.w_avg"), "mapping.w_avg"),
        (lambda t: t.update(extra=torch.zeros(1)), "extra"),
        (lambda t: t.update({"mapping.w_avg": torch.zeros(11)}), "mapping.w_avg"),
        (lambda t: t["synthesis.blocks.b8.conv0.bias"].fill_(torch.nan), "synthesis.blocks.b8.conv0.bias"),
        (lambda t: t["mapping.w_avg"].fill_(torch.inf), "mapping.w_avg"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    saved: Path, change: Callable[[dict[str, torch.Tensor]], None], field: str
) -> None:
    edit_tensors(saved, change)
    with pytest.raises(CheckpointError, match=field) as caught:
        load_generator(saved)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda r: r.update(format="other"), "format"),
        (lambda r: r.update(format_version=99), "format"),
        (lambda r: r.pop("config"), "config"),
        (lambda r: r.update(config=[1, 2]), "config"),
        (lambda r: r["config"].pop("channels"), "config"),
        (lambda r: r["config"].update(unknown=1), "config"),
        (lambda r: r["config"].update(resolution="16"), "config"),
        (lambda r: r["config"].update(resolution=10**12), "config"),
        (lambda r: r["config"].update(z_dim=2.5), "config"),
        (lambda r: r["config"].update(z_dim=None), "config"),
        (lambda r: r["config"].update(mapping_layers=10**9), "config"),
        (lambda r: r["config"].update(channels=[8, 7, 6]), "config"),
        (lambda r: r["config"].update(channels={"4": -3, "8": 7, "16": 6}), "config"),
        (lambda r: r["config"].update(channels={"4": float("inf"), "8": 7, "16": 6}), "config"),
        (lambda r: r["config"].update(channels={"4": 10**400, "8": 7, "16": 6}), "config"),
    ],
)
def test_description_that_makes_no_sense_is_refused(
    saved: Path, change: Callable[[dict[str, Any]], None], field: str
) -> None:
    edit_json(saved.with_suffix(".json"), change)
    with pytest.raises(CheckpointError) as caught:
        load_generator(saved)
    assert caught.value.field == field


def test_description_that_claims_too_much_takes_no_memory(saved: Path) -> None:
    """65,536 x 65,536 weights would be 17 GB a layer."""

    def claim(record: dict[str, Any]) -> None:
        record["config"].update(w_dim=65536, z_dim=65536, mapping_layers=64)

    edit_json(saved.with_suffix(".json"), claim)
    with pytest.raises(CheckpointError, match=r"described as a network of \d+ numbers, expected at most"):
        load_generator(saved)


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_missing_file_is_named(saved: Path, suffix: str) -> None:
    saved.with_suffix(suffix).unlink()
    with pytest.raises(CheckpointError, match=f"generator{suffix} does not exist") as caught:
        load_generator(saved)
    assert caught.value.field == "path"


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
@pytest.mark.parametrize("keep", [0, 5, 100])
def test_truncated_file_is_refused(saved: Path, suffix: str, keep: int) -> None:
    path = saved.with_suffix(suffix)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=suffix) as caught:
        load_generator(saved)
    assert caught.value.field == "path"


def test_half_of_the_weights_is_refused(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[: saved.stat().st_size // 2])
    with pytest.raises(CheckpointError):
        load_generator(saved)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64])
def test_weights_of_a_type_that_no_generator_has_are_refused(saved: Path, dtype: torch.dtype) -> None:
    edit_tensors(saved, lambda t: t.update({"mapping.w_avg": t["mapping.w_avg"].to(dtype)}))
    with pytest.raises(CheckpointError, match=r"has dtype torch\.\w+, expected float16, bfloat16 or float32"):
        load_generator(saved)


@pytest.mark.parametrize("count", [20_000, 100_000])
def test_file_of_more_tensors_than_anybody_has_is_refused_before_they_are_made(tmp_path: Path, count: int) -> None:
    """Each costs a tenth of a millisecond: a few megabytes of names took minutes."""
    entry = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = ("{" + ",".join(f'"{index}":{entry}' for index in range(count)) + "}").encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    for read in (read_tensors, read_metadata):
        with pytest.raises(CheckpointError, match=r"its header has \d+ bytes, expected at most 1048576") as caught:
            read(tmp_path / "x.safetensors")
        assert caught.value.field == "path"


def test_module_larger_than_any_is_refused_before_it_is_made(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelmint_export.stored.MAX_NUMBERS", 1000)
    with pytest.raises(CheckpointError, match=r"is described as a network of \d+ numbers, expected at most 1000"):
        load_generator(saved)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_description_that_is_a_pipe_is_refused(saved: Path) -> None:
    saved.with_suffix(".json").unlink()
    os.mkfifo(saved.with_suffix(".json"))
    with pytest.raises(CheckpointError, match="a folder, a device or a pipe"):
        load_generator(saved)


def test_description_that_is_too_large_is_not_read(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelmint_export.stored.MAX_JSON_BYTES", 100)
    with pytest.raises(CheckpointError, match="more than 100 bytes"):
        load_generator(saved)


@pytest.mark.parametrize("text", [b"[1, 2]", b"\xff\xfe", b"{", b"[" * 200_000, b'{"a": ' * 200_000])
def test_json_that_is_no_object_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "x.json").write_bytes(text)
    with pytest.raises(CheckpointError, match=r"x\.json"):
        read_json(tmp_path / "x.json")


class _Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (Path.touch, (self.target,))


def test_pickled_weights_are_refused_and_not_executed(saved: Path, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    bait = pickle.dumps(_Trap(touched))
    pickle.loads(bait)
    assert touched.exists(), "the bait does not work"
    touched.unlink()

    saved.write_bytes(bait)
    with pytest.raises(CheckpointError):
        load_generator(saved)
    torch.save(_Trap(touched), saved)
    with pytest.raises(CheckpointError):
        load_generator(saved)
    assert not touched.exists()


def test_header_that_points_outside_the_file_is_refused(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 10**9]}}).encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 16)
    with pytest.raises(CheckpointError):
        read_tensors(tmp_path / "x.safetensors")


def test_digest_of_files_is_that_of_their_bytes_in_a_row(tmp_path: Path) -> None:
    for name, data in (("a", b"1" * 300_000), ("b", b""), ("c", b"2")):
        (tmp_path / name).write_bytes(data)
    expected = hashlib.sha256(b"2" + b"1" * 300_000).hexdigest()
    assert sha256_of_files([tmp_path / name for name in "cba"]) == expected


@pytest.mark.parametrize("error", [OSError, safetensors.SafetensorError])
def test_failed_write_leaves_the_old_file_and_nothing_else(
    saved: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    before = saved.read_bytes()

    def fail(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise error("no space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", fail)
    with pytest.raises(OutputError, match=r"generator\.safetensors cannot be written \(no space left on device\)"):
        write_tensors(saved, {"a": torch.zeros(1)})
    assert saved.read_bytes() == before
    assert sorted(path.name for path in saved.parent.iterdir()) == ["generator.json", "generator.safetensors"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_tensors_may_be_read_by_whom_the_other_files_are_read_by(saved: Path) -> None:
    (saved.parent / "other").touch()
    assert saved.stat().st_mode == (saved.parent / "other").stat().st_mode == saved.with_suffix(".json").stat().st_mode


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.update(format="labelmint-generator"),
        lambda r: r["config"].update(taps=[]),
        lambda r: r["config"].update(taps=[{"name": "b4.conv1"}]),
        lambda r: r["config"]["taps"][0].update(channels="8"),
        lambda r: r["config"].update(num_classes=1),
        lambda r: r["config"].update(num_members="5"),
        lambda r: r["config"].update(num_members=2.5),
        lambda r: r["config"].update(hidden_widths=[12]),
        lambda r: r["config"].update(hidden_widths=[12, 0]),
        lambda r: r["config"].update(num_keypoints=-1),
        lambda r: r["config"].update(hidden_widths=[2**40, 2**40]),
        lambda r: r["config"].update(surprise=1),
        lambda r: r.pop("config"),
    ],
)
def test_interpreter_description_that_makes_no_sense_is_refused(
    interpreter: Interpreter, tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    save_interpreter(interpreter, tmp_path / "i.safetensors", {})
    edit_json(tmp_path / "i.json", change)
    with pytest.raises(CheckpointError):
        load_interpreter(tmp_path / "i.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.update(format="?"),
        lambda r: r.update(widths=[]),
        lambda r: r.update(widths=[4, -6]),
        lambda r: r.update(widths="wide"),
        lambda r: r.update(num_classes=10**12),
        lambda r: r.pop("num_keypoints"),
        lambda r: r.update(num_classes=4),
    ],
)
def test_segmenter_description_that_makes_no_sense_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    network = Segmenter(SegmenterConfig(num_classes=3, num_keypoints=2, widths=(4, 6)))
    save_segmenter(network, tmp_path / "s.safetensors", {})
    edit_json(tmp_path / "s.json", change)
    with pytest.raises(CheckpointError):
        load_segmenter(tmp_path / "s.safetensors")
