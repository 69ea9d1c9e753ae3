"""Every checkpoint that people hold, by one function: against the original programs' numbers.

`tests/data/checkpoints` holds files in the real layouts with what the original programs compute from them.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

import labelmint_export
from labelmint.bundle import open_bundle
from labelmint_export.checkpoints import ModuleRecord, read_checkpoint
from labelmint_export.checkpoints.loading import inspect_checkpoint, load_generator
from labelmint_export.checkpoints.rosinality import generator_from_state_dict
from labelmint_export.checkpoints.stylegan2 import config_from_record, generator_from_record
from labelmint_export.cli import main
from labelmint_export.errors import CheckpointError, GeneratorError
from labelmint_export.generator import Generator
from labelmint_export.generator.snapshots import save_generator
from labelmint_export.generator.stylegan1 import StyleGAN1Generator
from labelmint_export.generator.stylegan3 import StyleGAN3Generator
from tests.export.plain_stylegan1 import make_state_dict
from tests.export.tiny_parts import make_generator

DATA = Path(__file__).parents[1] / "data/checkpoints"
WHOLE = Path(__file__).parents[3] / "shared/reference"
HALF = ("b16.", "b32.")
"""Blocks that the program of `stylegan2_ada_32` computed in float16, on the CPU too."""

Arrays = dict[str, npt.NDArray[Any]]  # Any: arrays of every dtype


def case(name: str) -> tuple[Path, Arrays]:
    with np.load(DATA / f"{name}.npz") as file:
        return next(path for path in DATA.glob(f"{name}.*") if path.suffix != ".npz"), dict(file)


@pytest.mark.parametrize("name", ["stylegan1.pt", "rosinality_32.pt", "stylegan2_ada_32.pkl", "stylegan3_r_32_c10.pkl"])
def test_generators_of_all_programs_are_called_alike(name: str, tmp_path: Path) -> None:
    path = DATA / name
    if name == "stylegan1.pt":
        path = tmp_path / name
        torch.save({key: torch.from_numpy(value) for key, value in make_state_dict({4: 5, 8: 4}).items()}, path)
    generator = load_generator(path)
    config = generator.config
    c = torch.eye(config.c_dim)[:2] if config.c_dim else None
    ws = generator.mapping(torch.zeros(2, config.z_dim), c, truncation_psi=0.7, truncation_cutoff=2)
    for noise_mode in ("const", "none", "random"):
        image, taps = generator.synthesis(ws, noise_mode, None)
        assert image.shape == (2, config.image_channels, config.resolution, config.resolution)
        assert list(taps) == [tap.name for tap in generator.tap_specs]
    with pytest.raises(GeneratorError, match="noise names 'b99'"):
        generator.synthesis(ws, "const", {"b99": torch.zeros(1, 1, 4, 4)})
    with pytest.raises(TypeError, match="positional arguments"):
        generator.synthesis(ws, "const", None, torch.float64)
    for unknown in ("constant", "", None, ["const"]):
        with pytest.raises(GeneratorError, match=r"noise_mode is .*, expected one of const, random, none") as caught:
            generator.synthesis(ws, unknown)
        assert caught.value.field == "noise_mode"


@pytest.mark.parametrize("name", ["stylegan2_ada_32", "stylegan2_from_sg3_32_c5"])
def test_nvidia_snapshot_computes_what_its_program_computes(name: str) -> None:
    path, arrays = case(name)
    generator = load_generator(path)
    z = torch.from_numpy(arrays["z"])
    c = torch.from_numpy(arrays["c"]) if "c" in arrays else None
    for key, psi, cutoff in (("psi_1", 1.0, None), ("psi_0_7", 0.7, None), ("psi_0_5_cutoff_4", 0.5, 4)):
        np.testing.assert_allclose(generator.mapping(z, c, psi, cutoff), arrays[f"ws_{key}"], rtol=0, atol=1e-5)
    got = generator.synthesis(generator.mapping(z, c, 0.7), "const")
    # Where the program rounds to float16 (steps of 0.004 between 4 and 8), float32 is the better one of the two.
    tolerance = 2e-2 if name == "stylegan2_ada_32" else 1e-4
    np.testing.assert_allclose(got.image, arrays["img_psi_0_7_noise_const"], rtol=0, atol=tolerance)
    assert len(got.taps) == sum(key.startswith("tap/") for key in arrays)
    for tap, values in got.taps.items():
        half = arrays[f"tap/{tap}"].dtype == np.float16
        assert half == (name == "stylegan2_ada_32" and tap.startswith(HALF))
        np.testing.assert_allclose(values[:1], arrays[f"tap/{tap}"], rtol=0, atol=2e-2 if half else 1e-4)


def test_rosinality_snapshot_computes_what_its_program_computes() -> None:
    path, arrays = case("rosinality_32")
    generator = load_generator(path)
    np.testing.assert_allclose(generator.mapping.w_avg[None], arrays["latent_avg"], rtol=0, atol=0)
    ws = generator.mapping(torch.from_numpy(arrays["z"]), None, 0.7)
    np.testing.assert_allclose(ws, arrays["ws_psi_0_7"], rtol=0, atol=1e-5)
    got = generator.synthesis(ws)
    np.testing.assert_allclose(got.image, arrays["img_psi_0_7_noise_const"], rtol=0, atol=1e-4)
    expected = [key for key in arrays if key.startswith("tap/")]
    for (_, tap), key in zip(got.taps.items(), expected, strict=True):
        np.testing.assert_allclose(tap[:1], arrays[key], rtol=0, atol=1e-4)


def test_rosinality_snapshot_without_mean_takes_the_given_or_that_of_8000_latents(tmp_path: Path) -> None:
    path, _ = case("rosinality_32")
    content: Any = read_checkpoint(path)  # Any: a record of whatever the file holds
    mean = np.linspace(-1, 1, 64, dtype=np.float32)
    np.testing.assert_array_equal(generator_from_state_dict(content["g_ema"], mean, path).mapping.w_avg, mean)
    estimated = generator_from_state_dict(content["g_ema"], None, path)
    with torch.no_grad():
        w = estimated.mapping.map_to_w(torch.randn(20_000, 64, generator=torch.Generator().manual_seed(3)))
    np.testing.assert_allclose(estimated.mapping.w_avg, w.mean(dim=0), rtol=0, atol=0.08 * float(w.std()))
    np.save(tmp_path / "mean.npy", mean[None])
    loaded = load_generator(path, mean_latent=tmp_path / "mean.npy")
    np.testing.assert_array_equal(loaded.mapping.w_avg, mean)


@pytest.mark.parametrize("wrapped", [False, True])
def test_rosinality_state_dict_is_recognised_wherever_it_lies(tmp_path: Path, wrapped: bool) -> None:
    content: Any = read_checkpoint(DATA / "rosinality_32.pt")  # Any: a record of whatever the file holds
    prefix = "module." if wrapped else ""
    state = {prefix + name: torch.from_numpy(array.copy()) for name, array in content["g_ema"].items()}
    mean = torch.from_numpy(content["latent_avg"].copy())
    z = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    expected = load_generator(DATA / "rosinality_32.pt")(z, truncation_psi=1.0).image
    for index, saved in enumerate((state, {"g_ema": state, "latent_avg": mean, "g": {}, "args": None})):
        torch.save(saved, tmp_path / f"{index}.pt")
        assert inspect_checkpoint(tmp_path / f"{index}.pt")["kind"] == "rosinality StyleGAN2"
        got = load_generator(tmp_path / f"{index}.pt")(z, truncation_psi=1.0).image
        torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_rosinality_filter_that_is_not_symmetric_is_turned_as_in_its_program() -> None:
    """Behind its transposed convolution too; upsampling pictures turns it already, by being a transposed one."""
    path, _ = case("rosinality_32")
    content: Any = read_checkpoint(path)  # Any: a record of whatever the file holds
    square = np.outer([1, 2, 3, 5], [1, 2, 3, 5]).astype(np.float32) / 121
    state = dict(content["g_ema"])
    state |= {name: 4 * square for name in state if name.endswith(".kernel")}
    tensors = generator_from_state_dict(state, content["latent_avg"], path).state_dict()
    np.testing.assert_allclose(tensors["synthesis.blocks.b8.conv0.conv.resample_filter"], square[::-1, ::-1])
    np.testing.assert_allclose(tensors["synthesis.blocks.b8.resample_filter"], square)


@pytest.mark.parametrize("shape", [(64,), (1, 64), (18, 64), (1, 18, 64)])
def test_mean_w_may_stand_once_for_each_layer(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """DatasetGAN's program writes avg_latent_stylegan1.npy as [18, 512]."""
    mean = np.linspace(-1, 1, 64, dtype=np.float32)
    np.save(tmp_path / "mean.npy", np.broadcast_to(mean, shape))
    loaded = load_generator(DATA / "rosinality_32.pt", mean_latent=tmp_path / "mean.npy")
    np.testing.assert_array_equal(loaded.mapping.w_avg, mean)


def test_mean_w_that_differs_between_layers_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "mean.npy", np.stack([np.zeros(64), np.ones(64)]))
    with pytest.raises(CheckpointError, match=r"has shape \[2, 64\], expected 64 finite numbers") as caught:
        load_generator(DATA / "rosinality_32.pt", mean_latent=tmp_path / "mean.npy")
    assert caught.value.field == "latent_avg"


def test_own_snapshot_is_read(tmp_path: Path) -> None:
    generator = make_generator()
    save_generator(generator, tmp_path / "own.safetensors")
    loaded = labelmint_export.load_generator(tmp_path / "own.safetensors")
    z = torch.randn(2, 8)
    torch.testing.assert_close(loaded.mapping(z), generator.mapping(z), rtol=0, atol=0)
    assert inspect_checkpoint(tmp_path / "own.safetensors")["kind"] == "labelmint StyleGAN2"


def test_stylegan1_state_dict_is_recognised_wherever_it_lies(tmp_path: Path) -> None:
    tensors = {k: torch.from_numpy(v) for k, v in make_state_dict({4: 5, 8: 4, 16: 3}).items()}
    for index, content in enumerate((tensors, {"g_running": tensors, "step": 3})):
        torch.save(content, tmp_path / f"{index}.pt")
        generator = load_generator(tmp_path / f"{index}.pt")
        assert isinstance(generator, StyleGAN1Generator)
        assert inspect_checkpoint(tmp_path / f"{index}.pt")["kind"] == "DatasetGAN StyleGAN1"


def test_stylegan3_is_recognised() -> None:
    assert isinstance(load_generator(DATA / "stylegan3_r_32_c10.pkl"), StyleGAN3Generator)


@pytest.mark.parametrize(
    ("name", "architecture", "clamp", "networks"),
    [("rosinality_32.pt", "skip", None, ["g_ema"]), ("stylegan3_r_32_c10.pkl", "r", 256.0, ["G_ema"])],
)
def test_inspect_tells_the_architecture_and_which_networks_are_there(
    name: str, architecture: str, clamp: float | None, networks: list[str]
) -> None:
    facts = inspect_checkpoint(DATA / name)
    assert (facts["architecture"], facts["conv_clamp"], facts["networks"]) == (architecture, clamp, networks)


def test_inspect_names_the_networks_of_a_whole_training(tmp_path: Path) -> None:
    content: Any = read_checkpoint(DATA / "rosinality_32.pt")  # Any: a record of whatever the file holds
    state = {name: torch.from_numpy(array.copy()) for name, array in content["g_ema"].items()}
    saved = {"g": state, "d": {"weight": torch.zeros(3)}, "g_ema": state, "g_optim": {"state": {}}, "args": None}
    torch.save(saved, tmp_path / "whole.pt")
    assert inspect_checkpoint(tmp_path / "whole.pt")["networks"] == ["g", "d", "g_ema"]


@pytest.mark.skipif(not WHOLE.is_dir(), reason=f"{WHOLE} does not exist: the other original files are not here")
def test_every_original_file_is_recognised() -> None:
    kinds = {path.name: inspect_checkpoint(path)["kind"] for path in sorted(WHOLE.glob("*.p*t*")) if path.is_file()}
    kinds |= {path.name: inspect_checkpoint(path)["kind"] for path in sorted(WHOLE.glob("*.pkl"))}
    assert kinds == {
        "rosinality_32.pt": "rosinality StyleGAN2",
        "stylegan1_datasetgan_128.pt": "DatasetGAN StyleGAN1",
        "stylegan1_datasetgan_32.pt": "DatasetGAN StyleGAN1",
        "stylegan2_ada_32.pkl": "NVIDIA StyleGAN2",
        "stylegan2_from_sg3_32_c5.pkl": "NVIDIA StyleGAN2",
        "stylegan3_r_32_c10.pkl": "NVIDIA StyleGAN3",
        "stylegan3_t_32.pkl": "NVIDIA StyleGAN3",
    }


# --- what does not fit ------------------------------------------------------------------------------------------------


def nvidia_record() -> ModuleRecord:
    content: Any = read_checkpoint(DATA / "stylegan2_ada_32.pkl")  # Any: a record of whatever the file holds
    record = content["G_ema"]
    assert isinstance(record, ModuleRecord)
    return record


def edit(record: ModuleRecord, path: str) -> ModuleRecord:
    for name in path.split("."):
        record = record.modules[name]
    return record


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("synthesis.img_resolution", lambda r: r.modules["synthesis"].attributes.update(img_resolution=48)),
        ("synthesis.b8", lambda r: r.modules["synthesis"].modules.pop("b8")),
        ("synthesis.b8.conv0.up", lambda r: edit(r, "synthesis.b8.conv0").attributes.update(up=1)),
        ("synthesis.b8.conv1.activation", lambda r: edit(r, "synthesis.b8.conv1").attributes.update(activation="relu")),
        ("synthesis.b16.conv0.act_gain", lambda r: edit(r, "synthesis.b16.conv0").attributes.update(act_gain=1.0)),
        ("synthesis.b16.conv0.conv_clamp", lambda r: edit(r, "synthesis.b16.conv0").attributes.update(conv_clamp=8)),
        ("synthesis.b16.architecture", lambda r: edit(r, "synthesis.b16").attributes.update(architecture="orig")),
        ("architecture", lambda r: edit(r, "synthesis.b8").attributes.update(architecture="dense")),
        ("mapping.num_layers", lambda r: r.modules["mapping"].attributes.update(num_layers=10**6)),
        ("mapping.fc3.weight_gain", lambda r: edit(r, "mapping.fc3").attributes.update(weight_gain=1.0)),
        ("mapping.num_ws", lambda r: r.modules["mapping"].attributes.update(num_ws=9)),
        ("z_dim", lambda r: r.modules["mapping"].attributes.update(z_dim=2**30)),
    ],
)
def test_record_that_contradicts_itself_is_refused(field: str, change: Callable[[ModuleRecord], object]) -> None:
    record = nvidia_record()
    change(record)
    with pytest.raises(CheckpointError, match="expected") as caught:
        config_from_record(record)
    assert caught.value.field == field


def test_tensor_that_does_not_fit_is_named() -> None:
    record = nvidia_record()
    edit(record, "synthesis.b8.conv1").parameters["bias"] = np.zeros(7, np.float32)
    with pytest.raises(CheckpointError, match=r"b8.conv1.bias in x has shape \[7\], expected \[48\]"):
        generator_from_record(record, Path("x"))
    record = nvidia_record()
    edit(record, "synthesis.b8.conv1").parameters["bias"] = np.full(48, np.nan, np.float32)
    with pytest.raises(CheckpointError, match="not finite"):
        generator_from_record(record, Path("x"))


def test_layer_without_noise_has_none() -> None:
    record = nvidia_record()
    del edit(record, "synthesis.b8.conv1").parameters["noise_strength"]
    del edit(record, "synthesis.b8.conv1").buffers["noise_const"]
    generator = generator_from_record(record, Path("x"))
    assert float(generator.state_dict()["synthesis.blocks.b8.conv1.noise_const"].abs().max()) == 0


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda g: g.pop("style.1.weight"), "style.1.weight"),
        (lambda g: g.pop("convs.2.noise.weight"), "synthesis.blocks.b16.conv0.noise_strength"),
        (lambda g: g.update({"extra": np.zeros(3, np.float32)}), "extra"),
        (lambda g: g.update({"style.2.bias": np.zeros(64, np.int64)}), "style.2.bias"),
        (
            lambda g: g.update({"noises.noise_1": np.zeros((1, 1, 9, 9), np.float32)}),
            "synthesis.blocks.b8.conv0.noise_const",
        ),
    ],
)
def test_rosinality_state_that_does_not_fit_is_refused(change: Callable[[dict[str, Any]], object], field: str) -> None:
    content: Any = read_checkpoint(DATA / "rosinality_32.pt")  # Any: a record of whatever the file holds
    state = dict(content["g_ema"])
    change(state)
    with pytest.raises(CheckpointError) as caught:
        generator_from_state_dict(state, None, Path("x"))
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model_state_dict": {"layers.0.weight": torch.zeros(2)}}, "holds a pixel classifier of DatasetGAN"),
        (
            {"weights": torch.zeros(2)},
            r"no generator but a dict of 1 entries, \['weights'\] first, expected a snapshot of .*; give one of these",
        ),
        ([1, 2], "holds no generator but a list, expected"),
        ({"g_ema": {"style.1.weight": 3}}, "style.1.weight in .* is a int, expected an array"),
    ],
)
def test_file_of_another_kind_is_told(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=message):
        load_generator(tmp_path / "x.pt")


@pytest.mark.parametrize("name", ["x.pkl", "x.safetensors"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Path.mkdir, "a folder, expected a.*; give "),
        (lambda path: None, "no such file; give |does not exist, expected a generator.*; give "),
    ],
)
def test_path_without_a_file_is_told(tmp_path: Path, name: str, make: Callable[[Path], object], message: str) -> None:
    make(tmp_path / name)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_generator(tmp_path / name)
    assert name in str(caught.value)
    assert caught.value.field == "path"


def test_empty_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.pkl").touch()
    with pytest.raises(CheckpointError, match="the file is empty; get it again"):
        load_generator(tmp_path / "x.pkl")


def test_mean_latent_that_is_not_needed_or_no_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "mean.npy", np.zeros(64, np.float32))
    with pytest.raises(CheckpointError, match="holds a mean w; leave it out"):
        load_generator(DATA / "stylegan2_ada_32.pkl", mean_latent=tmp_path / "mean.npy")
    (tmp_path / "broken.npy").write_bytes(b"no array")
    np.save(tmp_path / "words.npy", np.array(["a"]))
    np.save(tmp_path / "integers.npy", np.zeros(64, np.int64))
    with (tmp_path / "several.npy").open("wb") as file:
        np.savez(file, np.zeros(64, np.float32))
    for name, message in (
        ("no", "does not exist"),
        ("broken", "is no .npy file"),
        ("words", "'<U1'.* expected type, order and shape of booleans, integers or floating-point numbers"),
        ("integers", "holds int64, expected floating-point numbers"),
        ("several", "several arrays"),
    ):
        with pytest.raises(CheckpointError, match=message) as caught:
            load_generator(DATA / "rosinality_32.pt", mean_latent=tmp_path / f"{name}.npy")
        assert caught.value.field == "mean_latent"


# --- the commands -----------------------------------------------------------------------------------------------------


def test_inspect_prints_shape_and_taps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(DATA / "stylegan2_from_sg3_32_c5.pkl"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["kind"], told["resolution"], told["c_dim"], told["num_ws"]) == ("NVIDIA StyleGAN2", 32, 5, 8)
    assert told["taps"][1] == {"name": "b8.conv0", "channels": 48, "resolution": 8, "w": 1}
    assert main(["inspect", str(DATA / "rosinality_32.pt")]) == 0
    assert "kind            rosinality StyleGAN2" in capsys.readouterr().out


def test_inspect_runs_nothing_and_ends_with_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return open, (str(tmp_path / "trap"), "w")

    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"G_ema": Trap()}))
    assert main(["inspect", str(tmp_path / "x.pkl")]) == 1
    assert "io.open" in capsys.readouterr().err
    assert not (tmp_path / "trap").exists()


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["stylegan2_ada_32.pkl", "rosinality_32.pt"])
def test_foreign_generator_goes_all_the_way_to_a_bundle(tmp_path: Path, name: str) -> None:
    """Sample, draw, train, build and verify: the engine's numbers are those of the file's generator."""
    generator = ["--generator", str(DATA / name)]
    drawn, made, bundle = (tmp_path / part for part in ("drawn", "made.safetensors", "bundle"))
    assert main(["sample", *generator, "--out", str(drawn), "--count", "3", "--classes", "ground", "thing"]) == 0
    for mask in sorted(drawn.glob("*.mask.png")):
        labels = np.zeros((32, 32), np.uint8)
        labels[8:24, 8:24] = 1
        image = Image.open(mask)
        painted = Image.fromarray(labels, mode=image.mode)
        if image.mode == "P":
            painted.putpalette(image.getpalette() or [])
        painted.save(mask)
    small = ["--members", "3", "--hidden", "6", "4", "--steps", "4"]
    parts = [*generator, "--annotations", str(drawn)]
    assert main(["train-interpreter", *parts, "--out", str(made), *small]) == 0
    terms = ["--weights-licence", "CC0-1.0", "--data-licence", "CC0-1.0", "--attribution", "Someone"]
    few = ["--calibration-samples", "4", "--parity-samples", "1", "--batch-size", "2", "--psi-grid", "1.0"]
    built = ["build", *parts, "--interpreter", str(made), "--out", str(bundle), "--name", "foreign", *terms, *few]
    assert main(built) == 0
    assert open_bundle(bundle).manifest.name == "foreign"
    assert main(["verify", str(bundle), *generator, "--interpreter", str(made)]) == 0
    assert isinstance(load_generator(DATA / name), Generator)
