"""Targets of the other families: StyleGAN1 and StyleGAN3, whose layers are none of StyleGAN2's.

The truth is the generator in float64 (which other tests hold against the original programs) and the plain interpreter.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from labelmint_export.checkpoints.loading import load_generator
from labelmint_export.generator import Backbone
from labelmint_export.precision import DTYPES, Precision
from labelmint_export.targets.onnx_target import MODEL_FILE, write_onnx
from tests.export.built_bundle import Arrays, BuiltBundle, Feeds
from tests.export.plain_interpreter import plain_labels
from tests.export.plain_stylegan1 import make_state_dict
from tests.export.targets.made import make_model, rejected_nodes, run_module
from tests.export.targets.test_torch_targets import check_equals_module
from tests.export.tiny_parts import make_interpreter, make_settings

pytestmark = pytest.mark.thorough

DATA = Path(__file__).parents[2] / "data/checkpoints"
# Random members disagree nearly everywhere, and these generators round more than StyleGAN2 (test_deployed.py): instance
# normalisation divides by small deviations, alias-free layers are filtered twice.
AGREEMENT = {"float32": 0.999, "float16": 0.97, "bfloat16": 0.85}
LEVELS = {"float32": 0.05, "float16": 1.0, "bfloat16": 6.0}


def load_stylegan1(folder: Path) -> Backbone:
    state = {name: torch.from_numpy(value) for name, value in make_state_dict({4: 5, 8: 4, 16: 3}).items()}
    torch.save(state, folder / "stylegan1.pt")
    return load_generator(folder / "stylegan1.pt")


FAMILIES: dict[str, Callable[[Path], Backbone]] = {
    "stylegan1": load_stylegan1,
    "stylegan3": lambda _: load_generator(DATA / "stylegan3_r_32_c10.pkl"),
}


@pytest.fixture(scope="module", params=FAMILIES)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> BuiltBundle:
    folder = tmp_path_factory.mktemp(request.param)
    generator = FAMILIES[request.param](folder)
    resolution = generator.config.resolution
    taps = tuple(tap for tap in generator.feature_specs if tap.resolution <= resolution)
    interpreter = make_interpreter(taps[1:-1], resolution)
    classes = {"class_distribution": tuple(np.full(10, 0.1))} if generator.config.c_dim else {}
    settings = make_settings(name=request.param, **classes)
    return BuiltBundle.build(folder / "bundle", generator, interpreter, settings)


@torch.no_grad()
def plain_outputs(built: BuiltBundle, feeds: Feeds) -> Arrays:
    double = copy.deepcopy(built.generator).double()
    c = torch.from_numpy(feeds["c"]).double() if "c" in feeds else None
    ws = double.mapping(torch.from_numpy(feeds["z"]).double(), c, float(feeds["truncation_psi"][0]))
    output = double.synthesis(ws, built.settings.noise_mode, compute_dtype=torch.float64)
    labels = plain_labels(built.interpreter, output.features, built.settings.vote_rule)
    image = torch.floor((127.5 * output.image + 128).clamp(0, 255)).permute(0, 2, 3, 1)
    return {"image": image.numpy(), "label": labels.label.numpy()}


@pytest.mark.parametrize("precision", DTYPES)
def test_module_computes_what_the_generator_and_the_plain_interpreter_do(
    built: BuiltBundle, precision: Precision
) -> None:
    feeds = built.feeds(seed=21, indices=range(4), psi=0.8)
    got, expected = run_module(make_model(built, precision), feeds), plain_outputs(built, feeds)
    assert np.abs(got["image"].astype(float) - expected["image"]).mean() <= LEVELS[precision]
    assert (got["label"] == expected["label"]).mean() >= AGREEMENT[precision]
    assert got["finite"].all()


@pytest.mark.parametrize("name", ["torchscript", "program"])
def test_stored_program_equals_the_module(built: BuiltBundle, name: str, tmp_path: Path) -> None:
    check_equals_module(built, name, "float32", tmp_path, exact=False)


def test_tensorrt_takes_every_node(built: BuiltBundle, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed: pip install 'labelmint[trt]'")
    for name in ("mapping", "synthesis", "interpreter", "model"):
        assert rejected_nodes(built.path / f"{name}.onnx") == [], name
    for precision in DTYPES:
        (tmp_path / precision).mkdir()
        write_onnx(make_model(built, precision), tmp_path / precision)
        assert rejected_nodes(tmp_path / precision / MODEL_FILE) == [], precision
