"""The module that all targets are written from, against the plain algorithms in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from labelmint_export.bundle.deployed_conv import DeployedConv, phase_weight
from labelmint_export.generator.stylegan2 import ModulatedConv
from labelmint_export.precision import DTYPES, Precision
from tests.export.built_bundle import BuiltBundle
from tests.export.targets.made import WatchedOperations, make_model, run_module

HALF: tuple[Precision, ...] = ("float16", "bfloat16")
# Of a random interpreter whose members disagree nearly everywhere: labels flip on rounding that a trained one ignores.
AGREEMENT = {"float32": 0.9995, "float16": 0.99, "bfloat16": 0.93}
LEVELS = {"float32": 0.01, "float16": 0.5, "bfloat16": 4.0}


@pytest.mark.parametrize("precision", DTYPES)
def test_module_computes_what_the_plain_algorithms_compute(built: BuiltBundle, precision: Precision) -> None:
    feeds = built.feeds(seed=21, indices=range(4), psi=0.8)
    got, expected = run_module(make_model(built, precision), feeds), built.plain_outputs(feeds)
    assert list(got) == ["image", "label", "uncertainty_map", "keypoints", "finite"]
    assert {name: array.shape for name, array in got.items()} == {n: array.shape for n, array in expected.items()}
    assert np.abs(got["image"].astype(float) - expected["image"]).mean() <= LEVELS[precision]
    assert (got["label"] == expected["label"]).mean() >= AGREEMENT[precision]
    assert got["finite"].all()


@pytest.mark.parametrize("precision", HALF)
def test_half_precision_really_rounds(plain_built: BuiltBundle, precision: Precision) -> None:
    """Or the agreement above would say nothing about a device."""
    feeds = plain_built.feeds(seed=21, indices=range(4), psi=0.8)
    rounded, full = (run_module(make_model(plain_built, p), feeds) for p in (precision, "float32"))
    assert (rounded["uncertainty_map"] != full["uncertainty_map"]).mean() > 0.1


@pytest.mark.parametrize("precision", HALF)
def test_sensitive_parts_stay_in_float32(plain_built: BuiltBundle, precision: Precision) -> None:
    model, half = make_model(plain_built, precision), DTYPES[precision]
    with WatchedOperations() as watched:
        run_module(model, plain_built.feeds(seed=2, indices=range(2), psi=1.0))
    for name in ("rsqrt", "_log_softmax", "exp", "log", "gather", "floor", "addmm"):
        assert half not in watched.dtypes[name], name
    assert half in watched.dtypes["convolution"]
    assert half in watched.dtypes["leaky_relu"]
    weights = {name: tensor.dtype for name, tensor in model.module.state_dict().items()}
    assert {dtype for name, dtype in weights.items() if name.endswith("conv.weight")} == {half}
    for part in ("mapping.", "affine.", "energy", "knots_", "to_pixels", "weight3"):
        assert {dtype for name, dtype in weights.items() if part in name} == {torch.float32}, part


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize(("kernel", "demodulate"), [(3, True), (1, False)])
def test_deployed_convolution_is_the_trained_one(up: bool, kernel: int, demodulate: bool) -> None:
    if up and not demodulate:
        pytest.skip("no layer upsamples without demodulation")
    torch.manual_seed(3)
    conv = ModulatedConv(6, 5, kernel=kernel, demodulate=demodulate, up=up).requires_grad_(False)
    x, styles = torch.randn(3, 6, 8, 8), torch.randn(3, 6)
    gain = 1.4 if demodulate else 1.0
    torch.testing.assert_close(DeployedConv(conv, torch.float32)(x, styles, gain), conv(x, styles, gain))


def test_phases_make_the_transposed_convolution() -> None:
    torch.manual_seed(5)
    weight, x = torch.randn(5, 6, 3, 3).double(), torch.randn(2, 6, 4, 7).double()
    phases = functional.conv2d(x, phase_weight(weight), padding=1)
    expected = functional.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    torch.testing.assert_close(functional.pixel_shuffle(phases, 2)[:, :, :-1, :-1], expected)


def test_float16_convolution_survives_large_weights_and_styles() -> None:
    """Products far beyond 65,504; the demodulation brings them back."""
    torch.manual_seed(4)
    conv = ModulatedConv(6, 5, kernel=3, demodulate=True).requires_grad_(False)
    conv.weight.mul_(3000.0)
    x, styles = torch.randn(2, 6, 8, 8), torch.randn(2, 6) * 5000.0
    got = DeployedConv(conv, torch.float16)(x.half(), styles)
    assert torch.isfinite(got).all()
    torch.testing.assert_close(got.float(), conv(x, styles), rtol=2e-2, atol=2e-2)
