"""StyleGAN1 and DatasetGAN's pixel classifiers: against the original program's numbers and against plain numpy.

`stylegan1_datasetgan_32_narrow.npz` holds the original's arrays for its 32 x 32 case with w expressed in the four
dimensions that the case uses; `narrow` makes it. The whole cases lie in `../shared/reference` beside the repository.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
import torch
from torch import nn

from labelmint import addresses
from labelmint.scores import image_score
from labelmint_export.bundle.onnx_graphs import export_module
from labelmint_export.checkpoints.datasetgan_classifiers import ensemble_from_state_dicts, interpreter_from_state_dicts
from labelmint_export.checkpoints.datasetgan_stylegan1 import (
    stylegan1_config_from_state_dict,
    stylegan1_from_state_dict,
)
from labelmint_export.errors import CheckpointError, GeneratorError
from labelmint_export.generator import NoiseMode, TapSpec
from labelmint_export.generator.stylegan1 import StyleGAN1Config, StyleGAN1Generator
from labelmint_export.interpreter.ensemble import Interpreter
from labelmint_export.interpreter.reference import concatenate_taps, interpret_reference
from tests.export.plain_stylegan1 import make_state_dict, plain_mapping, plain_synthesis

REPOSITORY = Path(__file__).parents[2]
NARROW = REPOSITORY / "tests/data/checkpoints/stylegan1_datasetgan_32_narrow.npz"
CUTOFFS = {32: 6, 128: 8}
CHANNELS = {4: 5, 8: 4, 16: 3}

Arrays = dict[str, npt.NDArray[Any]]  # Any: arrays of every dtype


@pytest.fixture(scope="module")
def reference() -> Path:
    folder = REPOSITORY.parent / "shared/reference"
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist: the whole cases of the original programs are not here")
    return folder


def read_arrays(path: Path) -> Arrays:
    with np.load(path) as file:
        return dict(file)


def read_state_dict(path: Path) -> Arrays:
    loaded = torch.load(path, weights_only=True)
    return {name: tensor.numpy() for name, tensor in loaded.get("model_state_dict", loaded).items()}


def fixed_noise(arrays: Arrays) -> Arrays:
    """`noise/blocks.8x8.epi1.top_epi.noise` -> b8.epi1."""
    pattern = re.compile(r"noise/blocks\.(\d+)x\d+\.(epi[12])\.top_epi\.noise")
    return {f"b{match[1]}.{match[2]}": array for name, array in arrays.items() if (match := pattern.fullmatch(name))}


def as_tensors(arrays: Arrays) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def load_case(folder: Path, side: int) -> tuple[StyleGAN1Generator, Arrays]:
    arrays = read_arrays(folder / f"stylegan1_datasetgan_{side}.npz")
    tensors = read_state_dict(folder / f"stylegan1_datasetgan_{side}.pt")
    return stylegan1_from_state_dict(tensors, mean_latent=arrays["avg_latent"], noise=fixed_noise(arrays)), arrays


def narrow(folder: Path) -> Arrays:
    """Turn w so that it needs four numbers: the case has two pictures with two different w each."""
    arrays = read_arrays(folder / "stylegan1_datasetgan_32.npz")
    tensors = read_state_dict(folder / "stylegan1_datasetgan_32.pt")
    ws = arrays["ws_psi_0_7"].astype(np.float64)
    _, _, basis = np.linalg.svd(ws.reshape(-1, 512), full_matrices=False)
    kept = {name: array for name, array in tensors.items() if name.startswith("g_synthesis.")}
    for name in [name for name in kept if name.endswith("lin.weight")]:
        kept[name] = (kept[name].astype(np.float64) @ basis[:4].T * np.sqrt(4 / 512)).astype(np.float32)
    kept |= {"g_mapping.dense0.weight": np.eye(4, dtype=np.float32), "g_mapping.dense0.bias": np.zeros(4, np.float32)}
    kept |= {name: array for name, array in arrays.items() if name.startswith(("tap/", "noise/", "img"))}
    return kept | {"ws": (ws @ basis[:4].T).astype(np.float32)}


def assert_taps_equal(taps: Mapping[str, torch.Tensor], arrays: Arrays, atol: float) -> None:
    """In the order tap/00, tap/01 ...; the arrays hold the first picture only."""
    names = sorted(name for name in arrays if name.startswith("tap/"))
    assert len(names) == len(taps)
    for name, (layer, tap) in zip(names, taps.items(), strict=True):
        np.testing.assert_allclose(tap[:1], arrays[name], rtol=0, atol=atol, err_msg=f"{name} is {layer}")


# --- the original program's numbers ----------------------------------------------------------------------------------


def test_synthesis_reproduces_the_narrowed_case_of_the_original() -> None:
    arrays = read_arrays(NARROW)
    tensors = {name: array for name, array in arrays.items() if name.startswith("g_")}
    generator = stylegan1_from_state_dict(tensors, mean_latent=np.zeros(4), noise=fixed_noise(arrays))
    output = generator.synthesis(torch.from_numpy(arrays["ws"]))
    np.testing.assert_allclose(output.image, arrays["img"], rtol=0, atol=1e-4)
    assert_taps_equal(output.taps, arrays, atol=1e-4)


def test_narrowed_case_is_what_the_whole_one_gives(reference: Path) -> None:
    made, stored = narrow(reference), read_arrays(NARROW)
    assert made.keys() == stored.keys()
    for name, array in stored.items():
        if name.endswith("lin.weight"):  # the basis may come out turned, the styles do not
            np.testing.assert_allclose(made["ws"] @ made[name].T, stored["ws"] @ array.T, rtol=0, atol=1e-4)
        elif name != "ws":
            np.testing.assert_array_equal(made[name], array)


@pytest.mark.parametrize("side", [32, 128])
def test_mapping_and_truncation_reproduce_the_original(reference: Path, side: int) -> None:
    generator, arrays = load_case(reference, side)
    z = torch.from_numpy(arrays["z"])
    np.testing.assert_allclose(generator.mapping.map_to_w(z), arrays["w"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(generator.mapping(z)[:, -1], arrays["w"], rtol=0, atol=1e-5)
    ws = generator.mapping(z, None, 0.7, CUTOFFS[side])
    np.testing.assert_allclose(ws, arrays["ws_psi_0_7"], rtol=0, atol=1e-5)
    cutoff = CUTOFFS[side]
    assert not np.array_equal(ws[:, cutoff - 1], ws[:, cutoff])


@pytest.mark.parametrize("side", [32, 128])
def test_synthesis_reproduces_the_original(reference: Path, side: int) -> None:
    generator, arrays = load_case(reference, side)
    ws = generator.mapping(torch.from_numpy(arrays["z"]), None, 0.7, CUTOFFS[side])
    output = generator.synthesis(ws)
    np.testing.assert_allclose(output.image, arrays["img"], rtol=0, atol=1e-4)
    taps = dict(output.taps)
    if side == 128:
        # Values up to 28 behind twelve normalisations, which enlarge what the mapping's float32 differs by, 3e-6.
        # From the original's own ws this tap is within 1e-4 too: `test_original_numbers`.
        last = taps.pop("b128.epi2")[:1].numpy()
        np.testing.assert_allclose(last, arrays.pop("tap/10"), rtol=0, atol=2e-4)
    assert_taps_equal(taps, arrays, atol=1e-4)


@pytest.mark.parametrize("side", [32, 128])
def test_given_noise_takes_the_place_of_the_stored_one(reference: Path, side: int) -> None:
    arrays = read_arrays(reference / f"stylegan1_datasetgan_{side}.npz")
    tensors = read_state_dict(reference / f"stylegan1_datasetgan_{side}.pt")
    generator = stylegan1_from_state_dict(tensors, mean_latent=arrays["avg_latent"])
    ws, noise = torch.from_numpy(arrays["ws_psi_0_7"]), as_tensors(fixed_noise(arrays))
    np.testing.assert_allclose(generator.synthesis(ws, noise=noise).image, arrays["img"], rtol=0, atol=1e-4)
    assert np.abs(generator.synthesis(ws).image.numpy() - arrays["img"]).max() > 0.1


@pytest.mark.parametrize("side", [32, 128])
def test_estimated_mean_latent_is_close_to_the_originals(reference: Path, side: int) -> None:
    _, arrays = load_case(reference, side)
    generator = stylegan1_from_state_dict(read_state_dict(reference / f"stylegan1_datasetgan_{side}.pt"))
    spread = float(arrays["w"].std())
    assert np.abs(generator.mapping.w_avg.numpy() - arrays["avg_latent"][0]).max() < 0.1 * spread
    assert np.abs(arrays["w"] - arrays["avg_latent"]).max() > spread


@pytest.fixture(scope="module")
def classified(reference: Path) -> tuple[Interpreter, dict[str, torch.Tensor], Arrays]:
    """The interpreter of the 32 x 32 case, the taps by our names, and what is expected."""
    generator, arrays = load_case(reference, 32)
    folder = reference / "datasetgan_interpreter_32"
    members = [read_state_dict(folder / f"model_{index}.pth") for index in range(5)]
    interpreter = interpreter_from_state_dicts(members, taps=generator.tap_specs, label_resolution=32)
    taps = {spec.name: torch.from_numpy(arrays[f"tap/{i:02}"]) for i, spec in enumerate(generator.tap_specs)}
    return interpreter, taps, read_arrays(folder / "expected.npz")


def test_classifiers_reproduce_the_originals_logits_and_votes(
    classified: tuple[Interpreter, dict[str, torch.Tensor], Arrays],
) -> None:
    interpreter, taps, expected = classified
    features = concatenate_taps(taps, tuple(taps), 32)
    pixels = features.permute(0, 2, 3, 1).reshape(1, 1024, -1).expand(5, -1, -1)
    logits = interpreter.classifiers(pixels)
    np.testing.assert_allclose(logits, expected["logits"], rtol=0, atol=1e-4)
    np.testing.assert_array_equal(logits.argmax(dim=2).T.reshape(32, 32, 5), expected["votes"])


def test_interpreter_reproduces_the_originals_label_and_divergence(
    classified: tuple[Interpreter, dict[str, torch.Tensor], Arrays],
) -> None:
    interpreter, taps, expected = classified
    output = interpret_reference(interpreter, taps)
    np.testing.assert_array_equal(output.label[0], expected["label"])
    np.testing.assert_allclose(output.uncertainty_map[0], expected["js"], rtol=0, atol=1e-4)
    largest = output.uncertainty_map.flatten().sort(descending=True).values[: 1024 // 10]
    np.testing.assert_allclose(largest.mean(), expected["uncertainty_score"], rtol=0, atol=1e-4)
    score = image_score(output.uncertainty_map.numpy().astype(np.float16))
    np.testing.assert_allclose(score[0], expected["uncertainty_score"], rtol=0, atol=1e-3)


def test_interpreter_reproduces_the_originals_label_from_our_own_taps(
    reference: Path, classified: tuple[Interpreter, dict[str, torch.Tensor], Arrays]
) -> None:
    interpreter, _, expected = classified
    generator, arrays = load_case(reference, 32)
    output = generator.synthesis(generator.mapping(torch.from_numpy(arrays["z"]), None, 0.7, 6))
    labels = interpret_reference(interpreter, output.taps)
    np.testing.assert_allclose(labels.uncertainty_map[0], expected["js"], rtol=0, atol=1e-4)
    assert (labels.label[0].numpy() == expected["label"]).mean() >= 0.999


# --- plain numpy -----------------------------------------------------------------------------------------------------


def make_generator(channels: Mapping[int, int] = CHANNELS) -> tuple[StyleGAN1Generator, Arrays]:
    tensors: Arrays = {**make_state_dict(channels)}
    return stylegan1_from_state_dict(tensors, mean_latent=np.full(5, 0.3, np.float32)), tensors


def test_mapping_equals_plain_numpy() -> None:
    generator, tensors = make_generator()
    z = np.random.default_rng(1).standard_normal((4, 6))
    w = generator.double().mapping(torch.from_numpy(z))
    assert w.shape == (4, 6, 5)
    np.testing.assert_allclose(w[:, 2], plain_mapping(tensors, z), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    "channels", [CHANNELS, {4: 2, 8: 3, 16: 2, 32: 2, 64: 3, 128: 2, 256: 2}], ids=["repeated", "transposed"]
)
@pytest.mark.parametrize("noise_mode", ["const", "none"])
def test_synthesis_equals_plain_numpy(channels: dict[int, int], noise_mode: NoiseMode) -> None:
    generator, tensors = make_generator(channels)
    noise = {
        spec.name: generator.synthesis.get_buffer(f"blocks.{spec.name}.noise_const").double().numpy()
        for spec in generator.synthesis.noise_specs
    }
    ws = np.random.default_rng(2).standard_normal((2, generator.config.num_ws, 5))
    image, taps = plain_synthesis(tensors, ws, noise if noise_mode == "const" else {})
    got = generator.double().synthesis(torch.from_numpy(ws), noise_mode, compute_dtype=torch.float64)
    assert got.image.shape == (2, 3, max(channels), max(channels))
    np.testing.assert_allclose(got.image, image, rtol=0, atol=1e-8)
    assert got.taps.keys() == taps.keys()
    for name, tap in taps.items():
        np.testing.assert_allclose(got.taps[name], tap, rtol=0, atol=1e-8, err_msg=name)


def test_truncation_leads_leading_layers_to_the_mean() -> None:
    generator, _ = make_generator()
    z = torch.randn(3, 6)
    whole, cut = generator.mapping(z), generator.mapping(z, None, 0.25, 2)
    torch.testing.assert_close(cut[:, :2], 0.3 + 0.25 * (whole[:, :2] - 0.3))
    torch.testing.assert_close(cut[:, 2:], whole[:, 2:], rtol=0, atol=0)
    torch.testing.assert_close(generator.mapping(z, None, 0.0), torch.full([3, 6, 5], 0.3))
    each = generator.mapping(z, None, torch.tensor([0.25, 1.0, 0.0]), 2)
    torch.testing.assert_close(each[0], cut[0])
    torch.testing.assert_close(each[1], whole[1])
    torch.testing.assert_close(each[2, :2], torch.full([2, 5], 0.3))


def test_taps_have_the_names_shapes_and_order_that_the_specs_say() -> None:
    generator, _ = make_generator()
    output = generator(torch.randn(2, 6))
    expected = [("b4.epi2", 5, 4), ("b4.conv1", 5, 4), ("b8.epi2", 4, 8), ("b8.conv1", 4, 8), ("b16.epi2", 3, 16)]
    expected += [("b16.conv1", 3, 16)]
    assert generator.tap_specs == tuple(TapSpec(*spec) for spec in expected)
    assert [(name, *tap.shape) for name, tap in output.taps.items()] == [(n, 2, c, r, r) for n, c, r in expected]


def test_random_noise_differs_between_pictures_and_calls() -> None:
    generator, _ = make_generator()
    ws = generator.mapping(torch.randn(1, 6)).repeat(2, 1, 1)
    one, other = (generator.synthesis(ws, "random").image for _ in range(2))
    assert not torch.equal(one[0], one[1])
    assert not torch.equal(one, other)
    fixed = generator.synthesis(ws)
    torch.testing.assert_close(fixed.image[0], fixed.image[1], rtol=0, atol=1e-5)


def test_half_precision_stays_close_and_keeps_the_picture_in_float32() -> None:
    generator, _ = make_generator()
    ws = generator.mapping(torch.randn(2, 6))
    whole, half = generator.synthesis(ws), generator.synthesis(ws, compute_dtype=torch.bfloat16)
    assert half.image.dtype == torch.float32
    assert {tap.dtype for tap in half.taps.values()} == {torch.bfloat16}
    assert float((half.image - whole.image).abs().mean()) < 0.05 * float(whole.image.std())


class Painter(nn.Module):
    """Picture and taps as a tuple, which is what exporters want."""

    def __init__(self, generator: StyleGAN1Generator, noise_mode: NoiseMode) -> None:
        super().__init__()
        self.synthesis = generator.synthesis
        self.noise_mode: NoiseMode = noise_mode

    def forward(self, ws: torch.Tensor) -> tuple[torch.Tensor, ...]:
        output = self.synthesis(ws, self.noise_mode)
        return (output.image, *output.taps.values())


@pytest.mark.parametrize(
    ("channels", "noise_mode"),
    [
        pytest.param(CHANNELS, "const", marks=pytest.mark.thorough),
        (CHANNELS, "none"),
        ({4: 2, 8: 2, 16: 2, 32: 2, 64: 2, 128: 2}, "const"),
    ],
)
def test_exported_synthesis_agrees_for_any_batch(channels: dict[int, int], noise_mode: NoiseMode) -> None:
    generator, _ = make_generator(channels)
    names = ["image", *(spec.name for spec in generator.tap_specs)]
    painter = Painter(generator, noise_mode)
    model = export_module(painter, (torch.randn(2, generator.config.num_ws, 5),), ["ws"], names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for count in (1, 3):
        ws = generator.mapping(torch.randn(count, 6)).contiguous()
        for name, got, expected in zip(names, session.run(None, {"ws": ws.numpy()}), painter(ws), strict=True):
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4, err_msg=name)


def test_exported_mapping_agrees_for_any_batch() -> None:
    generator, _ = make_generator()
    model = export_module(generator.mapping, (torch.randn(2, 6),), ["z"], ["ws"])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    z = torch.cat([torch.zeros(1, 6), torch.randn(2, 6)])
    np.testing.assert_allclose(session.run(None, {"z": z.numpy()})[0], generator.mapping(z), rtol=0, atol=1e-5)


# --- what does not fit -----------------------------------------------------------------------------------------------


def test_shape_is_read_off_the_arrays() -> None:
    config = stylegan1_config_from_state_dict({**make_state_dict(CHANNELS, image_channels=1)})
    assert config == StyleGAN1Config(
        resolution=16, channels=CHANNELS, z_dim=6, w_dim=5, hidden_dim=7, mapping_layers=2, image_channels=1
    )
    assert (config.num_ws, config.c_dim) == (6, 0)


def test_other_names_are_left_aside_and_a_stored_mean_latent_is_taken() -> None:
    tensors: Arrays = {**make_state_dict(CHANNELS)}
    stored = np.arange(5, dtype=np.float32)
    generator = stylegan1_from_state_dict(tensors | {"truncation.avg_latent": stored, "score.weight": np.zeros(2)})
    np.testing.assert_array_equal(generator.w_avg, stored)


def test_missing_mean_latent_and_noise_follow_the_address_rule() -> None:
    tensors: Arrays = {**make_state_dict(CHANNELS)}
    generator = stylegan1_from_state_dict(tensors)
    for index, spec in enumerate(generator.synthesis.noise_specs):
        drawn = generator.state_dict()[f"synthesis.blocks.{spec.name}.noise_const"]
        np.testing.assert_array_equal(drawn, addresses.noise(0, index, (spec.resolution, spec.resolution)))
    z = addresses.latents(0, np.arange(8000, dtype=np.uint64), 6).astype(np.float64)
    np.testing.assert_allclose(generator.mapping.w_avg, plain_mapping(tensors, z).mean(axis=0), rtol=0, atol=1e-5)


def test_stored_blur_kernel_is_used_and_may_be_missing() -> None:
    generator, tensors = make_generator()
    ws = generator.mapping(torch.randn(1, 6))
    kernels = [name for name in tensors if name.endswith("kernel")]
    assert len(kernels) == 2
    without = {name: array for name, array in tensors.items() if name not in kernels}
    torch.testing.assert_close(
        stylegan1_from_state_dict(without).synthesis(ws).image, generator.synthesis(ws).image, rtol=0, atol=1e-5
    )
    sharp = np.zeros((1, 1, 3, 3), np.float32)
    sharp[..., 1, 1] = 1
    changed = stylegan1_from_state_dict(tensors | dict.fromkeys(kernels, sharp))
    assert float((changed.synthesis(ws).image - generator.synthesis(ws).image).abs().max()) > 0.01


def put(key: str, value: object) -> Callable[[Arrays], None]:
    def change(tensors: Arrays) -> None:
        tensors[key] = value  # type: ignore[assignment]  # what hostile files hold

    return change


def drop(key: str) -> Callable[[Arrays], None]:
    def change(tensors: Arrays) -> None:
        del tensors[key]

    return change


BLOCK = "g_synthesis.blocks.8x8"


@pytest.mark.parametrize(
    ("change", "key", "message"),
    [
        (drop("g_mapping.dense0.weight"), "g_mapping.dense0.weight", "is missing, expected an array of 2 axes"),
        (drop("g_mapping.dense1.bias"), "g_mapping.dense1.bias", r"is missing, expected shape \[5\]"),
        (drop(f"{BLOCK}.conv1.bias"), f"{BLOCK}.conv1.bias", "is missing, expected an array of 1 axes"),
        (drop(f"{BLOCK}.epi1.style_mod.lin.weight"), f"{BLOCK}.epi1.style_mod.lin.weight", r"shape \[8, 5\]"),
        (drop("g_synthesis.blocks.4x4.const"), "g_synthesis.blocks.4x4.const", r"shape \[1, 5, 4, 4\]"),
        (
            put(f"{BLOCK}.conv0_up.weight", np.zeros((4, 9, 3, 3), np.float32)),
            f"{BLOCK}.conv0_up.weight",
            r"has shape \[4, 9, 3, 3\], expected shape \[4, 5, 3, 3\]; give the state dict",
        ),
        (put(f"{BLOCK}.conv1.bias", np.zeros((2, 2), np.float32)), f"{BLOCK}.conv1.bias", r"has shape \[2, 2\]"),
        (put(f"{BLOCK}.conv1.bias", np.zeros(0, np.float32)), f"{BLOCK}.conv1.bias", "not empty"),
        (put(f"{BLOCK}.conv1.bias", np.zeros(4, np.int64)), f"{BLOCK}.conv1.bias", "holds int64"),
        (put(f"{BLOCK}.conv1.bias", [0.0] * 4), f"{BLOCK}.conv1.bias", "is a list"),
        (put(f"{BLOCK}.conv1.bias", np.full(4, np.nan, np.float32)), f"{BLOCK}.conv1.bias", "not finite"),
        (put(f"{BLOCK}.conv1.bias", np.full(4, 1e39)), f"{BLOCK}.conv1.bias", "not finite in float32"),
        (put(f"{BLOCK}.conv3.bias", np.zeros(4, np.float32)), f"{BLOCK}.conv3.bias", "has no place"),
        (put("g_synthesis.blocks.64x64.x", np.zeros(4)), "g_synthesis.blocks.32x32.conv1.bias", "is missing"),
        (put("g_synthesis.torgb.bias", np.zeros(2, np.float32)), "g_synthesis.torgb.bias", "expected 1 or 3"),
        (put("g_synthesis.torgb.bias", np.zeros((), np.float32)), "g_synthesis.torgb.bias", "expected 1 axes"),
    ],
)
def test_state_dict_that_does_not_fit_is_refused_by_key(
    change: Callable[[Arrays], None], key: str, message: str
) -> None:
    tensors: Arrays = {**make_state_dict(CHANNELS)}
    change(tensors)
    with pytest.raises(CheckpointError, match=message) as caught:
        stylegan1_from_state_dict(tensors)
    assert caught.value.field == key
    assert key in str(caught.value)


def test_state_dict_of_something_else_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"g_mapping\.dense0\.weight is missing"):
        stylegan1_from_state_dict({})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"mean_latent": np.zeros(4)}, r"mean_latent has shape \[4\], expected shape \[5\] or \[1, 5\]"),
        ({"mean_latent": np.full(5, np.inf)}, "not finite"),
        (
            {"noise": {"b8.conv1": np.zeros((8, 8))}},
            r"noise\.b8\.conv1 has no place, expected layers of b4.epi1 to b16.epi2",
        ),
        ({"noise": {"b8.epi1": np.zeros((4, 4))}}, r"noise\.b8\.epi1 has shape \[4, 4\], expected shape \[8, 8\]"),
    ],
)
def test_mean_latent_or_noise_that_does_not_fit_is_refused(kwargs: dict[str, Arrays], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        stylegan1_from_state_dict({**make_state_dict(CHANNELS)}, **kwargs)  # type: ignore[arg-type]  # of several types


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"resolution": 12}, "resolution"),
        ({"channels": {4: 5, 8: 0, 16: 1}}, "channels"),
        ({"mapping_layers": 0}, "mapping_layers"),
        ({"hidden_dim": 0}, "hidden_dim"),
        ({"mapping_lr_multiplier": 0.0}, "mapping_lr_multiplier"),
        ({"image_channels": 4}, "image_channels"),
    ],
)
def test_shape_out_of_range_is_refused(changes: dict[str, object], field: str) -> None:
    fields: dict[str, object] = {"resolution": 16, "channels": CHANNELS} | changes
    with pytest.raises(GeneratorError) as caught:
        StyleGAN1Config(**fields)  # type: ignore[arg-type]  # fields of every type
    assert caught.value.field == field


def test_tensors_that_do_not_fit_are_refused() -> None:
    generator, _ = make_generator()
    ws = torch.zeros(2, 6, 5)
    calls: list[tuple[str, Callable[[], object]]] = [
        ("z", lambda: generator.mapping(torch.zeros(2, 5))),
        ("c", lambda: generator.mapping(torch.zeros(2, 6), torch.zeros(2, 3))),
        ("ws", lambda: generator.synthesis(ws[:, :5])),
        ("noise", lambda: generator.synthesis(ws, noise={"b4.conv1": torch.zeros(1, 1, 4, 4)})),
        ("noise", lambda: generator.synthesis(ws, noise={"b4.epi1": torch.zeros(3, 1, 4, 4)})),
    ]
    for field, call in calls:
        with pytest.raises(GeneratorError) as caught:
            call()
        assert caught.value.field == field
    generator.mapping(torch.zeros(2, 6), torch.zeros(2, 0))


# --- pixel classifiers -----------------------------------------------------------------------------------------------


def make_classifier(seed: int, *, features: int = 9, classes: int = 4) -> nn.Sequential:
    """The original's layers, with batch statistics of their own."""
    torch.manual_seed(seed)
    layers = nn.Sequential(
        nn.Linear(features, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 6), nn.ReLU(), nn.BatchNorm1d(6),
        nn.Linear(6, classes),
    )  # fmt: skip
    for norm in (layers[2], layers[5]):
        assert isinstance(norm, nn.BatchNorm1d)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    for _ in range(20):
        layers(2 * torch.randn(64, features))
    return layers.eval().requires_grad_(False)


def classifier_arrays(classifier: nn.Sequential, prefix: str = "module.layers.") -> Arrays:
    return {prefix + name: tensor.numpy() for name, tensor in classifier.state_dict().items()}


def test_ensemble_equals_the_classifiers_one_by_one() -> None:
    classifiers = [make_classifier(seed) for seed in range(3)]
    members = [
        classifier_arrays(c, "layers." if index == 1 else "module.layers.") for index, c in enumerate(classifiers)
    ]
    pixels = torch.randn(3, 50, 9)
    expected = torch.stack([classifier(x) for classifier, x in zip(classifiers, pixels, strict=True)])
    ensemble = ensemble_from_state_dicts(members)
    torch.testing.assert_close(ensemble(pixels), expected, rtol=0, atol=1e-5)
    interpreter = interpreter_from_state_dicts(
        members, taps=(TapSpec("a", 5, 4), TapSpec("b", 4, 8)), label_resolution=8
    )
    torch.testing.assert_close(interpreter.classifiers(pixels), expected, rtol=0, atol=1e-5)
    assert (interpreter.config.num_classes, interpreter.config.hidden_widths) == (4, (8, 6))
    assert interpreter.config.num_members == 3
    assert interpreter.regressors is None
    assert not interpreter.training


LAYERS = "module.layers"


@pytest.mark.parametrize(
    ("change", "key", "message"),
    [
        (drop(f"{LAYERS}.0.bias"), f"{LAYERS}.0.bias", r"is missing, expected shape \[8\]"),
        (drop(f"{LAYERS}.5.running_var"), f"{LAYERS}.5.running_var", r"expected shape \[6\]"),
        (put(f"{LAYERS}.3.weight", np.zeros((6, 7))), f"{LAYERS}.3.weight", r"shape \[6, 7\], expected shape \[6, 8\]"),
        (put(f"{LAYERS}.2.running_var", np.full(8, -1.0)), f"{LAYERS}.2.running_var", "negative"),
        (put(f"{LAYERS}.7.bias", np.zeros(3)), f"{LAYERS}.7.bias", "has no place"),
        (put(f"{LAYERS}.6.bias", np.full(4, np.nan)), f"{LAYERS}.6.bias", "not finite"),
    ],
)
def test_classifier_that_does_not_fit_is_refused_by_member_and_key(
    change: Callable[[Arrays], None], key: str, message: str
) -> None:
    members = [classifier_arrays(make_classifier(seed)) for seed in range(2)]
    change(members[1])
    with pytest.raises(CheckpointError, match=message) as caught:
        ensemble_from_state_dicts(members)
    assert caught.value.field == f"model_1.{key}"


def test_classifiers_without_a_first_layer_or_for_other_taps_are_refused() -> None:
    member = classifier_arrays(make_classifier(0))
    with pytest.raises(CheckpointError, match="members is empty"):
        ensemble_from_state_dicts([])
    with pytest.raises(CheckpointError, match=r"layers\.0\.weight is missing"):
        ensemble_from_state_dicts([{}])
    with pytest.raises(CheckpointError, match="takes 9 features, expected the 5 of the taps"):
        interpreter_from_state_dicts([member], taps=(TapSpec("a", 5, 4),), label_resolution=8)
    single = classifier_arrays(make_classifier(0, classes=1))
    with pytest.raises(CheckpointError, match="num_classes is 1"):
        interpreter_from_state_dicts([single], taps=(TapSpec("a", 9, 4),), label_resolution=8)
