"""The generator against StyleGAN2 written out plainly."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from labelmint_export.bundle.graphs import bake_gains
from labelmint_export.errors import GeneratorError
from labelmint_export.generator import GeneratorConfig
from labelmint_export.generator.config import Architecture
from labelmint_export.generator.stylegan2 import ModulatedConv
from tests.export.plain_stylegan import grouped_conv, modulated_weights, plain_mapping, plain_synthesis, upsampling_conv
from tests.export.tiny_parts import make_config, make_generator, make_generator_of


def make_conv(*, kernel: int, demodulate: bool, up: bool = False) -> ModulatedConv:
    torch.manual_seed(1)
    return ModulatedConv(5, 4, kernel=kernel, demodulate=demodulate, up=up).double().requires_grad_(False)


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("kernel", [1, 3])
def test_scaled_activations_equal_per_sample_weights(kernel: int, demodulate: bool) -> None:
    conv = make_conv(kernel=kernel, demodulate=demodulate)
    x, styles = torch.randn(3, 5, 6, 6).double(), torch.randn(3, 5).double()
    weight = conv.weight / math.sqrt(5 * kernel * kernel)
    expected = grouped_conv(x, modulated_weights(weight, styles, demodulate=demodulate))
    torch.testing.assert_close(conv(x, styles), expected, rtol=0, atol=1e-12)


def test_upsampling_layer_equals_transposed_convolution_and_filter() -> None:
    conv = make_conv(kernel=3, demodulate=True, up=True)
    x, styles = torch.randn(2, 5, 4, 6).double(), torch.randn(2, 5).double()
    weights = modulated_weights(conv.weight / math.sqrt(45), styles, demodulate=True)
    expected = upsampling_conv(x, weights)
    assert expected.shape == (2, 4, 8, 12)
    torch.testing.assert_close(conv(x, styles), expected, rtol=0, atol=1e-12)


def test_upsampling_keeps_a_flat_picture_flat_away_from_the_border() -> None:
    conv = make_conv(kernel=1, demodulate=False)
    flat = torch.ones(1, 1, 8, 8, dtype=torch.float64)
    doubled = upsampling_conv(flat, torch.ones(1, 1, 1, 1, 1, dtype=torch.float64))
    assert conv.weight.shape == (4, 5, 1, 1)
    torch.testing.assert_close(doubled[:, :, 3:-4, 3:-4], torch.ones_like(doubled[:, :, 3:-4, 3:-4]))


@pytest.mark.parametrize("noise_mode", ["const", "none"])
def test_synthesis_equals_the_plain_algorithm(noise_mode: str) -> None:
    generator = make_generator(32).double()
    ws = torch.randn(2, generator.config.num_ws, 10).double()
    got = generator.synthesis(ws, noise_mode, compute_dtype=torch.float64)
    image, taps = plain_synthesis(generator, ws, noise_mode)
    torch.testing.assert_close(got.image, image, rtol=0, atol=1e-10)
    assert list(got.taps) == list(taps)
    for name, tap in taps.items():
        torch.testing.assert_close(got.taps[name], tap, rtol=0, atol=1e-10)


@pytest.mark.parametrize("conv_clamp", [None, 0.6])
@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_architectures_equal_the_plain_algorithm(architecture: Architecture, conv_clamp: float | None) -> None:
    config = dataclasses.replace(make_config(32), architecture=architecture, conv_clamp=conv_clamp)
    generator = make_generator_of(config).double()
    ws = torch.randn(2, config.num_ws, 10).double()
    got = generator.synthesis(ws, "const", compute_dtype=torch.float64)
    image, taps = plain_synthesis(generator, ws)
    torch.testing.assert_close(got.image, image, rtol=0, atol=1e-10)
    for name, tap in taps.items():
        torch.testing.assert_close(got.taps[name], tap, rtol=0, atol=1e-10)
        if conv_clamp is not None:
            assert float((tap.abs() > conv_clamp * 0.7).double().mean()) > 0.01, "the bound is never met"


def test_noise_that_is_given_takes_the_place_of_the_stored() -> None:
    generator = make_generator().double()
    ws = torch.randn(2, generator.config.num_ws, 10).double()
    noise = {"b8.conv0": torch.randn(2, 1, 8, 8).double(), "b16.conv1": torch.randn(1, 1, 16, 16).double()}
    for mode in ("const", "none"):
        got = generator.synthesis(ws, mode, noise, compute_dtype=torch.float64)
        image, _ = plain_synthesis(generator, ws, mode, noise)
        torch.testing.assert_close(got.image, image, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        ({"b8.conv7": torch.zeros(1, 1, 8, 8)}, "names 'b8.conv7', expected layers of b4.conv1, b8.conv0"),
        ({"b8.conv0": torch.zeros(3, 1, 8, 8)}, "shape \\[3, 1, 8, 8\\], expected \\[2 or 1, 1, 8, 8\\]"),
        ({"b8.conv0": torch.zeros(8, 8)}, "shape \\[8, 8\\]"),
    ],
)
def test_noise_that_does_not_fit_is_refused(noise: dict[str, torch.Tensor], message: str) -> None:
    generator = make_generator()
    with pytest.raises(GeneratorError, match=message) as caught:
        generator.synthesis(torch.zeros(2, generator.config.num_ws, 10), noise=noise)
    assert caught.value.field == "noise"


def test_float16_layers_do_not_overflow() -> None:
    conv = make_conv(kernel=3, demodulate=True)
    x, styles = torch.randn(2, 5, 6, 6), torch.randn(2, 5) * 1e5
    expected = conv.float()(x, styles)
    assert bool(torch.isfinite(expected).all())
    torch.testing.assert_close(conv(x.half(), styles).float(), expected, rtol=0, atol=2e-2)


def test_picture_is_the_sum_of_the_upsampled_colours_of_the_blocks() -> None:
    generator = make_generator()
    ws = torch.randn(1, generator.config.num_ws, 10)
    whole = generator.synthesis(ws).image
    alone = []
    for kept in generator.config.block_resolutions:
        one = make_generator()
        for r in generator.config.block_resolutions:
            if r != kept:
                torgb = one.synthesis.block(r).torgb
                assert torgb is not None
                torgb.conv.weight.zero_()
                torgb.bias.zero_()
        alone.append(one.synthesis(ws).image)
    torch.testing.assert_close(sum(alone[1:], alone[0]), whole, rtol=0, atol=1e-5)
    assert all(float(part.abs().max()) > 1e-3 for part in alone)


def test_taps_have_the_names_shapes_and_order_that_the_specs_say() -> None:
    generator = make_generator()
    taps = generator.synthesis(torch.randn(2, generator.config.num_ws, 10)).taps
    assert [(s.name, s.channels, s.resolution) for s in generator.tap_specs] == [
        ("b4.conv1", 8, 4),
        ("b8.conv0", 7, 8),
        ("b8.conv1", 7, 8),
        ("b16.conv0", 6, 16),
        ("b16.conv1", 6, 16),
    ]
    assert [(name, tuple(tap.shape)) for name, tap in taps.items()] == [
        (s.name, (2, s.channels, s.resolution, s.resolution)) for s in generator.tap_specs
    ]


@pytest.mark.parametrize("c_dim", [0, 3])
def test_mapping_equals_the_plain_network(c_dim: int) -> None:
    generator = make_generator(c_dim=c_dim)
    z, c = torch.randn(3, 8), torch.eye(3)[[2, 0, 2]] if c_dim else None
    expected = plain_mapping(make_generator(c_dim=c_dim).double(), z.double(), None if c is None else c.double())
    torch.testing.assert_close(generator.mapping.map_to_w(z, c).double(), expected, rtol=1e-5, atol=1e-6)


def test_truncation_pulls_the_leading_ws_towards_the_mean() -> None:
    mapping = make_generator().mapping
    z = torch.randn(3, 8)
    whole = mapping(z)
    assert whole.shape == (3, 6, 10)
    cut = mapping(z, truncation_psi=0.4, truncation_cutoff=2)
    torch.testing.assert_close(cut[:, :2], 0.6 * mapping.w_avg + 0.4 * whole[:, :2])
    torch.testing.assert_close(cut[:, 2:], whole[:, 2:], rtol=0, atol=0)


@pytest.mark.parametrize("cutoff", [None, 6, 7])
def test_cutoff_from_the_number_of_ws_truncates_all(cutoff: int | None) -> None:
    mapping = make_generator().mapping
    z = torch.randn(2, 8)
    got = mapping(z, truncation_psi=0.0, truncation_cutoff=cutoff)
    torch.testing.assert_close(got, mapping.w_avg.expand_as(got))


@pytest.mark.parametrize("psi", [np.float32(0.5), np.float64(0.5), torch.tensor(0.5), np.array(0.5)])
def test_psi_may_be_any_number(psi: Any) -> None:  # Any: what counts as a number
    mapping, z = make_generator().mapping, torch.randn(3, 8)
    torch.testing.assert_close(mapping(z, truncation_psi=psi), mapping(z, truncation_psi=0.5), rtol=0, atol=0)


def test_psi_of_each_row_truncates_that_row() -> None:
    mapping = make_generator().mapping
    z = torch.randn(3, 8)
    psi = torch.tensor([0.0, 0.5, 1.0])
    got = mapping(z, None, psi, 3)
    for row in range(3):
        one = mapping(z[row : row + 1], None, float(psi[row]), 3)
        torch.testing.assert_close(got[row : row + 1], one)


def test_noise_modes() -> None:
    generator = make_generator()
    ws = torch.randn(1, generator.config.num_ws, 10)

    def paint(mode: str) -> torch.Tensor:
        image: torch.Tensor = generator.synthesis(ws, mode).image
        return image

    torch.manual_seed(0)
    random = paint("random")
    assert not torch.equal(random, paint("random"))
    torch.manual_seed(0)
    assert torch.equal(random, paint("random"))
    assert torch.equal(paint("const"), paint("const"))
    assert not torch.equal(paint("const"), paint("none"))


def test_classes_of_a_conditional_generator_matter() -> None:
    generator = make_generator(c_dim=3)
    z = torch.randn(1, 8)
    ws = generator.mapping(z.expand(3, -1), torch.eye(3))
    assert not torch.allclose(ws[0], ws[1])
    assert not torch.allclose(ws[1], ws[2])
    torch.testing.assert_close(ws[1:2], generator.mapping(z, torch.eye(3)[1:2]))


def test_grey_generator_paints_one_channel() -> None:
    generator = make_generator(image_channels=1)
    assert generator.synthesis(torch.randn(2, 6, 10)).image.shape == (2, 1, 16, 16)


def test_baked_gains_give_the_same_pictures_and_no_gain_is_left() -> None:
    generator = make_generator(c_dim=2)
    z, c = torch.randn(3, 8), torch.eye(2)[[0, 1, 1]]
    expected = generator(z, c, 0.7)
    baked = bake_gains(generator)
    got = baked(z, c, 0.7)
    torch.testing.assert_close(got.image, expected.image, rtol=1e-5, atol=1e-5)
    gains = [m.weight_gain for m in baked.modules() if hasattr(m, "weight_gain")]
    assert gains
    assert set(gains) == {1.0}
    assert torch.equal(generator(z, c, 0.7).image, expected.image), "the original was changed"


@pytest.mark.parametrize("shape", [[2, 7], [8], [1, 2, 8]])
def test_z_of_another_shape_is_refused(shape: list[int]) -> None:
    with pytest.raises(GeneratorError, match=r"z has shape .* expected \[N, 8\]") as caught:
        make_generator().mapping(torch.zeros(shape))
    assert caught.value.field == "z"


@pytest.mark.parametrize("c", [None, torch.zeros(2, 4), torch.zeros(3)])
def test_missing_or_misshapen_class_is_refused(c: torch.Tensor | None) -> None:
    with pytest.raises(GeneratorError, match=r"expected \[N, 3\]") as caught:
        make_generator(c_dim=3).mapping(torch.zeros(2, 8), c)
    assert caught.value.field == "c"


@pytest.mark.parametrize("shape", [[2, 5, 10], [2, 6, 9], [6, 10]])
def test_ws_of_another_shape_are_refused(shape: list[int]) -> None:
    with pytest.raises(GeneratorError, match=r"ws has shape .* expected \[N, 6, 10\]") as caught:
        make_generator().synthesis(torch.zeros(shape))
    assert caught.value.field == "ws"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("resolution", 4),
        ("resolution", 24),
        ("resolution", 2**20),
        ("channels", {4: 8, 16: 8}),
        ("channels", {4: 8, 8: 0, 16: 8}),
        ("channels", {4: 8, 8: 10**6, 16: 8}),
        ("image_channels", 2),
        ("z_dim", 0),
        ("w_dim", -1),
        ("c_dim", -1),
        ("mapping_layers", 0),
        ("mapping_layers", 10**9),
    ],
)
def test_shape_out_of_range_is_refused(field: str, value: object) -> None:
    fields = {name: getattr(make_config(), name) for name in GeneratorConfig.__dataclass_fields__} | {field: value}
    with pytest.raises(GeneratorError, match=field) as caught:
        GeneratorConfig(**fields)
    assert caught.value.field == field
