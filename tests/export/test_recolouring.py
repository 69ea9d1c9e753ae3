"""Recoloured copies: which w they take, that shapes stay, what they teach, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from labelmint_export.annotations import AnnotatedSet, write_annotations
from labelmint_export.checkpoints.loading import load_generator
from labelmint_export.cli import main
from labelmint_export.errors import AnnotationError, TrainingError
from labelmint_export.generator import Generator, GeneratorConfig, SynthesisOutput
from labelmint_export.generator.snapshots import save_generator
from labelmint_export.interpreter.ensemble import InterpreterConfig
from labelmint_export.interpreter.fused import FusedInterpreter
from labelmint_export.interpreter.recolouring import first_fine_w, recolour, save_recoloured
from labelmint_export.interpreter.training import InterpreterTraining, train_interpreter
from labelmint_export.metrics import confusion, miou
from labelmint_export.pictures import to_uint8
from tests.export.painted_generator import SIDE, TAPS, PaintedGenerator, as_generator, draw_annotated, truth_of
from tests.export.tiny_parts import make_annotated, make_generator, make_generator_of, make_schema, stack_taps

CHECKPOINTS = Path(__file__).parents[1] / "data" / "checkpoints"
CHANNELS = {4: 8, 8: 7, 16: 6, 32: 5, 64: 4, 128: 3}


@pytest.fixture(scope="module")
def large() -> Generator:
    """128 x 128: four of its twelve w belong to layers at 64 and above, and one to colours at 32."""
    return make_generator_of(GeneratorConfig(resolution=128, channels=CHANNELS, z_dim=8, w_dim=10, mapping_layers=2))


@pytest.fixture(scope="module")
def annotated(large: Generator) -> AnnotatedSet:
    return make_annotated(large, 4)


# --- what a copy is ---------------------------------------------------------------------------------------------------


def test_copies_keep_coarse_ws_and_labels_and_take_fine_ws_of_another_picture_each(
    large: Generator, annotated: AnnotatedSet
) -> None:
    whole = recolour(large, annotated, 3)
    assert len(whole) == 16
    assert whole.num_copies == 3
    assert torch.equal(whole.ws[:4], annotated.ws)
    donors = []
    for r in range(1, 4):
        part = whole.ws[4 * r : 4 * r + 4]
        assert torch.equal(part[:, :7], annotated.ws[:, :7])
        donors.append([[torch.equal(fine, other[7:]) for other in annotated.ws].index(True) for fine in part[:, 7:]])
        np.testing.assert_array_equal(whole.masks[4 * r : 4 * r + 4], annotated.masks)
        np.testing.assert_array_equal(whole.keypoints[4 * r : 4 * r + 4], annotated.keypoints)
    for picture, taken in enumerate(zip(*donors, strict=True)):
        assert sorted(taken) == [other for other in range(4) if other != picture]
    np.testing.assert_array_equal(whole.pictures[5], to_uint8(large.synthesis(whole.ws[5:6], "const").image)[0])


def test_features_below_64_stay_and_the_picture_changes(large: Generator, annotated: AnnotatedSet) -> None:
    assert first_fine_w(large) == 7
    ws = recolour(large, annotated, 1).ws
    own, copy = (large.synthesis(part, "const") for part in (ws[:4], ws[4:]))
    for tap in large.tap_specs:
        assert torch.equal(own.taps[tap.name], copy.taps[tap.name]) == (tap.resolution < 64), tap.name
    assert not torch.equal(own.image, copy.image)


def test_sheet_has_a_row_for_each_picture(large: Generator, annotated: AnnotatedSet, tmp_path: Path) -> None:
    whole = recolour(large, annotated, 2)
    save_recoloured(whole, tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (4 * 128, 3 * 128, 3)
    for picture in range(4):
        for copy in range(3):
            tile = sheet[picture * 128 : picture * 128 + 128, copy * 128 : copy * 128 + 128]
            np.testing.assert_array_equal(tile, whole.pictures[copy * 4 + picture])


# --- what copies teach ------------------------------------------------------------------------------------------------


class ColouredGenerator(PaintedGenerator):
    """ws[:, 1, 0] is a colour that shifts all features, as fine styles do: labels do not depend on it."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(num_ws=2, w_dim=4, resolution=SIDE)
        self.tap_specs = TAPS

    def synthesis(self, ws: torch.Tensor, noise_mode: str = "const") -> SynthesisOutput:
        plain = super().synthesis(ws, noise_mode)
        colour = ws[:, 1, 0, None, None, None]
        taps = {name: tap + colour for name, tap in plain.taps.items()}
        return SynthesisOutput(image=(taps["b32.conv1"][:, :3] / 4).tanh(), taps=taps)


def with_colours(painted: ColouredGenerator, plain: AnnotatedSet, colours: torch.Tensor) -> AnnotatedSet:
    ws = torch.cat([plain.ws, torch.zeros_like(plain.ws)], dim=1)
    ws[:, 1, 0] = colours
    return replace(plain, ws=ws, pictures=to_uint8(painted.synthesis(ws).image))


def test_copies_part_colours_from_shapes() -> None:
    """In the annotated pictures a large disc is always of one colour and a small one of the other."""
    painted = ColouredGenerator()
    plain = draw_annotated(16, seed=0)
    told = with_colours(painted, plain, torch.where(plain.ws[:, 0, 2] > plain.ws[:, 0, 2].median(), 2.0, -2.0))
    config = InterpreterConfig(taps=TAPS, label_resolution=SIDE, num_classes=3, num_members=3, hidden_widths=(24, 12))
    unseen = draw_annotated(20, seed=9)
    swapped = with_colours(painted, unseen, torch.where(unseen.ws[:, 0, 2] > plain.ws[:, 0, 2].median(), -2.0, 2.0))
    scores = {}
    for copies in (0, 5):
        settings = InterpreterTraining(max_steps=400, pixels_per_member=256, evaluate_steps=50)
        learned = recolour(as_generator(painted), told, copies, 1) if copies else told
        interpreter = train_interpreter(as_generator(painted), learned, config, settings)
        labels = FusedInterpreter(interpreter)(stack_taps(painted.synthesis(swapped.ws).taps, TAPS)).label.numpy()
        scores[copies] = miou(confusion(labels, truth_of(swapped.ws).masks, 3))
    assert scores[5] > 0.9
    assert scores[5] > scores[0] + 0.05


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("copies", "given"), [(4, "4"), (0, "0"), (-1, "-1")])
def test_more_copies_than_other_pictures_are_refused(
    large: Generator, annotated: AnnotatedSet, copies: int, given: str
) -> None:
    with pytest.raises(TrainingError, match=f"recoloured_copies is {given}, expected 1 to 3") as caught:
        recolour(large, annotated, copies)
    assert caught.value.field == "recoloured_copies"


@pytest.mark.parametrize("first", [0, 12, -3])
def test_first_w_outside_the_generator_is_refused(large: Generator, annotated: AnnotatedSet, first: int) -> None:
    with pytest.raises(TrainingError, match=f"recolour_from is {first}, expected 1 to 11") as caught:
        recolour(large, annotated, 1, first)
    assert caught.value.field == "recolour_from"


def test_generator_without_fine_layers_needs_a_choice() -> None:
    small = make_generator(16)
    annotated = make_annotated(small, 3)
    with pytest.raises(TrainingError, match=r"recolour_from is not given, expected 1 to 5: .* 64 x 64") as caught:
        recolour(small, annotated, 1)
    assert caught.value.field == "recolour_from"
    assert len(recolour(small, annotated, 1, 2)) == 6


def test_stylegan3_needs_a_choice_and_keeps_the_layers_before_it() -> None:
    """Its w 0 belongs to the Fourier features, so that layer k reads w k + 1."""
    generator = load_generator(CHECKPOINTS / "stylegan3_r_32_c10.pkl")
    ws = torch.randn(2, generator.config.num_ws, generator.config.w_dim, generator=torch.Generator().manual_seed(0))
    pictures = to_uint8(generator.synthesis(ws, "const").image)
    masks, keypoints = np.zeros(pictures.shape[:3], np.uint8), np.zeros((2, 3, 3), np.float32)
    annotated = AnnotatedSet(make_schema(), pictures, masks, keypoints, torch.zeros(2, generator.config.z_dim), ws)
    with pytest.raises(TrainingError, match=r"recolour_from is not given, .* StyleGAN3's"):
        recolour(generator, annotated, 1)
    ws = recolour(generator, annotated, 1, 5).ws
    own, copy = (generator.synthesis(part, "const") for part in (ws[:2], ws[2:]))
    same = [torch.equal(own.taps[tap.name], copy.taps[tap.name]) for tap in generator.tap_specs]
    assert same == [True] * 4 + [False] * (len(same) - 4)


@pytest.mark.parametrize("broken", ["enlarged", "rolled"])
def test_pictures_of_another_generator_are_refused_before_copies_are_painted(
    large: Generator, annotated: AnnotatedSet, broken: str
) -> None:
    wrong = replace(annotated, ws=annotated.ws.roll(1, 0))
    if broken == "enlarged":
        wrong = replace(
            annotated,
            pictures=annotated.pictures.repeat(2, 1).repeat(2, 2),
            masks=annotated.masks.repeat(2, 1).repeat(2, 2),
        )
    with pytest.raises(AnnotationError, match="picture 0 "):
        recolour(large, wrong, 1)


# --- the command ------------------------------------------------------------------------------------------------------


SMALL = ["--members", "2", "--hidden", "6", "4", "--steps", "2"]


@pytest.fixture
def work(large: Generator, annotated: AnnotatedSet, tmp_path: Path) -> Path:
    save_generator(large, tmp_path / "generator.safetensors", {})
    write_annotations(annotated, tmp_path / "drawn")
    return tmp_path


def train(work: Path, *arguments: str) -> int:
    generator = ["--generator", str(work / "generator.safetensors")]
    out = ["--out", str(work / "made" / "interpreter.safetensors")]
    return main(["train-interpreter", *generator, "--annotations", str(work / "drawn"), *out, *SMALL, *arguments])


def test_command_writes_sheet_and_provenance(work: Path) -> None:
    assert train(work, "--recoloured-copies", "2", "--recoloured-sheet", str(work / "look" / "sheet.png")) == 0
    with Image.open(work / "look" / "sheet.png") as sheet:
        assert sheet.size == (3 * 128, 4 * 128)
    provenance = json.loads((work / "made" / "interpreter.json").read_text())["provenance"]
    assert provenance["num_annotated_images"] == 4
    assert (provenance["recoloured_copies"], provenance["recolour_from"]) == (2, 7)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--recoloured-copies", "4"], "recoloured_copies is 4, expected 1 to 3"),
        (["--recoloured-copies", "-1"], "recoloured_copies is -1, expected 1 to 3"),
        (["--recoloured-copies", "1", "--recolour-from", "12"], "recolour_from is 12, expected 1 to 11"),
        (["--recolour-from", "7"], "recolour_from is given and recoloured_copies is 0"),
        (["--recoloured-sheet", "look.png"], "recoloured_sheet is given and recoloured_copies is 0"),
        (["--recoloured-copies", "1", "--recoloured-sheet", "look.jpg"], "ends in .png"),
    ],
)
def test_command_refuses_before_anything_is_written(
    work: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(work.iterdir())
    assert train(work, *arguments) == 1
    assert said in capsys.readouterr().err
    assert sorted(work.iterdir()) == before
