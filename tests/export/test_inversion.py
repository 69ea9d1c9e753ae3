"""Pictures that a generator painted are found again; others are left out and said to be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from labelmint.addresses import latents
from labelmint_export.annotations import read_annotations, read_pictures
from labelmint_export.checkpoints.loading import load_generator
from labelmint_export.cli import main
from labelmint_export.commands import inverting
from labelmint_export.errors import GeneratorError, TrainingError
from labelmint_export.gan.discriminator import Discriminator
from labelmint_export.generator import Generator
from labelmint_export.generator.drawing import draw_latents
from labelmint_export.generator.snapshots import save_generator
from labelmint_export.inversion.perceptual import (
    feature_distance,
    features_of_discriminator,
    features_of_segmenter,
)
from labelmint_export.inversion.projector import InversionSettings, project
from labelmint_export.oracle.network import Segmenter, SegmenterConfig, save_segmenter
from labelmint_export.pictures import to_uint8
from labelmint_export.reserved_seeds import STATISTICS_SEED
from tests.export.label_files import labelme_record, labelme_shape, write_json
from tests.export.tiny_parts import CHANNELS, make_generator

DATA = Path(__file__).parents[1] / "data/checkpoints"


def paint(generator: Generator, count: int, seed: int = 9) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    z = torch.from_numpy(latents(seed, np.arange(count, dtype=np.uint64), generator.config.z_dim))
    return to_uint8(generator.synthesis(generator.mapping(z, None, 0.7), "const").image)


def make_segmenter() -> Segmenter:
    torch.manual_seed(3)
    return Segmenter(SegmenterConfig(num_classes=2, num_keypoints=0, widths=(6, 8))).eval()


# --- distances --------------------------------------------------------------------------------------------------------


def test_feature_distance_ignores_lengths_and_sees_directions() -> None:
    a = torch.randn(2, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(feature_distance([a], [3 * a]), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(feature_distance([a], [-a]), torch.full([2], 4.0))


# --- projection -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pyramid", "segmenter", "discriminator"])
def test_painted_pictures_are_found_again(generator: Generator, kind: str) -> None:
    targets = paint(generator, 3)
    torch.manual_seed(2)
    features = {
        "pyramid": None,
        "segmenter": features_of_segmenter(make_segmenter()),
        "discriminator": features_of_discriminator(Discriminator(generator.config, CHANNELS)),
    }[kind]
    found = project(generator, targets, features, InversionSettings(steps=250, num_statistics=200))
    mean_picture = to_uint8(generator.synthesis(generator.mapping.w_avg.expand(1, 6, -1), "const").image)
    start = np.abs(mean_picture.astype(np.float64) - targets).mean(axis=(1, 2, 3))
    assert (found.error < 0.25 * start).all()
    assert (found.error < 5).all()
    painted = np.concatenate([to_uint8(generator.synthesis(one[None], "const").image) for one in found.ws])
    assert np.array_equal(painted, found.pictures)
    np.testing.assert_allclose(found.error, np.abs(painted.astype(float) - targets).mean(axis=(1, 2, 3)))


def test_picture_does_not_depend_on_those_beside_it(generator: Generator) -> None:
    targets = paint(generator, 3)
    together = project(generator, targets, None, InversionSettings(steps=40, batch_size=3, num_statistics=50))
    alone = project(generator, targets[2:], None, InversionSettings(steps=40, batch_size=1, num_statistics=50))
    torch.testing.assert_close(together.ws[2:], alone.ws, rtol=1e-3, atol=1e-3)


def test_layers_have_one_w_where_no_step_is_their_own(generator: Generator) -> None:
    settings = InversionSettings(steps=30, common_share=1.0, num_statistics=50)
    ws = project(generator, paint(generator, 1), None, settings).ws
    assert torch.equal(ws, ws[:, :1].expand_as(ws))
    assert not torch.equal(ws[0, 0], generator.mapping.w_avg)
    apart = project(generator, paint(generator, 1), None, InversionSettings(steps=30, num_statistics=50)).ws
    assert not torch.equal(apart, apart[:, :1].expand_as(apart))


def test_grey_generators_are_inverted() -> None:
    grey = make_generator(image_channels=1)
    found = project(grey, paint(grey, 2), None, InversionSettings(steps=200, num_statistics=50))
    assert (found.error < 6).all()


@pytest.mark.parametrize("class_index", [None, 2])
def test_conditional_generators_are_inverted(class_index: int | None) -> None:
    conditional = make_generator(c_dim=3)
    z, c = draw_latents(conditional.config, 9, np.arange(2, dtype=np.uint64), 2)
    targets = to_uint8(conditional.synthesis(conditional.mapping(z, c, 0.7), "const").image)
    found = project(conditional, targets, None, InversionSettings(steps=100, num_statistics=50), class_index)
    mean = to_uint8(conditional.synthesis(conditional.w_avg.expand(1, 6, -1), "const").image)
    assert (found.error < 0.3 * np.abs(mean.astype(float) - targets).mean(axis=(1, 2, 3))).all()


def test_search_starts_from_the_mean_of_the_class() -> None:
    conditional = make_generator(c_dim=3)
    z, c = draw_latents(conditional.config, STATISTICS_SEED, np.arange(50, dtype=np.uint64), 1)
    settings = InversionSettings(steps=1, learning_rate=1e-9, num_statistics=50)
    targets = np.zeros((1, 16, 16, 3), np.uint8)
    for class_index, mean in ((1, conditional.mapping(z, c)[:, 0].mean(dim=0)), (None, conditional.w_avg)):
        ws = project(conditional, targets, None, settings, class_index).ws
        torch.testing.assert_close(ws, mean.expand_as(ws), rtol=0, atol=1e-5)


def test_class_that_the_generator_does_not_know_is_refused(generator: Generator) -> None:
    targets = np.zeros((1, 16, 16, 3), np.uint8)
    with pytest.raises(GeneratorError, match="generator class is 3, expected 0 to 2"):
        project(make_generator(c_dim=3), targets, None, InversionSettings(), 3)
    with pytest.raises(GeneratorError, match="expected none: the generator is unconditional"):
        project(generator, targets, None, InversionSettings(), 0)


def test_wrong_sizes_and_settings_are_refused(generator: Generator) -> None:
    with pytest.raises(GeneratorError, match=r"expected uint8 \[N, 16, 16, 3\]"):
        project(generator, np.zeros((1, 8, 8, 3), np.uint8), None, InversionSettings())
    for field, value in (("steps", 0), ("learning_rate", 0.0), ("common_share", 1.5), ("noise", -1.0)):
        with pytest.raises(TrainingError, match=f"{field} is {value}"):
            InversionSettings(**{field: value})  # type: ignore[arg-type]  # fields of several types


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(generator: Generator, tmp_path: Path) -> Path:
    """A generator, a network, two pictures it can paint, enlarged, and one that it cannot."""
    save_generator(generator, tmp_path / "g.safetensors")
    save_segmenter(make_segmenter(), tmp_path / "s.safetensors", {})
    (tmp_path / "photos").mkdir()
    for name, picture in zip(("cat.b", "cat.a"), paint(generator, 2), strict=True):
        Image.fromarray(picture).resize((64, 64), Image.Resampling.NEAREST).save(tmp_path / "photos" / f"{name}.png")
    board = np.kron((np.indices((16, 16)).sum(axis=0) % 2 * 255).astype(np.uint8), np.ones((4, 4), np.uint8))
    Image.fromarray(board).save(tmp_path / "photos" / "noise.png")
    return tmp_path


def invert(files: Path, *options: object) -> int:
    arguments = ["invert", "--generator", files / "g.safetensors", "--images", files / "photos", "--out", files / "out"]
    arguments += ["--classes", "ground", "disc", "--features", files / "s.safetensors", "--steps", 250, *options]
    return main([str(argument) for argument in arguments])


def test_labelled_photographs_become_an_annotated_set(
    generator: Generator, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invert(files, "--report", files / "r.json", "--sheet", files / "sheet.png", "--max-error", 25) == 0
    assert "wrote" in capsys.readouterr().out
    pictures = read_pictures(files / "out")
    assert pictures.names == ("cat.a", "cat.b")
    report = json.loads((files / "r.json").read_text())["pictures"]
    assert {name: entry["kept"] for name, entry in report.items()} == {"cat.a": True, "cat.b": True, "noise": False}
    assert report["noise"]["error_levels"] > 25 > report["cat.a"]["error_levels"]
    with Image.open(files / "sheet.png") as sheet:
        assert sheet.size == (48, 32)
    assert not bool(pictures.z.any())

    shape = labelme_shape("disc", "circle", [[32, 32], [32, 52]])
    for name in ("cat.a", "cat.b", "noise"):
        write_json(files / "labels" / f"{name}.json", labelme_record(f"{name}.png", shape, size=(64, 64)))
    labels = ["--pictures", files / "out", "--labels", files / "labels", "--rescale", "--out", files / "set"]
    assert main(["import-annotations", *map(str, labels)]) == 0
    assert "labels without pictures, left out: 1 (noise.png)" in capsys.readouterr().out
    annotated = read_annotations(files / "set")
    assert np.array_equal(annotated.masks[0], annotated.masks[1])
    assert (annotated.masks[0] == 1).sum() == sum(
        (x - 7.5) ** 2 + (y - 7.5) ** 2 <= 25 for x in range(16) for y in range(16)
    )
    trained = ["--generator", files / "g.safetensors", "--annotations", files / "set", "--out", files / "i.safetensors"]
    assert main(["train-interpreter", *map(str, trained), "--members", "2", "--steps", "2"]) == 0


def test_photographs_of_one_class_of_a_foreign_generator_are_inverted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = DATA / "stylegan3_r_32_c10.pkl"
    foreign = load_generator(checkpoint)
    z, c = draw_latents(foreign.config, 9, np.arange(1, dtype=np.uint64), 4)
    picture = to_uint8(foreign.synthesis(foreign.mapping(z, c, 0.5), "const").image)[0]
    (tmp_path / "photos").mkdir()
    Image.fromarray(picture).save(tmp_path / "photos" / "cat.png")
    arguments = ["--generator", checkpoint, "--images", tmp_path / "photos", "--out", tmp_path / "out"]
    arguments += ["--classes", "ground", "disc", "--steps", 12, "--max-error", 255, "--report", tmp_path / "r.json"]
    assert main(["invert", *map(str, arguments), "--generator-class", "10"]) == 1
    assert "generator class is 10, expected 0 to 9" in capsys.readouterr().err
    assert main(["invert", *map(str, arguments), "--generator-class", "4"]) == 0
    mean = to_uint8(foreign.synthesis(foreign.w_avg.expand(1, foreign.config.num_ws, -1), "const").image)[0]
    error = json.loads((tmp_path / "r.json").read_text())["pictures"]["cat"]["error_levels"]
    assert error < 0.6 * np.abs(mean.astype(float) - picture).mean()


def test_nothing_is_written_where_nothing_is_reconstructed(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invert(files, "--max-error", 0.01, "--steps", 2, "--report", files / "r.json") == 1
    assert "was reconstructed: the smallest error is" in capsys.readouterr().err
    assert not (files / "out").exists()
    assert (files / "r.json").exists()


def test_what_cannot_be_inverted_is_refused(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert invert(files, "--max-error", 0) == 1
    assert "--max-error is 0.0" in capsys.readouterr().err
    (files / "photos" / "deep").mkdir()
    Image.new("RGB", (64, 64)).save(files / "photos" / "deep" / "cat.a.jpg")
    assert invert(files) == 1
    assert "have one name" in capsys.readouterr().err
    (files / "photos" / "deep" / "cat.a.jpg").unlink()
    monkeypatch.setattr(inverting, "project", lambda *_: pytest.fail("hours of work come before the refusal"))
    for name in ("classes", "cat.a.mask", "n" * 243):
        Image.new("RGB", (64, 64)).save(files / "photos" / f"{name}.png")
        assert invert(files) == 1
        assert f"a picture is named {name!r}, expected a name of at most" in capsys.readouterr().err
        (files / "photos" / f"{name}.png").unlink()
    Image.new("RGB", (64, 40)).save(files / "photos" / "wide.png")
    assert invert(files) == 1
    assert "wide.png has 64 x 40 pixels, expected a square" in capsys.readouterr().err
