"""TensorFlow snapshots of StyleGAN1 and StyleGAN2: files in their layout, against numpy in TensorFlow's conventions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from labelmint_export.checkpoints.loading import inspect_checkpoint, load_generator
from labelmint_export.errors import CheckpointError
from labelmint_export.generator import Generator
from labelmint_export.generator.stylegan1 import StyleGAN1Generator
from tests.export.plain_tflib import Floats, plain_stylegan1, plain_stylegan2, plain_w
from tests.export.tflib_files import Variables, make_stylegan1, make_stylegan2, write_snapshot

CHANNELS = {4: 5, 8: 4, 16: 3}
OPTIONS: dict[str, object] = {
    "num_channels": 3,
    "resolution": 16,
    "label_size": 0,
    "fmap_base": 8192,
    "truncation_psi": None,
}
PSI = 0.6


def draw(*shape: int) -> Floats:
    return np.random.default_rng(3).normal(size=shape)


def truncated(variables: Variables, w: Floats, num_ws: int) -> Floats:
    mean = variables["dlatent_avg"].astype(np.float64)
    return np.repeat((mean + PSI * (w - mean))[:, None], num_ws, axis=1)


def as_images(pictures: Floats) -> Floats:
    """[N, H, W, C] to [N, C, H, W]."""
    return pictures.transpose(0, 3, 1, 2)


# --- StyleGAN1 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "plain"),
    [
        ({}, {}),
        ({"fused_scale": True}, {"fused_from": 8}),
        ({"fused_scale": False, "blur_filter": None}, {"fused_from": 9999, "blur": None}),
        ({"use_wscale": False}, {"scaled": False}),
    ],
)
def test_stylegan1_computes_what_its_variables_say(
    tmp_path: Path, options: dict[str, object], plain: dict[str, object]
) -> None:
    variables = make_stylegan1(CHANNELS)
    scaled = bool(plain.get("scaled", True))
    if not scaled:  # weights of the size that such a network has
        variables = {n: a * np.float32(0.1) if n.endswith("/weight") else a for n, a in variables.items()}
    path = write_snapshot(tmp_path / "x.pkl", variables, OPTIONS | options)
    generator = load_generator(path)
    assert isinstance(generator, StyleGAN1Generator)
    z = draw(3, 6)
    w = plain_w(variables, z, None, gain_on_bias=False, scaled=scaled)
    double = generator.double()
    np.testing.assert_allclose(double.mapping.map_to_w(torch.from_numpy(z)), w, rtol=0, atol=1e-6)
    expected = truncated(variables, w, 6)
    ws = generator.mapping(torch.from_numpy(z), None, PSI)
    np.testing.assert_allclose(ws, expected, rtol=0, atol=1e-6)
    got = double.synthesis(torch.from_numpy(expected), "const", compute_dtype=torch.float64)
    np.testing.assert_allclose(got.image, as_images(plain_stylegan1(variables, expected, **plain)), rtol=0, atol=1e-5)  # type: ignore[arg-type]  # options of several types
    assert not path.with_suffix(".trap").exists()


def test_stylegan1_upsamples_by_transposed_convolution_from_128_pixels(tmp_path: Path) -> None:
    channels = {4: 4, 8: 3, 16: 3, 32: 2, 64: 2, 128: 2}
    variables = make_stylegan1(channels)
    generator = load_generator(write_snapshot(tmp_path / "x.pkl", variables, OPTIONS)).double()
    ws = draw(1, 12, 5)
    got = generator.synthesis(torch.from_numpy(ws), "const", compute_dtype=torch.float64).image
    np.testing.assert_allclose(got, as_images(plain_stylegan1(variables, ws)), rtol=0, atol=1e-5)


def test_stylegan1_in_float32_is_near(tmp_path: Path) -> None:
    variables = make_stylegan1(CHANNELS)
    generator = load_generator(write_snapshot(tmp_path / "x.pkl", variables, OPTIONS, version=3))
    ws = draw(2, 6, 5).astype(np.float32)
    got = generator.synthesis(torch.from_numpy(ws)).image
    np.testing.assert_allclose(got, as_images(plain_stylegan1(variables, ws.astype(np.float64))), rtol=0, atol=1e-4)


def test_stylegan1_with_classes_maps_latent_and_class(tmp_path: Path) -> None:
    variables = make_stylegan1(CHANNELS, classes=4)
    options = OPTIONS | {"label_size": 4}
    generator = load_generator(write_snapshot(tmp_path / "x.pkl", variables, options, version=3)).double()
    assert isinstance(generator, StyleGAN1Generator)
    z, c = draw(3, 6), np.eye(4)[[2, 0, 3]]
    got = generator.mapping.map_to_w(torch.from_numpy(z), torch.from_numpy(c))
    np.testing.assert_allclose(got, plain_w(variables, z, c, gain_on_bias=False), rtol=0, atol=1e-6)
    assert (generator.config.z_dim, generator.config.c_dim) == (6, 4)
    ws = draw(2, 6, 5)
    picture = generator.synthesis(torch.from_numpy(ws), "const", compute_dtype=torch.float64).image
    np.testing.assert_allclose(picture, as_images(plain_stylegan1(variables, ws)), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("structure", "lods"), [("fixed", 1), ("linear", 3), ("recursive", 3)])
def test_stylegan1_of_each_structure_paints_its_largest_picture(tmp_path: Path, structure: str, lods: int) -> None:
    """Progressive growing keeps the colours of smaller pictures, a network of fixed structure has none."""
    variables = {
        name: array
        for name, array in make_stylegan1(CHANNELS).items()
        if "ToRGB_lod" not in name or int(name.split("ToRGB_lod")[1][0]) < lods
    }
    options = OPTIONS | {"structure": structure}
    generator = load_generator(write_snapshot(tmp_path / "x.pkl", variables, options, version=3)).double()
    ws = draw(1, 6, 5)
    got = generator.synthesis(torch.from_numpy(ws), "const", compute_dtype=torch.float64).image
    np.testing.assert_allclose(got, as_images(plain_stylegan1(variables, ws)), rtol=0, atol=1e-5)


def test_stylegan1_without_noise_has_none(tmp_path: Path) -> None:
    variables = {n: a for n, a in make_stylegan1(CHANNELS).items() if "oise" not in n}
    generator = load_generator(write_snapshot(tmp_path / "x.pkl", variables, OPTIONS | {"use_noise": False})).double()
    ws = draw(1, 6, 5)
    got = generator.synthesis(torch.from_numpy(ws), "const", compute_dtype=torch.float64).image
    np.testing.assert_allclose(got, as_images(plain_stylegan1(variables, ws)), rtol=0, atol=1e-5)


# --- StyleGAN2 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig", "grown"])
def test_stylegan2_computes_what_its_variables_say(tmp_path: Path, architecture: str) -> None:
    variables = make_stylegan2(CHANNELS, architecture=architecture)
    options = OPTIONS if architecture == "grown" else OPTIONS | {"architecture": architecture}
    generator = load_generator(write_snapshot(tmp_path / "x.pkl", variables, options))
    assert isinstance(generator, Generator)
    double = generator.double()
    z = draw(2, 6)
    w = plain_w(variables, z, None, gain_on_bias=True)
    ws = truncated(variables, w, 6)
    np.testing.assert_allclose(double.mapping(torch.from_numpy(z), None, PSI), ws, rtol=0, atol=1e-6)
    image, taps = plain_stylegan2(variables, ws, architecture=architecture)
    got = double.synthesis(torch.from_numpy(ws), "const", compute_dtype=torch.float64)
    np.testing.assert_allclose(got.image, as_images(image), rtol=0, atol=1e-5)
    for (name, tap), expected in zip(got.taps.items(), taps, strict=True):
        # The second layer of a residual block gives its part of the sum, as in NVIDIA's later programs.
        share = np.sqrt(0.5) if architecture == "resnet" and name.endswith("conv1") and name != "b4.conv1" else 1.0
        np.testing.assert_allclose(tap, share * as_images(expected), rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("label", [("LabelConcat", 4, 6), ("LabelEmbed", 4, 3)])
def test_stylegan2_with_classes_maps_latent_and_class(tmp_path: Path, label: tuple[str, int, int]) -> None:
    variables = make_stylegan2(CHANNELS, label=label)
    generator = load_generator(write_snapshot(tmp_path / "x.pkl", variables, OPTIONS | {"label_size": 4})).double()
    z, c = draw(3, 6), np.eye(4)[[2, 0, 3]]
    got = generator.mapping.map_to_w(torch.from_numpy(z), torch.from_numpy(c))
    np.testing.assert_allclose(got, plain_w(variables, z, c, gain_on_bias=True), rtol=0, atol=1e-6)
    assert (generator.config.z_dim, generator.config.c_dim) == (6, 4)


def test_stylegan2_ada_options_clamp_and_grey(tmp_path: Path) -> None:
    variables = {n: a for n, a in make_stylegan2(CHANNELS, image_channels=1).items() if "oise" not in n}
    options = OPTIONS | {"conv_clamp": 0.5, "use_noise": False, "num_fp16_res": 4, "mapping_lrmul": 0.01}
    del variables["lod"]  # that program does not grow
    generator = load_generator(write_snapshot(tmp_path / "x.pkl", variables, options, version=5)).double()
    ws = draw(2, 6, 5)
    image, _ = plain_stylegan2(variables, ws, clamp=0.5)
    got = generator.synthesis(torch.from_numpy(ws), "const", compute_dtype=torch.float64).image
    np.testing.assert_allclose(got, as_images(image), rtol=0, atol=1e-5)


def test_inspect_says_what_a_tensorflow_snapshot_holds(tmp_path: Path) -> None:
    first = inspect_checkpoint(write_snapshot(tmp_path / "1.pkl", make_stylegan1(CHANNELS), OPTIONS))
    second = inspect_checkpoint(write_snapshot(tmp_path / "2.pkl", make_stylegan2(CHANNELS), OPTIONS))
    assert (first["kind"], second["kind"]) == ("TensorFlow StyleGAN1", "TensorFlow StyleGAN2")
    assert (first["resolution"], first["z_dim"], first["w_dim"], first["num_ws"]) == (16, 6, 5, 6)
    assert (first["num_features"], second["num_features"]) == (24, 19)
    assert second["architecture"] == "skip"
    assert len(list(second["networks"])) == 3, "a snapshot holds G, D and Gs"  # type: ignore[call-overload]  # a list


# --- what does not fit ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "options", "field"),
    [
        ({"G_synthesis/8x8/Conv1/bias": None}, {}, "synthesis/8x8/Conv1/bias"),
        ({"G_synthesis/8x8/Conv1/bias": np.zeros(9, np.float32)}, {}, "synthesis/8x8/Conv1/bias"),
        ({"G_synthesis/8x8/Conv1/bias": np.zeros(4, np.int64)}, {}, "synthesis/8x8/Conv1/bias"),
        ({"G_synthesis/8x8/Extra/weight": np.zeros(4, np.float32)}, {}, "synthesis/8x8/Extra/weight"),
        ({"G_mapping/Dense0/weight": None}, {}, "mapping/Dense0/weight"),
        ({"G_synthesis/noise1": np.zeros((1, 1, 5, 5), np.float32)}, {}, "synthesis/noise1"),
        ({"dlatent_avg": np.zeros(6, np.float32)}, {}, "dlatent_avg"),
        ({}, {"nonlinearity": "relu"}, "nonlinearity"),
        ({}, {"normalize_latents": False}, "normalize_latents"),
        ({}, {"mapping_lrmul": -1}, "mapping_lrmul"),
        ({}, {"mapping_lrmul": 0.01, "mapping_nonlinearity": "relu"}, "mapping_nonlinearity"),
    ],
)
@pytest.mark.parametrize("make", [make_stylegan1, make_stylegan2])
def test_snapshot_that_does_not_fit_is_refused_by_name(
    tmp_path: Path,
    make: object,
    change: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None],
    options: dict[str, object],
    field: str,
) -> None:
    assert callable(make)
    variables = {name: a for name, a in (make(CHANNELS) | change).items() if a is not None}
    path = write_snapshot(tmp_path / "x.pkl", variables, OPTIONS | options)
    with pytest.raises(CheckpointError, match="expected") as caught:
        load_generator(path)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("variables", "options", "field"),
    [
        (make_stylegan1(CHANNELS) | {"lod": np.array(1.5)}, {}, "lod"),
        (make_stylegan2(CHANNELS, architecture="grown") | {"lod": np.array(1.5)}, {}, "lod"),
        (make_stylegan1(CHANNELS), {"use_pixel_norm": True}, "use_pixel_norm"),
        (make_stylegan1(CHANNELS), {"fused_scale": "sometimes"}, "fused_scale"),
        (make_stylegan1(CHANNELS), {"blur_filter": [1, 2, 2, 1]}, "blur_filter"),
        (make_stylegan1(CHANNELS), {"use_wscale": 1}, "use_wscale"),
        (make_stylegan2(CHANNELS), {"resample_kernel": [1, 2, 1]}, "resample_kernel"),
        (make_stylegan2(CHANNELS), {"architecture": "other"}, "architecture"),
        (make_stylegan2(CHANNELS), {"architecture": 10**30}, "architecture"),
        (make_stylegan2(CHANNELS), {"nonlinearity": np.zeros(3)}, "nonlinearity"),
        (make_stylegan2(CHANNELS), {"resample_kernel": [np.zeros(2), 3, 3, 1]}, "resample_kernel"),
        (make_stylegan1(CHANNELS), {"fused_scale": np.zeros(3)}, "fused_scale"),
        (make_stylegan1(CHANNELS), {"blur_filter": np.zeros(3)}, "blur_filter"),
        (
            make_stylegan1(CHANNELS) | {"G_mapping/LabelConcat/weight": np.zeros((2, 6), np.float32)},
            {},
            "z_dim",
        ),
        (
            make_stylegan2(CHANNELS) | {"dlatent_avg": np.full(5, np.nan, np.float32)},
            {},
            "mapping.w_avg",
        ),
    ],
)
def test_network_that_computes_something_else_is_refused(
    tmp_path: Path, variables: Variables, options: dict[str, object], field: str
) -> None:
    path = write_snapshot(tmp_path / "x.pkl", variables, OPTIONS | options)
    with pytest.raises(CheckpointError) as caught:
        load_generator(path)
    assert caught.value.field == field


def test_networks_without_a_generator_and_a_mean_that_is_not_needed_are_refused(tmp_path: Path) -> None:
    path = write_snapshot(tmp_path / "x.pkl", make_stylegan2(CHANNELS), OPTIONS)
    np.save(tmp_path / "mean.npy", np.zeros(5, np.float32))
    with pytest.raises(CheckpointError, match="holds a mean w"):
        load_generator(path, mean_latent=tmp_path / "mean.npy")
    none = {"lod": np.array(0.0), "G_synthesis/lod": np.array(0.0)}
    with pytest.raises(CheckpointError, match="is missing"):
        load_generator(write_snapshot(tmp_path / "y.pkl", none, OPTIONS))
