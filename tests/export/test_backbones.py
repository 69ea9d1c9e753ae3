"""Interpreters and bundles on every backbone: from a file of another program to what the service's engine gives.

The truth is float64: the generator itself (which other tests hold against the original programs), and the plain
interpreter on features that are cut out of the taps here.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from labelmint.addresses import class_indices, latents
from labelmint.bundle import open_bundle
from labelmint_export.checkpoints.classifiers import read_classifiers
from labelmint_export.checkpoints.loading import load_generator
from labelmint_export.cli import main
from labelmint_export.errors import CheckpointError, GeneratorError, TrainingError
from labelmint_export.generator import Backbone, Generator, GeneratorConfig, TapSpec
from labelmint_export.generator.drawing import draw_latents
from labelmint_export.generator.stylegan1 import StyleGAN1Config, StyleGAN1Generator
from labelmint_export.generator.stylegan3 import StyleGAN3Generator
from labelmint_export.interpreter.storage import load_interpreter
from labelmint_export.interpreter.taps import select_taps
from labelmint_service.engine import LatentInputs
from labelmint_service.models.served import load_model
from tests.export.plain_interpreter import plain_labels
from tests.export.plain_stylegan1 import make_state_dict
from tests.export.tflib_files import make_stylegan1, make_stylegan2, write_snapshot
from tests.export.tiny_parts import make_generator

DATA = Path(__file__).parents[1] / "data/checkpoints"
WHOLE = Path(__file__).parents[3] / "shared/reference"
CHANNELS = {4: 5, 8: 4, 16: 3}
TERMS = ["--weights-licence", "CC0-1.0", "--data-licence", "CC0-1.0", "--attribution", "Someone"]
FEW = ["--calibration-samples", "4", "--parity-samples", "2", "--batch-size", "2", "--psi-grid", "0.7"]


def tensorflow_stylegan1(folder: Path) -> Path:
    return write_snapshot(folder / "stylegan1.pkl", make_stylegan1(CHANNELS), {"resolution": 16})


def datasetgan_stylegan1(folder: Path) -> Path:
    torch.save({k: torch.from_numpy(v) for k, v in make_state_dict(CHANNELS).items()}, folder / "stylegan1.pt")
    return folder / "stylegan1.pt"


def tensorflow_stylegan2_with_classes(folder: Path) -> Path:
    variables = make_stylegan2(CHANNELS, architecture="resnet", label=("LabelConcat", 3, 6))
    return write_snapshot(folder / "stylegan2.pkl", variables, {"architecture": "resnet", "label_size": 3})


FILES: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "stylegan1 of tensorflow": (tensorflow_stylegan1, "stylegan1", "orig"),
    "stylegan2 of tensorflow, residual, 3 classes": (tensorflow_stylegan2_with_classes, "stylegan2", "resnet"),
    "stylegan3 r, 10 classes": (lambda _: DATA / "stylegan3_r_32_c10.pkl", "stylegan3", "r"),
    "stylegan3 t": (lambda _: WHOLE / "stylegan3_t_32.pkl", "stylegan3", "t"),
}
EDITGAN = "stylegan2 of tensorflow, residual, 3 classes"
"""Its interpreter looks at EditGAN's selection and has EditGAN's vote."""


MORE = ("stylegan1 of tensorflow", "stylegan3 r, 10 classes", "stylegan3 t")
"""Those that take long, or show what another shows but for the reading of the file, which has tests of its own."""


def draw_masks(folder: Path, side: int) -> None:
    """A square on a ground, as a person might leave it."""
    for mask in sorted(folder.glob("*.mask.png")):
        labels = np.zeros((side, side), np.uint8)
        labels[side // 4 : side // 2, side // 4 :] = 1
        image = Image.open(mask)
        painted = Image.fromarray(labels, mode=image.mode)
        if image.mode == "P":
            painted.putpalette(image.getpalette() or [])
        painted.save(mask)


def run(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0, arguments


def plain_features(generator: Backbone, taps: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Taps without what lies around the picture, from the shape that the file tells."""
    if not isinstance(generator, StyleGAN3Generator):
        return taps
    features = {}
    for layer in generator.config.layers:
        start = (layer.out_size - layer.out_sampling_rate) // 2
        stop = start + layer.out_sampling_rate
        features[layer.name] = taps[layer.name][:, :, start:stop, start:stop]
    return features


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.thorough] if name in MORE else []) for name in FILES]
)
def test_file_of_another_program_goes_all_the_way_to_the_engine(name: str, tmp_path: Path) -> None:
    make, family, architecture = FILES[name]
    path = make(tmp_path)
    if not path.is_file():
        pytest.skip(f"{path} does not exist: the whole cases of the original programs are not here")
    generator = load_generator(path)
    given = ["--generator", path]
    drawn, made, out = tmp_path / "drawn", tmp_path / "made.safetensors", tmp_path / "bundle"
    run("sample", *given, "--out", drawn, "--count", 3, "--classes", "ground", "thing")
    draw_masks(drawn, generator.config.resolution)
    small = ["--members", 3, "--hidden", 6, 4, "--steps", 4]
    selected = ["--taps", "editgan"] if name == EDITGAN else []
    run("train-interpreter", *given, "--annotations", drawn, "--out", made, *small, *selected)
    parts = [*given, "--interpreter", made]
    building = ["build", *parts, "--annotations", drawn, "--name", "foreign", *TERMS, *FEW]
    if selected:
        other = [*building, "--out", tmp_path / "other", "--taps", "layers"]
        assert main([str(part) for part in other]) == 1
        assert not (tmp_path / "other").exists()
    run(*building, "--out", out, *selected)
    run("verify", out, *parts, "--samples", 2)

    manifest = open_bundle(out).manifest
    if selected:
        assert [tap.name for tap in manifest.taps][:2] == ["b4.const", "b4.conv1"]
    assert manifest.vote_rule == ("mean_logits" if selected else "majority")
    assert (manifest.backbone.family, manifest.backbone.architecture) == (family, architecture)
    assert manifest.backbone.c_dim == generator.config.c_dim
    indices = np.arange(2, dtype=np.uint64)
    z = latents(5, indices, generator.config.z_dim)
    classes, c = None, None
    if generator.config.c_dim:
        classes = class_indices(5, indices, np.array(manifest.class_distribution))
        c = torch.eye(generator.config.c_dim, dtype=torch.float64)[classes]
    psi = np.full(2, 0.7, np.float32)
    got = load_model(out).engine.run(LatentInputs(z=z, truncation_psi=psi, class_indices=classes))

    double = copy.deepcopy(generator).double()
    ws = double.mapping(torch.from_numpy(z).double(), c, torch.from_numpy(psi).double())
    painted = double.synthesis(ws, "const", compute_dtype=torch.float64)
    features = plain_features(generator, painted.taps)
    if selected:
        features["b4.const"] = double.state_dict()["synthesis.blocks.b4.constant_input"].expand(2, -1, -1, -1)
    expected = plain_labels(load_interpreter(made), features, manifest.vote_rule)
    picture = torch.floor((127.5 * painted.image + 128).clamp(0, 255)).permute(0, 2, 3, 1).numpy()
    assert got.finite.all()
    assert np.abs(got.image.astype(int) - picture).max() <= 1
    assert (got.label == expected.label.numpy()).mean() > 0.999
    np.testing.assert_allclose(got.uncertainty_map, expected.uncertainty_map.numpy(), rtol=0, atol=2e-3)


def test_conditional_generator_paints_the_class_that_was_asked_for(tmp_path: Path) -> None:
    path = tensorflow_stylegan2_with_classes(tmp_path)
    common = ["sample", "--generator", path, "--count", 3, "--classes", "a", "b"]
    run(*common, "--out", tmp_path / "any")
    run(
        *common, "--out", tmp_path / "second", "--generator-class", 1, "--truncation-psi", 0.5, "--truncation-cutoff", 2
    )
    any_, second = (load_latents(tmp_path / name) for name in ("any", "second"))
    generator = load_generator(path)
    indices = np.arange(3, dtype=np.uint64)
    assert torch.equal(any_["z"], second["z"])
    c = torch.eye(3)[torch.from_numpy(class_indices(0, indices, np.full(3, 1 / 3)))]
    torch.testing.assert_close(any_["ws"], generator.mapping(any_["z"], c), rtol=0, atol=1e-6)
    c = torch.eye(3)[[1, 1, 1]]
    torch.testing.assert_close(second["ws"], generator.mapping(any_["z"], c, 0.5, 2), rtol=0, atol=1e-6)


def load_latents(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "latents.safetensors")


@pytest.mark.parametrize("class_index", [-1, 3])
def test_class_that_the_generator_has_not_is_refused(class_index: int) -> None:
    indices = np.arange(2, dtype=np.uint64)
    with pytest.raises(GeneratorError, match="expected 0 to 2"):
        draw_latents(make_generator(c_dim=3).config, 0, indices, class_index)
    with pytest.raises(GeneratorError, match="unconditional"):
        draw_latents(make_generator().config, 0, indices, class_index)


# --- tap sets ---------------------------------------------------------------------------------------------------------


def full_width(resolution: int, multiplier: int) -> dict[int, int]:
    """StyleGAN2's widths at a channel multiplier; StyleGAN1's are those of multiplier 1."""
    widths = {4: 512, 8: 512, 16: 512, 32: 512, 64: 256 * multiplier, 128: 128 * multiplier, 256: 64 * multiplier}
    widths |= {512: 32 * multiplier, 1024: 16 * multiplier}
    return {r: width for r, width in widths.items() if r <= resolution}


@pytest.mark.parametrize(("resolution", "dims"), [(256, 5888), (512, 6016), (1024, 6080)])
def test_editgan_looks_at_the_constant_and_every_styled_layer(resolution: int, dims: int) -> None:
    with torch.device("meta"):
        generator = Generator(GeneratorConfig(resolution=resolution, channels=full_width(resolution, 2)))
    taps = select_taps(generator, ["editgan"])
    assert sum(tap.channels for tap in taps) == dims
    assert [tap.name for tap in taps[:4]] == ["b4.const", "b4.conv1", "b8.conv0", "b8.conv1"]


@pytest.mark.parametrize(("resolution", "dims"), [(256, 4992), (512, 5056), (1024, 5088)])
def test_datasetgan_looks_at_two_layers_a_block(resolution: int, dims: int) -> None:
    with torch.device("meta"):
        generator = StyleGAN1Generator(StyleGAN1Config(resolution=resolution, channels=full_width(resolution, 1)))
    taps = select_taps(generator, ["datasetgan"])
    assert sum(tap.channels for tap in taps) == dims
    assert [tap.name for tap in taps[:4]] == ["b4.epi2", "b4.conv1", "b8.epi2", "b8.conv1"]
    assert taps == select_taps(generator, None)


def test_selection_of_another_backbone_or_of_unknown_layers_is_refused() -> None:
    generator = make_generator()
    with pytest.raises(TrainingError, match="for stylegan1, but the generator is a stylegan2"):
        select_taps(generator, ["datasetgan"])
    with pytest.raises(TrainingError, match=r"'b64\.conv1' is unknown, expected some of"):
        select_taps(generator, ["b4.conv1", "b64.conv1"])
    assert select_taps(generator, ["b8.conv1", "b4.const"]) == (TapSpec("b4.const", 8, 4), TapSpec("b8.conv1", 7, 8))


# --- DatasetGAN's classifiers -----------------------------------------------------------------------------------------


def make_classifier(features: int, classes: int, seed: int) -> nn.Sequential:
    """DatasetGAN's pixel classifier in torch's own modules, with statistics that are not the neutral ones."""
    torch.manual_seed(seed)
    layers = nn.Sequential(
        nn.Linear(features, 12), nn.ReLU(), nn.BatchNorm1d(12),
        nn.Linear(12, 6), nn.ReLU(), nn.BatchNorm1d(6),
        nn.Linear(6, classes),
    )  # fmt: skip
    for index in (2, 5):
        norm = layers[index]
        assert isinstance(norm, nn.BatchNorm1d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.normal_(0.3, 0.3)
        norm.running_var.uniform_(0.5, 2.0)
    return layers.double().eval().requires_grad_(False)


def save_classifiers(folder: Path, classifiers: list[nn.Sequential]) -> Path:
    folder.mkdir()
    for index, layers in enumerate(classifiers):
        state = {f"module.layers.{name}": tensor.float() for name, tensor in layers.state_dict().items()}
        torch.save({"model_state_dict": state}, folder / f"model_{index}.pth")
    return folder


def test_datasetgans_classifiers_become_a_bundle_that_the_service_serves(tmp_path: Path) -> None:
    """DatasetGAN brings the features of 1024 x 1024 down to 512 x 512; here 16 to 8."""
    path = datasetgan_stylegan1(tmp_path)
    np.save(tmp_path / "mean.npy", np.linspace(-1, 1, 5, dtype=np.float32)[None])
    given = ["--generator", path, "--mean-latent", tmp_path / "mean.npy"]
    classifiers = [make_classifier(24, 4, seed) for seed in range(5)]
    folder = save_classifiers(tmp_path / "trained", classifiers)
    made, out = tmp_path / "made.safetensors", tmp_path / "bundle"
    coarse = ["--label-resolution", 8]
    run("import-interpreter", *given, "--classifiers", folder, "--out", made, "--taps", "datasetgan", *coarse)
    names = ["--classes", "ground", "wheel", "door", "roof"]
    settings = ["--truncation-psi", 0.7, "--truncation-cutoff", 4, "--crop", 2, 0, 12, 16]
    parts = [*given, "--interpreter", made]
    run("build", *parts, *names, "--out", out, "--name", "cars", *TERMS, *FEW, *settings)
    run("verify", out, *parts, "--samples", 2)
    manifest = open_bundle(out).manifest
    assert [entry.name for entry in manifest.classes] == names[1:]
    assert (manifest.truncation.cutoff, manifest.frame.crop_top, manifest.frame.image_height) == (4, 2, 12)
    assert (manifest.frame.label_height, manifest.frame.label_width) == (6, 8)
    assert manifest.provenance.num_annotated_images == 0

    z = latents(9, np.arange(2, dtype=np.uint64), 6)
    got = load_model(out).engine.run(LatentInputs(z=z, truncation_psi=np.full(2, 0.7, np.float32)))
    double = load_generator(path, mean_latent=tmp_path / "mean.npy").double()
    ws = double.mapping(torch.from_numpy(z).double(), None, 0.7, 4)
    painted = double.synthesis(ws, "const", compute_dtype=torch.float64)
    upsampled = [functional.interpolate(tap, size=[8, 8], mode="bilinear") for tap in painted.taps.values()]
    pixels = torch.cat(upsampled, dim=1).permute(0, 2, 3, 1).flatten(0, 2)
    winners = torch.stack([layers(pixels).argmax(dim=1) for layers in classifiers])  # [M, P]
    votes = functional.one_hot(winners, 4).sum(dim=0)
    expected = votes.argmax(dim=1).reshape(2, 8, 8)[:, 1:7].numpy()
    assert len(np.unique(expected)) > 1, "the case is degenerate"
    assert (got.label == expected).mean() > 0.999


def test_inspect_says_what_a_classifier_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_classifiers(tmp_path / "trained", [make_classifier(24, 4, 0)])
    assert main(["inspect", str(folder / "model_0.pth"), "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described.pop("path") == str(folder / "model_0.pth")
    assert described == {
        "kind": "DatasetGAN pixel classifier",
        "num_features": 24,
        "hidden_widths": [12, 6],
        "num_classes": 4,
        "num_parameters": 24 * 12 + 12 * 6 + 6 * 4 + 3 * 12 + 3 * 6 + 4,
    }
    assert main(["inspect", str(folder / "model_0.pth")]) == 0
    assert "tap" not in capsys.readouterr().out


@pytest.mark.skipif(not WHOLE.is_dir(), reason=f"{WHOLE} does not exist: the whole cases are not here")
def test_original_classifiers_are_read_from_their_folder() -> None:
    generator = load_generator(WHOLE / "stylegan1_datasetgan_32.pt")
    folder = WHOLE / "datasetgan_interpreter_32"
    interpreter, files = read_classifiers(folder, taps=generator.tap_specs, label_resolution=32)
    assert [path.name for path in files] == [f"model_{index}.pth" for index in range(5)]
    with np.load(folder / "expected.npz") as expected, np.load(WHOLE / "stylegan1_datasetgan_32.npz") as arrays:
        taps = {tap.name: torch.from_numpy(arrays[f"tap/{i:02}"]) for i, tap in enumerate(generator.tap_specs)}
        label = plain_labels(interpreter, taps, "majority").label
        np.testing.assert_array_equal(label.numpy().reshape(expected["label"].shape), expected["label"])


def test_folder_without_all_classifiers_is_refused(tmp_path: Path) -> None:
    taps = (TapSpec("a", 24, 8),)
    (tmp_path / "none").mkdir()
    with pytest.raises(CheckpointError, match=r"holds no model_0\.pth"):
        read_classifiers(tmp_path / "none", taps=taps, label_resolution=8)
    folder = save_classifiers(tmp_path / "some", [make_classifier(24, 3, seed) for seed in range(3)])
    (folder / "model_1.pth").unlink()
    with pytest.raises(CheckpointError, match=r"2 classifiers but no model_1\.pth"):
        read_classifiers(folder, taps=taps, label_resolution=8)
    torch.save({"weights": torch.zeros(2)}, folder / "model_1.pth")
    with pytest.raises(CheckpointError, match="holds no model_state_dict"):
        read_classifiers(folder, taps=taps, label_resolution=8)


@pytest.mark.parametrize("name", sorted(FILES))
def test_tap_depends_on_its_w_and_on_none_behind_it(tmp_path: Path, name: str) -> None:
    path = FILES[name][0](tmp_path)
    if not path.exists():
        pytest.skip(f"{path} does not exist: the whole cases of the original programs are not here")
    generator = load_generator(path)
    ws = torch.randn(1, generator.config.num_ws, generator.config.w_dim)
    with torch.no_grad():
        taps = generator.synthesis(ws, "const").taps
        for spec, w in zip(generator.tap_specs, generator.tap_ws, strict=True):
            behind, at = ws.clone(), ws.clone()
            behind[:, w + 1 :] += 1.0
            at[:, w] += 1.0
            assert torch.equal(generator.synthesis(behind, "const").taps[spec.name], taps[spec.name])
            assert not torch.equal(generator.synthesis(at, "const").taps[spec.name], taps[spec.name])
