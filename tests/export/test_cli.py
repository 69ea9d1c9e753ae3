"""The commands, one after another as the README has them, and what they say to bad input."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.torch
import torch
from PIL import Image

from labelmint.bundle import open_bundle
from labelmint_export.annotations import read_annotations
from labelmint_export.cli import main, make_parser
from labelmint_export.commands import gan
from labelmint_export.datasets.toonhead import CLASS_NAMES, KEYPOINT_NAMES, ToonHeadSet
from labelmint_export.errors import AnnotationError
from labelmint_export.generator import TapSpec
from labelmint_export.generator.snapshots import load_generator
from labelmint_export.interpreter.ensemble import Interpreter
from labelmint_export.interpreter.storage import load_interpreter, save_interpreter
from labelmint_export.oracle.network import Segmenter, SegmenterConfig, save_segmenter
from labelmint_export.oracle.sets import load_labelled
from tests.export.tiny_parts import make_generator, make_interpreter

GAN = ["--resolution", "16", "--channels", "4:8,8:8,16:8,32:8", "--z-dim", "8", "--w-dim", "8", "--mapping-layers", "1"]
GAN += ["--batch-size", "4", "--compute-dtype", "float32"]
TERMS = ["--weights-licence", "CC0-1.0", "--data-licence", "CC-BY-4.0", "--attribution", "Someone"]


def run(*arguments: object) -> str:
    """Run a command that must succeed; returns what it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = main([str(argument) for argument in arguments])
    assert status == 0, arguments
    return printed.getvalue()


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every stage has run once."""
    root = tmp_path_factory.mktemp("work")
    run("render", "--out", root / "train.npy", "--count", 8, "--resolution", 32, "--processes", 1)
    labelled = ["--labels", "--resolution", 32, "--processes", 1]
    run("render", "--out", root / "train.npz", "--count", 8, *labelled)
    run("render", "--out", root / "test.npz", "--count", 3, "--split", "test", *labelled)
    sets = ["--train", root / "train.npz", "--test", root / "test.npz"]
    run("train-oracle", *sets, "--out", root / "oracle.safetensors", "--steps", 3, "--batch-size", 4)
    run("train-gan", "--pictures", root / "train.npy", "--out", root / "gan", "--total-images", 8, *GAN)
    generator = ["--generator", root / "gan" / "generator.safetensors"]
    run(
        "label",
        *generator,
        "--oracle",
        root / "oracle.safetensors",
        "--out",
        root / "labels",
        "--count",
        3,
        "--diverse",
    )
    annotations = ["--annotations", root / "labels"]
    small = ["--members", 3, "--hidden", 6, 4, "--steps", 4]
    run("train-interpreter", *generator, *annotations, "--out", root / "made" / "interpreter.safetensors", *small)
    parts = [*generator, "--interpreter", root / "made" / "interpreter.safetensors"]
    few = ["--calibration-samples", 4, "--parity-samples", 1, "--batch-size", 2, "--psi-grid", 1.0, 0.6]
    run("build", *parts, *annotations, "--out", root / "bundle", "--name", "tiny", *TERMS, *few)
    return root


# --- render -----------------------------------------------------------------------------------------------------------


def test_rendered_pictures_are_those_of_the_set(work: Path) -> None:
    pictures = np.load(work / "train.npy")
    assert pictures.shape == (8, 32, 32, 3)
    expected = ToonHeadSet(resolution=32)
    for index in range(8):
        assert np.array_equal(pictures[index], expected.render_image(index))


def test_rendered_labels_belong_to_the_pictures(work: Path) -> None:
    labelled = load_labelled(work / "train.npz")
    assert np.array_equal(labelled.pictures, np.load(work / "train.npy"))
    assert labelled.masks.max() < len(CLASS_NAMES)
    assert labelled.keypoints.shape == (8, len(KEYPOINT_NAMES), 3)
    assert not np.array_equal(load_labelled(work / "test.npz").pictures[:3], labelled.pictures[:3])


def test_pictures_of_a_folder_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for index, name in enumerate(("b.png", "a.jpg", "c.png")):
        Image.new("RGB", (40, 30), (index * 100, 0, 0)).save(tmp_path / "images" / name, quality=95)
    assert "3 pictures" in run(
        "render", "--out", tmp_path / "x.npy", "--images", tmp_path / "images", "--resolution", 8
    )
    pictures = np.load(tmp_path / "x.npy")
    assert pictures.shape == (3, 8, 8, 3)
    np.testing.assert_allclose(pictures[:, 4, 4, 0], [100, 0, 200], atol=3)


def test_folder_with_a_broken_image_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "a.png")
    (tmp_path / "images" / "b.png").write_bytes(b"no picture")
    arguments = ["render", "--out", tmp_path / "x.npy", "--images", tmp_path / "images", "--resolution", 8]
    assert main(list(map(str, arguments))) == 1
    assert "b.png cannot be read as an image" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_full_disk_is_one_line_that_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.npy.partial").symlink_to("/dev/full")
    arguments = ["render", "--out", tmp_path / "x.npy", "--count", 40, "--resolution", 32, "--processes", 1]
    assert main(list(map(str, arguments))) == 1
    assert "x.npy cannot be written ([Errno 28]" in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_more_pictures_than_fit_are_refused_before_one_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["render", "--out", tmp_path / "x.npy", "--count", 10**13, "--processes", 1]
    assert main(list(map(str, arguments))) == 1
    assert "x.npy takes 491520000000000000 bytes, but " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no SIGTERM that a process may answer")
def test_terminated_rendering_leaves_no_file_and_no_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "labelmint_export.cli", "render", "--out", str(tmp_path / "x.npy")]
    command += ["--count", "1000000", "--resolution", "32", "--processes", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        wait_until(lambda: (tmp_path / "x.npy.partial").exists() and (tmp_path / "x.npy.partial").stat().st_size > 0)
        process.terminate()
        _, printed = process.communicate(timeout=300)
    assert process.returncode == 143
    assert "labelmint-export: terminated" in printed
    assert list(tmp_path.iterdir()) == []
    wait_until(lambda: not group_lives(process.pid))


def wait_until(reached: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.05)


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


# --- train-gan --------------------------------------------------------------------------------------------------------


def test_training_goes_on_where_it_stopped_and_gives_what_one_run_gives(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train-gan", "--pictures", work / "train.npy", "--out"]
    run(*command, tmp_path / "whole", "--total-images", 16, *GAN)
    run(*command, tmp_path / "parts", "--total-images", 8, *GAN)
    capsys.readouterr()
    run(*command, tmp_path / "parts", "--total-images", 16, *GAN)
    assert "going on after 8 pictures" in capsys.readouterr().err
    whole, parts = (safetensors.torch.load_file(tmp_path / n / "state.safetensors") for n in ("whole", "parts"))
    assert [name for name, tensor in whole.items() if not torch.equal(tensor, parts[name])] == []


def test_training_grows_out_of_a_smaller_one(work: Path, tmp_path: Path) -> None:
    larger = [*GAN]
    larger[1] = "32"
    pictures = ["--pictures", work / "train.npy", "--out", tmp_path / "large", "--total-images", 4]
    run("train-gan", *pictures, "--start-from", work / "gan", *larger)
    assert load_generator(tmp_path / "large" / "generator.safetensors").config.resolution == 32
    record = json.loads((tmp_path / "large" / "log.jsonl").read_text())
    assert record["images"] == 12


def test_training_goes_on_without_its_settings_but_not_with_another_set(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(work / "gan", tmp_path / "gan")
    run("render", "--out", tmp_path / "other.npy", "--count", 8, "--resolution", 32, "--seed", 9, "--processes", 1)
    command = ["train-gan", "--out", tmp_path / "gan", "--total-images", 12]
    assert main([str(argument) for argument in [*command, "--pictures", tmp_path / "other.npy"]]) == 1
    assert "the training began with another set; give that one" in capsys.readouterr().err.splitlines()[-1]
    assert "12 pictures seen" in run(*command, "--pictures", work / "train.npy")


def test_oracle_goes_on_from_another_and_names_it(work: Path, tmp_path: Path) -> None:
    sets = ["--train", work / "train.npz", "--test", work / "test.npz", "--steps", 1, "--batch-size", 4]
    start = ["--start-from", work / "oracle.safetensors", "--learning-rate", 1e-9]
    printed = run("train-oracle", *sets, *start, "--out", tmp_path / "o.safetensors")
    assert json.loads(printed)["started_from"]["steps"] == 3
    old = safetensors.torch.load_file(work / "oracle.safetensors")
    new = safetensors.torch.load_file(tmp_path / "o.safetensors")
    torch.testing.assert_close(new["head.weight"], old["head.weight"], rtol=0, atol=1e-6)


def test_training_with_a_feature_network_logs_the_distance(work: Path, tmp_path: Path) -> None:
    network = ["--feature-network", work / "oracle.safetensors", "--frechet-images", 4]
    arguments = ["--pictures", work / "train.npy", "--out", tmp_path / "gan", "--total-images", 4]
    run("train-gan", *arguments, *GAN, *network)
    assert json.loads((tmp_path / "gan" / "log.jsonl").read_text())["frechet"] > 0


def test_distance_and_nearest_pictures(work: Path, tmp_path: Path) -> None:
    shared = ["--generator", work / "gan" / "generator.safetensors", "--pictures", work / "train.npy"]
    shared += ["--feature-network", work / "oracle.safetensors"]
    record = json.loads(run("frechet", *shared, "--count", 4))
    assert record["num_pictures"] == 4
    assert record["frechet"] > 0
    assert record["frechet_between_halves_of_the_set"] > 0
    # Pictures of the generator's size: the sheet shows both side by side.
    small = tmp_path / "small.npy"
    np.save(small, np.load(work / "train.npy")[:, ::2, ::2])
    shared[3] = small
    run("nearest", *shared, "--out", tmp_path / "nearest.png")
    with Image.open(tmp_path / "nearest.png") as sheet:
        assert sheet.size == (6 * 16, 8 * 16)


def test_curve_of_a_training_is_a_picture(work: Path, tmp_path: Path) -> None:
    measured = tmp_path / "measured.jsonl"
    records = [{"images": 8 + n, "resolution": 32, "frechet": 9.0 - n, "generator_loss": 1.0} for n in range(3)]
    measured.write_text("".join(json.dumps(record) + "\n" for record in records))
    run("curve", "--logs", work / "gan" / "log.jsonl", measured, "--out", tmp_path / "curve.png")
    reconstructed = tmp_path / "reconstructed.jsonl"
    reconstructed.write_text(json.dumps({"images": 8, "resolution": 16, "reconstruction": 0.3}) + "\n")
    run("curve", "--logs", reconstructed, "--out", tmp_path / "reconstructed.png")
    for name in ("curve", "reconstructed"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 5, "nothing was drawn"


def test_training_goes_on_from_networks_that_were_kept(work: Path, tmp_path: Path) -> None:
    run("keep-networks", "--training", work / "gan", "--out", tmp_path / "kept")
    pictures = ["--pictures", work / "train.npy", "--total-images", 8]
    run("train-gan", *pictures, "--out", tmp_path / "more", *GAN, "--start-from", tmp_path / "kept")
    first = json.loads((work / "gan" / "generator.json").read_text())["provenance"]
    more = json.loads((tmp_path / "more" / "generator.json").read_text())["provenance"]
    assert (first["images_seen"], more["images_seen"]) == (8, 16)


# --- annotations, interpreter, bundle ---------------------------------------------------------------------------------


def test_labelled_pictures_are_an_annotation_folder(work: Path) -> None:
    annotated = read_annotations(work / "labels")
    assert len(annotated) == 3
    assert annotated.schema.class_names == tuple(CLASS_NAMES)
    generator = load_generator(work / "gan" / "generator.safetensors")
    torch.testing.assert_close(generator.mapping(annotated.z), annotated.ws, rtol=0, atol=1e-6)


def test_sampled_pictures_wait_for_masks_and_are_read_once_these_are_drawn(work: Path, tmp_path: Path) -> None:
    out = tmp_path / "todo"
    generator = ["--generator", work / "gan" / "generator.safetensors"]
    printed = run(
        "sample", *generator, "--out", out, "--count", 2, "--classes", "ground", "thing", "--keypoints", "tip"
    )
    assert "give its files to import-annotations" in printed
    with pytest.raises(AnnotationError, match="is empty"):
        read_annotations(out)
    for path in out.glob("*.mask.png"):
        mask = Image.open(path)
        mask.paste(1, (0, 0, 8, 8))
        mask.save(path)
    annotated = read_annotations(out)
    assert annotated.schema.class_names == ("ground", "thing")
    assert sorted(np.unique(annotated.masks).tolist()) == [1, 255]
    assert not annotated.keypoints.any()


def test_interpreter_states_what_it_was_trained_from(work: Path) -> None:
    path = work / "made" / "interpreter.safetensors"
    interpreter = load_interpreter(path)
    assert interpreter.config.num_members == 3
    assert interpreter.config.hidden_widths == (6, 4)
    assert interpreter.config.num_classes == len(CLASS_NAMES)
    provenance = json.loads(path.with_suffix(".json").read_text())["provenance"]
    assert provenance["num_annotated_images"] == 3
    assert len(provenance["annotations_sha256"]) == len(provenance["generator_sha256"]) == 64


def test_interpreter_follows_from_annotations_and_seed_alone(work: Path, tmp_path: Path) -> None:
    arguments = ["--generator", work / "gan" / "generator.safetensors", "--annotations", work / "labels"]
    small = ["--members", 3, "--hidden", 6, 4, "--steps", 4]
    torch.manual_seed(77)
    run("train-interpreter", *arguments, "--out", tmp_path / "again.safetensors", *small)
    again, first = (
        safetensors.torch.load_file(path)
        for path in (tmp_path / "again.safetensors", work / "made" / "interpreter.safetensors")
    )
    assert [name for name, tensor in first.items() if not torch.equal(tensor, again[name])] == []


def test_some_taps_are_enough(work: Path, tmp_path: Path) -> None:
    arguments = ["--generator", work / "gan" / "generator.safetensors", "--annotations", work / "labels"]
    taps = ["--taps", "b16.conv1", "b4.conv1"]
    run("train-interpreter", *arguments, "--out", tmp_path / "i.safetensors", "--steps", 2, "--members", 2, *taps)
    interpreter = load_interpreter(tmp_path / "i.safetensors")
    assert [tap.name for tap in interpreter.config.taps] == ["b4.conv1", "b16.conv1"]


def test_report_scores_unseen_pictures(work: Path) -> None:
    arguments = ["--generator", work / "gan" / "generator.safetensors", "--annotations", work / "labels"]
    arguments += ["--interpreter", work / "made" / "interpreter.safetensors", "--oracle", work / "oracle.safetensors"]
    record = json.loads(run("report", *arguments, "--count", 5))
    assert record["num_pictures"] == 5
    assert 0 <= record["miou"] <= 1
    assert record["iou"].keys() == set(CLASS_NAMES)
    assert 0 <= record["pck_at_0_1"] <= 1


def test_scores_are_json_where_a_class_is_nowhere(work: Path, tmp_path: Path) -> None:
    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"JSON has no {constant}")

    arguments = ["--generator", work / "gan" / "generator.safetensors", "--annotations", work / "labels"]
    arguments += ["--interpreter", work / "made" / "interpreter.safetensors", "--oracle", work / "oracle.safetensors"]
    record = json.loads(run("report", *arguments, "--count", 1), parse_constant=refuse)
    assert None in record["iou"].values()
    one = dict(np.load(work / "test.npz"))
    one["masks"] = np.where(one["masks"] < 2, one["masks"], 0)
    np.savez(tmp_path / "test.npz", **one)
    path = tmp_path / "o.safetensors"
    sets = ["--train", work / "train.npz", "--test", tmp_path / "test.npz"]
    run("train-oracle", *sets, "--out", path, "--steps", 1, "--batch-size", 4)
    json.loads(path.with_suffix(".json").read_text(), parse_constant=refuse)


def test_built_bundle_is_described_by_its_options(work: Path) -> None:
    manifest = open_bundle(work / "bundle").manifest
    assert manifest.name == "tiny"
    assert (manifest.licence.weights, manifest.licence.data) == ("CC0-1.0", "CC-BY-4.0")
    assert manifest.runtime.batch_size == 2
    assert [table.truncation_psi for table in manifest.score_quantiles] == pytest.approx([0.6, 1.0])
    assert manifest.provenance.num_annotated_images == 3
    assert len(manifest.provenance.checkpoint_sha256) == 64


def test_built_bundle_verifies_alone_and_beside_its_sources(work: Path) -> None:
    alone = run("verify", work / "bundle", "--samples", 2)
    assert "hashes agree" in alone
    parts = ["--generator", work / "gan" / "generator.safetensors"]
    parts += ["--interpreter", work / "made" / "interpreter.safetensors"]
    assert "onnx_vs_reference.label_agreement" in run("verify", work / "bundle", "--samples", 2, *parts)


# --- bad input --------------------------------------------------------------------------------------------------------

Command = Callable[[Path, Path], list[object]]
GAN_TAPS = tuple(
    TapSpec(name, 8, side) for name, side in zip(("b4.conv1", "b8.conv0", "b16.conv1"), (4, 8, 16), strict=True)
)


def beside(tmp: Path) -> Path:
    """A folder for input, where nobody looks for what a command leaves."""
    folder = tmp.with_name(f"{tmp.name}-input")
    folder.mkdir()
    return folder


def gan_with(*arguments: object) -> Command:
    return lambda work, tmp: [
        "train-gan", "--pictures", work / "train.npy", "--out", tmp / "gan", "--total-images", 4, *GAN, *arguments
    ]  # fmt: skip


def nearest_with(*arguments: object) -> Command:
    return lambda work, tmp: [
        "nearest", "--generator", work / "gan" / "generator.safetensors", "--pictures", work / "train.npy",
        "--feature-network", work / "oracle.safetensors", "--out", tmp / "nearest.png", *arguments,
    ]  # fmt: skip


def sample_with(*arguments: object) -> Command:
    return lambda work, tmp: [
        "sample", "--generator", work / "gan" / "generator.safetensors", "--out", tmp / "s", "--classes", "a", "b",
        *arguments,
    ]  # fmt: skip


def train_with(*arguments: object, annotations: str = "labels") -> Command:
    return lambda work, tmp: [
        "train-interpreter", "--generator", work / "gan" / "generator.safetensors", "--annotations", work / annotations,
        "--out", tmp / "i.safetensors", "--steps", 2, *arguments,
    ]  # fmt: skip


def report_with(*arguments: object) -> Command:
    return lambda work, tmp: [
        "report", "--generator", work / "gan" / "generator.safetensors", "--annotations", work / "labels",
        "--interpreter", work / "made" / "interpreter.safetensors", "--oracle", work / "oracle.safetensors", *arguments,
    ]  # fmt: skip


def report_of(interpreter: Interpreter) -> Command:
    def command(work: Path, tmp: Path) -> list[object]:
        path = beside(tmp) / "i.safetensors"
        save_interpreter(interpreter, path, {})
        return report_with("--interpreter", path)(work, tmp)

    return command


def label_with_other_oracle(work: Path, tmp: Path) -> list[object]:
    path = beside(tmp) / "o.safetensors"
    save_segmenter(Segmenter(SegmenterConfig(num_classes=3, num_keypoints=2, widths=(4, 4))), path, {})
    return ["label", "--generator", work / "gan" / "generator.safetensors", "--oracle", path, "--out", tmp / "s"]


def oracle_with(*arguments: object) -> Command:
    return lambda work, tmp: [
        "train-oracle", "--train", work / "train.npz", "--test", work / "test.npz", "--out", tmp / "o.safetensors",
        "--steps", 1, "--batch-size", 4, *arguments,
    ]  # fmt: skip


def set_with(option: str, **arrays: npt.NDArray[Any]) -> Command:
    """Train an oracle where one set, that of --train or --test, has other arrays."""

    def command(work: Path, tmp: Path) -> list[object]:
        path = beside(tmp) / "set.npz"
        np.savez(path, **(dict(np.load(work / "train.npz")) | arrays))
        return oracle_with(f"--{option}", path)(work, tmp)

    return command


def build_with(*arguments: object) -> Command:
    return lambda work, tmp: [
        "build", "--generator", work / "gan" / "generator.safetensors",
        "--interpreter", work / "made" / "interpreter.safetensors", "--annotations", work / "labels",
        "--out", tmp / "bundle", "--name", "tiny", *TERMS, *arguments,
    ]  # fmt: skip


BAD: dict[str, tuple[Command, str]] = {
    "render: no count": (lambda w, t: ["render", "--out", t / "x.npy"], "--count is None"),
    "render: count 0": (lambda w, t: ["render", "--out", t / "x.npy", "--count", 0], "--count is 0"),
    "render: suffix": (lambda w, t: ["render", "--out", t / "x.png", "--count", 1], "--out is"),
    "render: processes": (lambda w, t: ["render", "--out", t / "x.npy", "--count", 1, "--processes", 0], "--processes"),
    "render: resolution": (
        lambda w, t: ["render", "--out", t / "x.npy", "--count", 1, "--resolution", 0],
        "resolution is 0",
    ),
    "render: seed": (lambda w, t: ["render", "--out", t / "x.npy", "--count", 1, "--seed", -1], "seed is -1"),
    "render: images and labels": (
        lambda w, t: ["render", "--out", t / "x.npz", "--images", w, "--labels"],
        "--images goes without --labels",
    ),
    "render: no folder": (lambda w, t: ["render", "--out", t / "x.npy", "--images", t / "no"], "is not a folder"),
    "render: out below a file": (
        lambda w, t: ["render", "--out", w / "train.npy" / "x.npy", "--count", 1, "--processes", 1],
        "train.npy",
    ),
    "gan: pictures missing": (
        lambda w, t: ["train-gan", "--pictures", t / "no.npy", "--out", t / "g", "--total-images", 4],
        "no.npy does not exist",
    ),
    "gan: pictures no array": (
        lambda w, t: ["train-gan", "--pictures", w / "oracle.json", "--out", t / "g", "--total-images", 4],
        "oracle.json is no .npy file",
    ),
    "gan: resolution": (gan_with("--resolution", 24), "resolution is 24"),
    "gan: pictures too small": (gan_with("--resolution", 64, "--channels", "4:8,8:8,16:8,32:8,64:8"), "32 pixels wide"),
    "gan: channels text": (gan_with("--channels", "many"), "channels is 'many'"),
    "gan: channels missing": (gan_with("--channels", "4:8,16:8"), "channels names no width"),
    "gan: discriminator": (gan_with("--discriminator-channels", "4:8"), "discriminator_channels"),
    "gan: batch": (gan_with("--batch-size", 0), "batch_size is 0"),
    "gan: rate": (gan_with("--learning-rate", -1.0), "learning_rate is -1.0"),
    "gan: dtype": (gan_with("--compute-dtype", "int8"), "compute_dtype is 'int8'"),
    "gan: seed": (gan_with("--seed", 2**64), "seed is 18446744073709551616, expected 0 to 2**64 - 1"),
    "gan: share": (gan_with("--style-mixing", 1.5), "style_mixing is 1.5, expected 0 to 1"),
    "gan: no pictures to see": (gan_with("--total-images", 0), "total_images is 0, expected at least 1"),
    "gan: diverges": (gan_with("--learning-rate", 1e30, "--total-images", 80), "the training has diverged"),
    "gan: pictures of a distance": (
        lambda w, t: gan_with("--feature-network", w / "oracle.safetensors", "--frechet-images", -1)(w, t),
        "--frechet-images is -1 pictures, expected at least 2",
    ),
    "gan: pictures too small for the network": (
        lambda w, t: gan_with("--feature-network", w / "oracle.safetensors", "--resolution", 8)(w, t),
        "pictures are 8 x 8, expected at least 16 pixels for this network",
    ),
    "gan: goes on with another rate": (
        lambda w, t: gan_with("--out", w / "gan", "--learning-rate", 0.1)(w, t),
        "learning_rate is 0.1, but the training in",
    ),
    "gan: goes on with other widths": (
        lambda w, t: gan_with("--out", w / "gan", "--channels", "4:9,8:8,16:8")(w, t),
        "channels is {4: 9, 8: 8, 16: 8}, but the training in",
    ),
    "gan: goes on at another resolution": (
        lambda w, t: gan_with("--out", w / "gan", "--resolution", 32)(w, t),
        "resolution is 32, but the training in",
    ),
    "gan: start from nothing": (gan_with("--start-from", "/nowhere"), "/nowhere holds no state.safetensors"),
    "frechet: one picture": (
        lambda w, t: [
            "frechet",
            "--generator",
            w / "gan" / "generator.safetensors",
            "--pictures",
            w / "train.npy",
            "--feature-network",
            w / "oracle.safetensors",
            "--count",
            1,
        ],
        "--count is 1 pictures, expected at least 2",
    ),
    "frechet: network": (
        lambda w, t: [
            "frechet",
            "--generator",
            w / "gan" / "generator.safetensors",
            "--pictures",
            w / "train.npy",
            "--feature-network",
            w / "gan" / "generator.safetensors",
        ],
        "is described as 'labelmint-generator'",
    ),
    "nearest: too few": (nearest_with("--count", 4), "--count is 4 pictures, expected at least 5"),
    "nearest: size": (nearest_with(), "pictures are 32 pixels wide, the generator's 16"),
    "curve: log missing": (
        lambda w, t: ["curve", "--logs", t / "log.jsonl", "--out", t / "curve.png"],
        "log.jsonl does not exist",
    ),
    "curve: no log": (
        lambda w, t: ["curve", "--logs", w / "oracle.json", "--out", t / "curve.png"],
        "is no log of `train-gan`",
    ),
    "keep-networks: no training": (
        lambda w, t: ["keep-networks", "--training", t, "--out", t / "kept"],
        "holds no state.safetensors, expected the --out of a training",
    ),
    "oracle: set missing": (
        lambda w, t: ["train-oracle", "--train", t / "no.npz", "--test", w / "test.npz", "--out", t / "o.safetensors"],
        "no.npz does not exist",
    ),
    "oracle: set without labels": (
        lambda w, t: [
            "train-oracle",
            "--train",
            w / "train.npy",
            "--test",
            w / "test.npz",
            "--out",
            t / "o.safetensors",
        ],
        "train.npy is no labelled set",
    ),
    "oracle: steps": (
        lambda w, t: [
            "train-oracle",
            "--train",
            w / "train.npz",
            "--test",
            w / "test.npz",
            "--out",
            t / "o.safetensors",
            "--steps",
            0,
        ],
        "steps is 0",
    ),
    "oracle: batch": (
        lambda w, t: [
            "train-oracle",
            "--train",
            w / "train.npz",
            "--test",
            w / "test.npz",
            "--out",
            t / "o.safetensors",
            "--batch-size",
            9,
        ],
        "batch_size is 9",
    ),
    "oracle: seed": (oracle_with("--seed", -1), "seed is -1, expected 0 to 2**64 - 1"),
    "oracle: weight": (oracle_with("--heatmap-weight", -1), "heatmap_weight is -1.0, expected at least 0"),
    "oracle: unknown class": (set_with("train", masks=np.full((8, 32, 32), 9, np.uint8)), "a mask holds class 9"),
    "oracle: unknown class to score with": (
        set_with("test", masks=np.full((8, 32, 32), 9, np.uint8)),
        "a mask holds class 9, expected 0 to 8, or 255",
    ),
    "oracle: other keypoints to score with": (
        set_with("test", keypoints=np.zeros((8, 5, 3), np.float32)),
        "keypoints are [8, 5, 3], expected 9 a picture",
    ),
    "oracle: keypoints nowhere": (
        set_with("train", keypoints=np.full((8, 9, 3), np.nan, np.float32)),
        "keypoints are [8, 9, 3], expected 9 a picture, all finite",
    ),
    "oracle: pictures of another type": (
        set_with("train", pictures=np.zeros((8, 32, 32, 3), np.float32)),
        "pictures are float32 [8, 32, 32, 3], expected uint8 [N, H, W, 3]",
    ),
    "oracle: pictures of an odd size": (
        set_with("test", pictures=np.zeros((8, 20, 20, 3), np.uint8), masks=np.zeros((8, 20, 20), np.uint8)),
        "pictures are 20 x 20, expected multiples of 16 pixels",
    ),
    "oracle: nothing to score with": (
        set_with(
            "test",
            pictures=np.zeros((0, 32, 32, 3), np.uint8),
            masks=np.zeros((0, 32, 32), np.uint8),
            keypoints=np.zeros((0, 9, 3), np.float32),
        ),
        "the set holds no pictures",
    ),
    "sample: generator missing": (
        lambda w, t: ["sample", "--generator", t / "no.safetensors", "--out", t / "s", "--classes", "a", "b"],
        "no.safetensors does not exist, expected a generator from train-gan",
    ),
    "sample: count": (sample_with("--count", 0), "--count is 0"),
    "sample: seed": (sample_with("--seed", -1), "seed"),
    "sample: psi": (sample_with("--truncation-psi", "nan"), "--truncation-psi is nan"),
    "sample: class twice": (sample_with("--classes", "a", "a"), "different names"),
    "sample: class without a name": (sample_with("--classes", "a", " "), "none of them empty"),
    "sample: too few to pick from": (
        sample_with("--count", 4, "--diverse", "--candidates", 3),
        "--candidates is 3, expected at least --count, 4",
    ),
    "sample: picked twice": (sample_with("--pick", 3, 5, 3), "--pick holds 3, expected different numbers"),
    "sample: picked below 0": (sample_with("--pick", -1), "--pick holds -1, expected different numbers from 0"),
    "sample: picked and counted": (
        sample_with("--pick", 3, 5, "--count", 4),
        "--count is 4 and --pick names 2 pictures; leave --count out",
    ),
    "sample: one class": (sample_with("--classes", "a"), "2 to 255 different names"),
    "sample: folder taken": (
        lambda w, t: [
            "sample",
            "--generator",
            w / "gan" / "generator.safetensors",
            "--out",
            w / "labels",
            "--classes",
            "a",
            "b",
        ],
        "is not empty",
    ),
    "sample: folder is a file": (
        lambda w, t: [
            "sample",
            "--generator",
            w / "gan" / "generator.safetensors",
            "--out",
            w / "train.npy",
            "--classes",
            "a",
            "b",
        ],
        "train.npy, which is a file, expected a folder; give another name",
    ),
    "sample: out below a file": (
        lambda w, t: [*sample_with()(w, t)[:3], "--out", w / "train.npy" / "s", "--classes", "a", "b"],
        "train.npy is a file, expected folders above it; give another path",
    ),
    "interpreter: out is a folder": (
        lambda w, t: train_with("--out", t)(w, t),
        ", which is a folder, expected the name of a file; add one",
    ),
    "interpreter: out ends otherwise": (
        lambda w, t: train_with("--out", t / "i.json")(w, t),
        "expected a name that ends in .safetensors; rename it",
    ),
    "interpreter: threads": (train_with("--threads", 0), "--threads is 0, expected at least 1"),
    "interpreter: taps": (train_with("--taps", "b99.conv1"), "tap 'b99.conv1' is unknown"),
    "interpreter: members": (train_with("--members", 0), "num_members is 0"),
    "interpreter: hidden": (train_with("--hidden", 0, 4), "hidden_widths is [0, 4]"),
    "interpreter: seed": (train_with("--seed", 2**64), "seed is 18446744073709551616, expected 0 to 2**64 - 1"),
    "interpreter: steps": (train_with("--steps", 0), "max_steps is 0"),
    "interpreter: no annotations": (
        train_with(annotations="gan"),
        "gan holds no classes.json, expected",
    ),
    "report: count": (report_with("--count", 0), "--count is 0"),
    "report: psi": (report_with("--truncation-psi", "nan"), "--truncation-psi is nan"),
    "report: interpreter of another generator": (
        report_of(make_interpreter(make_generator().tap_specs, 16, num_classes=9, num_keypoints=9)),
        "the interpreter reads b8.conv0 with 7 channels at 8, which the generator does not have",
    ),
    "report: interpreter of other classes": (
        report_of(make_interpreter(GAN_TAPS, 16)),
        "the interpreter has 4 classes, expected the 9 of the annotations",
    ),
    "report: interpreter of other keypoints": (
        report_of(make_interpreter(GAN_TAPS, 16, num_classes=9, num_keypoints=5)),
        "oracle knows 9 classes and 9 keypoints, expected 9 and 5",
    ),
    "report: interpreter of finer labels": (
        report_of(make_interpreter(GAN_TAPS, 32, num_classes=9, num_keypoints=9)),
        "label_resolution is 32, expected 16",
    ),
    "label: oracle of something else": (label_with_other_oracle, "oracle knows 3 classes and 2 keypoints, expected 9"),
    "build: exists": (
        lambda w, t: [*build_with()(w, t)[:7], "--out", w / "bundle", "--name", "tiny", *TERMS],
        "exists; give another folder",
    ),
    "build: name": (build_with("--name", "A B"), "name is 'A B'"),
    "build: licence": (build_with("--data-licence", " "), "data_licence is empty"),
    "build: batch": (build_with("--batch-size", 0), "batch_size is 0"),
    "build: calibration": (build_with("--calibration-samples", 0), "num_calibration_samples is 0"),
    "build: parity": (build_with("--parity-samples", 0), "num_parity_samples is 0"),
    "build: psi": (build_with("--psi-grid", 2.0), "psi_grid is (2.0,)"),
    "build: default psi": (build_with("--truncation-psi", 1.5), "default_psi is 1.5"),
    "build: commit": (build_with("--commit", "yesterday"), "provenance.commit is 'yesterday'"),
    "build: interpreter is a generator": (
        lambda w, t: build_with("--interpreter", w / "gan" / "generator.safetensors")(w, t),
        "is described as 'labelmint-generator'",
    ),
    "build: out is a file": (
        lambda w, t: [*build_with()(w, t)[:7], "--out", w / "train.npy", "--name", "tiny", *TERMS],
        "train.npy, which is a file, expected a folder; give another name",
    ),
    "build: interpreter missing": (
        build_with("--interpreter", "/nowhere/i.safetensors"),
        "i.safetensors does not exist, expected an interpreter from train-interpreter",
    ),
    "verify: missing": (lambda w, t: ["verify", t / "no"], "there is no bundle at"),
    "verify: half of the sources": (
        lambda w, t: ["verify", w / "bundle", "--generator", w / "gan" / "generator.safetensors"],
        "--generator and --interpreter go together",
    ),
    "verify: samples": (lambda w, t: ["verify", w / "bundle", "--samples", 0], "num_samples is 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_answered_with_one_line_and_status_1(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    command, message = BAD[case]
    before = sorted(path for path in work.rglob("*"))
    assert main([str(argument) for argument in command(work, tmp_path)]) == 1
    captured = capsys.readouterr()
    last = captured.err.strip().splitlines()[-1]
    assert last.startswith("labelmint-export: ")
    assert message in last
    assert captured.out == ""
    assert sorted(path for path in work.rglob("*")) == before
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert left == [], "something half-written stays"


@pytest.mark.parametrize("allocate", [lambda: torch.empty(2**58), lambda: np.empty(2**58)])
def test_too_little_memory_is_answered_with_one_line_and_status_1(
    work: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    allocate: Callable[[], object],
) -> None:
    monkeypatch.setattr(gan, "make_state", lambda *_: allocate())
    assert main([str(argument) for argument in gan_with()(work, tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("labelmint-export: memory does not suffice (")


def test_bad_input_gives_no_traceback_to_a_shell(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "labelmint_export.cli", "verify", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 1
    assert done.stderr.startswith("labelmint-export: there is no bundle at")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [[], ["fly"], ["build"], ["train-gan", "--total-images", "many"]])
def test_command_line_that_cannot_be_parsed_exits_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: labelmint-export" in capsys.readouterr().err


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (commands,) = (action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    assert isinstance(commands, dict)
    return commands


def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    names = commands_of(make_parser())
    assert len(names) > 15
    for command, parser in names.items():
        assert command in text
        with pytest.raises(SystemExit) as caught:
            main([command, "--help"])
        assert caught.value.code == 0
        assert "--" in capsys.readouterr().out
        assert parser.description, command


def test_version_is_that_of_the_installed_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"labelmint {metadata.version('labelmint')}\n"


def test_every_option_says_more_than_its_default() -> None:
    for command, parser in commands_of(make_parser()).items():
        for action in parser._actions:
            text = (action.help or "").partition("(default")[0].strip()
            assert len(text) > 3, f"{command} {action.option_strings} is not explained"
            assert not text.startswith("default"), f"{command} {action.option_strings} is not explained"


def test_help_of_a_training_is_what_its_settings_say(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train-gan", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for expected in (
        "Weight of the R1 penalty, half of which times the squared gradient of D at real pictures joins D's loss.",
        "Share of pictures painted with two styles, the second from a random layer on, 0 to 1 (default 0.9)",
        "Length of the intermediate latent (default 128)",
        "at least 1: what an interruption costs at most. A GPU that sees thousands",
        "unless it is given more (default 5000)",
    ):
        assert expected in text


def test_names_that_the_terminal_cannot_show_are_escaped(work: Path, tmp_path: Path) -> None:
    for suffix in (".safetensors", ".json"):
        shutil.copy(work / "gan" / f"generator{suffix}", tmp_path / f"猫{suffix}")
    with io.TextIOWrapper(io.BytesIO(), encoding="ascii") as terminal:
        with contextlib.redirect_stdout(terminal):
            assert main(["inspect", str(tmp_path / "猫.safetensors")]) == 0
        terminal.seek(0)
        assert "\\u732b.safetensors" in terminal.read()
