"""StyleGAN3 against the original program's numbers, against the same written out plainly, and against its promises."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
import torch

from labelmint_export.bundle.onnx_graphs import export_module
from labelmint_export.checkpoints import ModuleRecord, read_checkpoint
from labelmint_export.checkpoints.stylegan3 import config_from_attributes, generator_from_record
from labelmint_export.errors import CheckpointError, GeneratorError
from labelmint_export.generator.stylegan3 import StyleGAN3Generator, SynthesisLayer, downsample, upsample
from labelmint_export.generator.stylegan3_config import StyleGAN3Config, StyleGAN3LayerConfig
from tests.export.plain_stylegan3 import plain_synthesis

FILES = Path(__file__).parents[1] / "data" / "checkpoints"
R_FILE = FILES / "stylegan3_r_32_c10.pkl"
PIXELS = slice(1, None, 5)  # the stored taps hold every fifth row and column
LAST = "L14_32_3"
HUGE = pytest.param(10**6000, id="huge")  # Python refuses to write such a number down


@pytest.fixture(scope="module")
def record() -> ModuleRecord:
    snapshot = read_checkpoint(R_FILE)
    assert isinstance(snapshot, dict)
    generator = snapshot["G_ema"]
    assert isinstance(generator, ModuleRecord)
    return generator


def inside(record: ModuleRecord, path: str) -> ModuleRecord:
    """A module of a record."""
    for name in path.split(".") if path else ():
        record = record.modules[name]
    return record


@pytest.fixture
def changed(record: ModuleRecord) -> ModuleRecord:
    """A copy that a test may spoil."""
    return copy.deepcopy(record)


@pytest.fixture(scope="module")
def r_generator(record: ModuleRecord) -> StyleGAN3Generator:
    return generator_from_record(record, R_FILE)


def as_in_t(layer: StyleGAN3LayerConfig) -> StyleGAN3LayerConfig:
    left, right, top, bottom = (pixels - layer.up_factor for pixels in layer.padding)
    return replace(layer, kernel=3, down_radial=False, padding=(left, right, top, bottom))


@pytest.fixture(scope="module")
def t_generator(r_generator: StyleGAN3Generator) -> StyleGAN3Generator:
    """The same resampling as T does it, 3 x 3 convolutions and separable filters, with random weights."""
    torch.manual_seed(1)
    *inner, torgb = r_generator.config.layers
    layers = (*(as_in_t(layer) for layer in inner), torgb)
    twin = StyleGAN3Generator(replace(r_generator.config, layers=layers, c_dim=0))
    own, borrowed = twin.state_dict(), r_generator.state_dict()
    for name, tensor in own.items():
        if name.endswith("_filter"):
            # Along an axis, a radial filter passes what the sum over the other axis passes.
            filter_ = borrowed[name]
            tensor.copy_(filter_.sum(dim=0) if filter_.ndim == 2 else filter_)
        elif name.startswith("synthesis.input") or name.endswith("magnitude_ema"):
            tensor.copy_(borrowed[name])
        elif name.startswith("synthesis") and name.endswith("bias"):
            tensor.add_(torch.randn_like(tensor), alpha=0.2)
    return twin.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def short_generator(r_generator: StyleGAN3Generator) -> StyleGAN3Generator:
    """Each kind of layer, with its weights, and no layer that another is like."""
    layers = tuple(
        layer for number, layer in enumerate(r_generator.config.layers) if number in {0, 5, 10, 11, 12, 13, 14}
    )
    short = StyleGAN3Generator(replace(r_generator.config, layers=layers))
    borrowed = r_generator.state_dict()
    short.load_state_dict({name: borrowed[name] for name in short.state_dict()})
    return short.eval().requires_grad_(False)


@pytest.fixture(params=["r_generator", "t_generator"])
def generator(request: pytest.FixtureRequest) -> StyleGAN3Generator:
    one: StyleGAN3Generator = request.getfixturevalue(request.param)
    return one


@pytest.fixture(scope="module")
def expected() -> dict[str, npt.NDArray[np.float32]]:
    """What the original program computes, first image only."""
    with np.load(R_FILE.with_suffix(".npz")) as arrays:
        return {name: arrays[name] for name in arrays.files}


def make_ws(generator: StyleGAN3Generator, n: int = 2) -> torch.Tensor:
    torch.manual_seed(2)
    return torch.randn(n, generator.config.num_ws, generator.config.w_dim)


def assert_near(got: torch.Tensor, expected: npt.NDArray[np.float32]) -> None:
    torch.testing.assert_close(got, torch.from_numpy(expected), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "psi", "cutoff"),
    [("ws_psi_1", 1.0, None), ("ws_psi_0_7", 0.7, None), ("ws_psi_0_5_cutoff_4", 0.5, 4)],
)
def test_mapping_gives_the_original_programs_ws(
    name: str,
    psi: float,
    cutoff: int | None,
    r_generator: StyleGAN3Generator,
    expected: dict[str, npt.NDArray[np.float32]],
) -> None:
    z, c = torch.from_numpy(expected["z"]), torch.from_numpy(expected["c"])
    assert_near(r_generator.mapping(z, c, psi, cutoff), expected[name])


def test_synthesis_gives_the_original_programs_picture_and_taps(
    r_generator: StyleGAN3Generator, expected: dict[str, npt.NDArray[np.float32]]
) -> None:
    output = r_generator.synthesis(torch.from_numpy(expected["ws_psi_0_7"]))
    assert_near(output.image, expected["img_psi_0_7_noise_const"])
    assert [f"tap/{name}" for name in output.taps] == [name for name in expected if name.startswith("tap/")]
    for name, tap in output.taps.items():
        assert_near(tap[:, :, PIXELS, PIXELS], expected[f"tap/{name}"])


def test_synthesis_equals_the_plain_algorithm(generator: StyleGAN3Generator) -> None:
    uneven = copy.deepcopy(generator)
    torch.manual_seed(3)
    for layer in uneven.synthesis.children():
        if isinstance(layer, SynthesisLayer) and not layer.config.is_torgb:
            layer.up_filter.mul_(torch.rand_like(layer.up_filter) + 0.5)  # symmetric ones hide a flip
            layer.down_filter.mul_(torch.rand_like(layer.down_filter) + 0.5)
    uneven.synthesis.input.affine.weight.normal_()
    uneven.synthesis.input.transform.copy_(torch.tensor([[0.9, -0.5, 0.1], [0.4, 1.1, -0.2], [0.0, 0.0, 1.0]]))
    ws = make_ws(uneven)
    got = uneven.synthesis(ws)
    image, taps = plain_synthesis(uneven, ws)
    torch.testing.assert_close(got.image, image, rtol=0, atol=1e-4)
    assert list(got.taps) == list(taps)
    for name, tap in taps.items():
        torch.testing.assert_close(got.taps[name], tap, rtol=0, atol=1e-4)


def test_clamp_bounds_what_the_downsampling_filter_sees(r_generator: StyleGAN3Generator) -> None:
    layers = tuple(replace(layer, conv_clamp=0.5) for layer in r_generator.config.layers)
    clamped = StyleGAN3Generator(replace(r_generator.config, layers=layers)).requires_grad_(False)
    clamped.load_state_dict(r_generator.state_dict())
    image = clamped.synthesis(make_ws(clamped)).image
    torch.testing.assert_close(image, plain_synthesis(clamped, make_ws(clamped))[0], rtol=0, atol=1e-5)
    assert image.abs().max() == 0.5 * clamped.config.output_scale


@pytest.mark.parametrize("padding", [(3, 5, 4, 2), (-3, 20, 0, -7), (11, 11, 12, 14)])
def test_upsampling_pads_and_crops_like_zeros_between_pixels(padding: tuple[int, int, int, int]) -> None:
    torch.manual_seed(4)
    x, line = torch.randn(2, 3, 9, 8).double(), torch.randn(12).double()
    sparse = torch.zeros(2, 3, 27, 24).double()
    sparse[:, :, ::3, ::3] = x * 9
    wanted = downsample(torch.nn.functional.pad(sparse, list(padding)), line, 1)
    torch.testing.assert_close(upsample(x, line, 3, padding), wanted, rtol=0, atol=1e-10)


def shifted(generator: StyleGAN3Generator, ws: torch.Tensor, matrix: list[list[float]]) -> torch.Tensor:
    """The picture after the features were transformed."""
    other = copy.deepcopy(generator)
    other.synthesis.input.transform.copy_(torch.tensor(matrix))
    image: torch.Tensor = other.synthesis(ws).image
    return image


@pytest.mark.parametrize("axis", [0, 1])
def test_moving_the_features_by_pixels_moves_the_picture(generator: StyleGAN3Generator, axis: int) -> None:
    ws, pixels, size = make_ws(generator), 3, generator.config.resolution
    matrix = torch.eye(3)
    matrix[axis, 2] = pixels / size
    still = generator.synthesis(ws).image.movedim(3 - axis, 3)
    moved = shifted(generator, ws, matrix.tolist()).movedim(3 - axis, 3)
    kept = slice(8, size - 8)  # of the picture, away from its border; below, of what both pictures show
    error = moved[:, :, kept, 8 : size - 8 - pixels] - still[:, :, kept, 8 + pixels : size - 8]
    change = moved[:, :, kept, kept] - still[:, :, kept, kept]
    assert error.square().mean() < (0.01 * change).square().mean()


def test_only_r_turns_the_picture_with_the_features(
    r_generator: StyleGAN3Generator, t_generator: StyleGAN3Generator
) -> None:
    quarter = [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    errors = []
    for generator in (r_generator, t_generator):
        ws = make_ws(generator)
        still = generator.synthesis(ws).image
        error = (shifted(generator, ws, quarter) - still.rot90(1, (2, 3))).abs().max() / still.std()
        errors.append(float(error))
    assert errors[0] < 1e-4
    assert errors[1] > 1e-1


class WithTaps(torch.nn.Module):
    """Synthesis as a graph."""

    def __init__(self, generator: StyleGAN3Generator) -> None:
        super().__init__()
        self.synthesis = generator.synthesis

    def forward(self, ws: torch.Tensor) -> tuple[torch.Tensor, ...]:
        output = self.synthesis(ws)
        return (output.image, *output.taps.values())


@pytest.mark.parametrize(
    "generator",
    [*(pytest.param(f"{kind}_generator", marks=pytest.mark.thorough) for kind in ("t", "r")), "short_generator"],
    indirect=True,
)
def test_exported_synthesis_agrees_for_batches_of_any_size(generator: StyleGAN3Generator) -> None:
    names = ["image", *(spec.name for spec in generator.tap_specs)]
    model = export_module(WithTaps(generator), (make_ws(generator),), ["ws"], names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for n in (1, 3):
        ws = make_ws(generator, n)
        arrays = session.run(None, {"ws": ws.numpy()})
        for got, wanted in zip(arrays, WithTaps(generator)(ws), strict=True):
            torch.testing.assert_close(torch.from_numpy(got), wanted, rtol=0, atol=1e-4)


def test_tap_specs_tell_shapes_and_layers_tell_margins(generator: StyleGAN3Generator) -> None:
    taps = generator.synthesis(make_ws(generator)).taps
    assert [(spec.name, spec.channels, spec.resolution) for spec in generator.tap_specs] == [
        (name, tap.shape[1], tap.shape[2]) for name, tap in taps.items()
    ]
    assert [layer.margin for layer in generator.config.layers] == [10] * 13 + [0, 0]


def test_a_picture_does_not_depend_on_the_others_of_its_batch(generator: StyleGAN3Generator) -> None:
    ws = make_ws(generator, 3)
    alone = generator.synthesis(ws[1:2]).image
    torch.testing.assert_close(generator.synthesis(ws).image[1:2], alone, rtol=0, atol=1e-5)


def test_noise_mode_has_no_effect(r_generator: StyleGAN3Generator) -> None:
    ws = make_ws(r_generator)
    images = [r_generator.synthesis(ws, mode).image for mode in ("const", "random", "none")]
    assert torch.equal(images[0], images[1])
    assert torch.equal(images[0], images[2])


def test_half_precision_features_give_nearly_the_same_picture(r_generator: StyleGAN3Generator) -> None:
    ws = make_ws(r_generator)
    exact, rough = r_generator.synthesis(ws), r_generator.synthesis(ws, compute_dtype=torch.bfloat16)
    assert rough.image.dtype == torch.float32
    assert rough.taps["L0_36_48"].dtype == torch.bfloat16
    assert (rough.image - exact.image).square().mean().sqrt() < 0.05 * exact.image.std()


def test_truncation_may_differ_for_each_image(r_generator: StyleGAN3Generator) -> None:
    torch.manual_seed(5)
    z, c = torch.randn(2, r_generator.config.z_dim), torch.eye(r_generator.config.c_dim)[:2]
    ws = r_generator.mapping(z, c, torch.tensor([0.0, 1.0]), 4)
    torch.testing.assert_close(ws[0, :4], r_generator.w_avg.expand(4, -1), rtol=0, atol=0)
    torch.testing.assert_close(ws[1], r_generator.mapping(z, c)[1], rtol=0, atol=1e-6)
    torch.testing.assert_close(ws[0, 4:], r_generator.mapping(z, c)[0, 4:], rtol=0, atol=0)


def test_tensors_of_another_shape_are_refused(r_generator: StyleGAN3Generator) -> None:
    z, c = torch.zeros(2, r_generator.config.z_dim), torch.zeros(2, r_generator.config.c_dim)
    calls: dict[str, Callable[[], object]] = {
        "z": lambda: r_generator.mapping(z[:, 1:], c),
        "c": lambda: r_generator.mapping(z),
        "ws": lambda: r_generator.synthesis(make_ws(r_generator)[:, 1:]),
    }
    for field, call in calls.items():
        with pytest.raises(GeneratorError, match="expected") as caught:
            call()
        assert caught.value.field == field


def test_stored_attributes_tell_t_from_r(record: ModuleRecord, r_generator: StyleGAN3Generator) -> None:
    config = config_from_attributes(record)
    assert config == r_generator.config
    assert (config.resolution, config.c_dim, config.num_ws, config.image_channels) == (32, 10, 16, 3)
    assert {layer.kernel for layer in config.layers} == {1}
    assert [layer.down_radial for layer in config.layers] == [True] * 12 + [False] * 3


@pytest.mark.parametrize("value", [None, "36", True, float("nan"), float("inf"), -1, 0, HUGE, [36], [[]], {}])
@pytest.mark.parametrize(
    "place",
    ["synthesis.L5_52_48:in_size", "synthesis.L5_52_48:up_factor", "synthesis.input:channels", "mapping:num_layers"],
)
def test_attributes_that_are_no_such_number_are_refused(changed: ModuleRecord, place: str, value: object) -> None:
    path, name = place.split(":")
    inside(changed, path).attributes[name] = value
    with pytest.raises(CheckpointError, match="expected"):
        config_from_attributes(changed)


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        ("mapping", "num_ws", 15),
        ("mapping", "w_dim", 63),
        ("mapping", "num_layers", 3),
        ("mapping.fc1", "activation", "relu"),
        ("mapping.fc1", "weight_gain", 1.0),
        ("synthesis", "layer_names", ["L0_36_48", "__class__"]),
        ("synthesis", "layer_names", "L0_36_48"),
        ("synthesis", "output_scale", -0.25),
        ("synthesis", "img_resolution", 64),
        ("synthesis.input", "bandwidth", 8.0),
        ("synthesis.input", "sampling_rate", "16"),
        ("synthesis.input", "size", np.array([36, 37])),
        ("synthesis.L0_36_48", "padding", [11, 10, 11]),
        ("synthesis.L0_36_48", "padding", [11, 10, 11, 12]),
        ("synthesis.L0_36_48", "out_size", np.zeros(100)),
        ("synthesis.L0_36_48", "up_factor", 13),
        ("synthesis.L0_36_48", "in_channels", 47),
        ("synthesis.L0_36_48", "is_torgb", 1),
        ("synthesis.L0_36_48", "is_torgb", True),
        ("synthesis.L0_36_48", "conv_clamp", 0),
        ("synthesis.L0_36_48", "conv_kernel", 3),
        (f"synthesis.{LAST}", "is_torgb", False),
    ],
)
def test_attributes_that_contradict_the_rest_are_refused(
    changed: ModuleRecord, path: str, name: str, value: object
) -> None:
    inside(changed, path).attributes[name] = value
    with pytest.raises(CheckpointError, match="expected") as caught:
        config_from_attributes(changed)
    assert caught.value.field


@pytest.mark.parametrize("name", ["up_factor", "padding", "conv_clamp", "is_torgb", "out_sampling_rate"])
def test_missing_attributes_are_named(changed: ModuleRecord, name: str) -> None:
    del inside(changed, "synthesis.L3_36_48").attributes[name]
    with pytest.raises(CheckpointError, match="is missing") as caught:
        config_from_attributes(changed)
    assert caught.value.field == f"synthesis.L3_36_48.{name}"


@pytest.mark.parametrize("path", ["mapping", "mapping.fc0", "mapping.embed", "synthesis.input", "synthesis.L4_36_48"])
def test_missing_and_foreign_modules_are_named(changed: ModuleRecord, path: str) -> None:
    parent, _, name = path.rpartition(".")
    siblings = inside(changed, parent).modules
    siblings[name] = replace(siblings[name], class_name="Foreign")
    with pytest.raises(CheckpointError, match="is a 'Foreign'"):
        config_from_attributes(changed)
    del siblings[name]
    with pytest.raises(CheckpointError, match="is missing") as caught:
        config_from_attributes(changed)
    assert caught.value.field == path


@pytest.mark.parametrize(
    ("path", "name", "array"),
    [
        ("mapping", "w_avg", None),
        ("mapping", "w_avg", np.zeros(63)),
        ("mapping.fc0", "weight", np.zeros((64, 64))),
        ("synthesis.input", "freqs", np.full((48, 2), np.nan)),
        ("synthesis.input", "phases", np.full(48, 1e300)),
        ("synthesis.input", "transform", np.ones((3, 3))),
        ("synthesis.L0_36_48", "magnitude_ema", np.array(0.0)),
        ("synthesis.L0_36_48", "up_filter", np.zeros((12, 12))),
        ("synthesis.L0_36_48", "up_filter", None),
        ("synthesis.L0_36_48", "down_filter", np.zeros((12, 11))),
        ("synthesis.L0_36_48", "bias", np.zeros(48, np.int64)),
        ("synthesis.L0_36_48", "weight", np.zeros((48, 48, 3, 3))),
        ("synthesis.L0_36_48", "surplus", np.zeros(1)),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    changed: ModuleRecord, path: str, name: str, array: npt.NDArray[np.generic] | None
) -> None:
    module = inside(changed, path)
    arrays = module.parameters if name in module.parameters else module.buffers
    if array is None:
        del arrays[name]
    else:
        arrays[name] = array
    with pytest.raises(CheckpointError) as caught:
        generator_from_record(changed, R_FILE)
    assert caught.value.field.startswith(f"{path}.")


def test_layers_that_do_not_fit_together_are_refused(r_generator: StyleGAN3Generator) -> None:
    config = r_generator.config
    wrong: list[Callable[[], StyleGAN3Config]] = [
        lambda: replace(config, layers=config.layers[1:] + config.layers[:1]),
        lambda: replace(config, layers=config.layers[:-1]),
        lambda: replace(config, layers=()),
        lambda: replace(config, image_channels=4),
        lambda: replace(config, z_dim=0),
        lambda: replace(config, output_scale=float("nan")),
    ]
    for make in wrong:
        with pytest.raises(GeneratorError, match="expected"):
            make()
