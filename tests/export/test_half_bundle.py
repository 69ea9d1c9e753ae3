"""Bundles in float16: what is rounded, what is not, that every engine labels with them, and what is refused.

The truth is float64, from weights and definitions alone or from generators that other tests hold against the original
programs.
"""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from labelmint.bundle import open_bundle
from labelmint.tables import read_interpreter_tables
from labelmint_export.bundle.graphs import CropWindow, SynthesisGraph, bake_gains
from labelmint_export.bundle.half import FLOAT32_UP_TO, make_half_synthesis
from labelmint_export.bundle.rounding import ProductsInFloat32
from labelmint_export.bundle.settings import check_parts
from labelmint_export.bundle.verify import verify_bundle
from labelmint_export.checkpoints.loading import load_generator
from labelmint_export.cli import make_parser
from labelmint_export.commands.packing import _settings_of
from labelmint_export.errors import BuildError
from labelmint_export.generator import Backbone, Generator, NoiseMode
from labelmint_export.interpreter.fused import FusedInterpreter, stack_taps
from labelmint_service.engine import EngineChoice, load_engine
from labelmint_service.errors import EngineStartError
from tests.export.built_bundle import Arrays, BuiltBundle, engine_inputs
from tests.export.conftest import build_once
from tests.export.plain_stylegan1 import make_state_dict
from tests.export.targets.made import run_command, save_sources
from tests.export.tiny_parts import make_generator, make_generator_of, make_interpreter, make_schema, make_settings

NOISE: tuple[NoiseMode, ...] = ("const", "none")
LARGE = 70000.0
"""More than float16 can hold."""


@pytest.fixture(scope="session")
def half_built(tmp_path_factory: pytest.TempPathFactory) -> BuiltBundle:
    generator = make_generator(32)
    interpreter = make_interpreter(generator.tap_specs, 32, threshold=0.1)
    return build_once(tmp_path_factory, generator, interpreter, make_settings(name="half", precision="float16"))


@pytest.fixture(scope="module")
def stylegan1(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    folder = tmp_path_factory.mktemp("stylegan1")
    state = {
        name: torch.from_numpy(value) for name, value in make_state_dict({4: 5, 8: 4, 16: 4, 32: 4, 64: 4}).items()
    }
    torch.save(state, folder / "stylegan1.pt")
    return load_generator(folder / "stylegan1.pt")


@pytest.fixture(scope="module")
def stylegan2() -> Generator:
    """Of 32 x 32: that of the other tests has no block in float16."""
    return make_generator(32)


def deploy(generator: Backbone, noise_mode: NoiseMode = "const") -> SynthesisGraph:
    crop = CropWindow(top=0, left=0, height=generator.config.resolution, width=generator.config.resolution)
    return make_half_synthesis(bake_gains(generator), generator.tap_specs, noise_mode, crop)


def types_of(values: list[onnx.ValueInfoProto]) -> dict[str, str]:
    return {value.name: TensorProto.DataType.Name(value.type.tensor_type.elem_type) for value in values}


def load_graph(built: BuiltBundle, name: str) -> onnx.GraphProto:
    return onnx.load(built.path / f"{name}.onnx", load_external_data=False).graph


# --- what is rounded --------------------------------------------------------------------------------------------------


def test_taps_are_float16_and_all_else_has_the_types_of_every_bundle(
    half_built: BuiltBundle, plain_built: BuiltBundle
) -> None:
    kept = {"image", "finite", "label", "uncertainty_map", "keypoints", "z", "truncation_psi", "ws"}
    assert half_built.manifest.precision == "float16"
    for name in ("mapping", "synthesis", "interpreter", "model"):
        for side in ("input", "output"):
            got, usual = (types_of(list(getattr(load_graph(b, name), side))) for b in (half_built, plain_built))
            assert {n: kind for n, kind in got.items() if n in kept} == {n: k for n, k in usual.items() if n in kept}
            assert {kind for n, kind in got.items() if n not in kept} <= {"FLOAT16"}
            assert all(n.startswith("tap_r") for n in got if n not in kept)


def test_tables_of_the_interpreter_are_not_rounded(half_built: BuiltBundle) -> None:
    tables = FusedInterpreter(half_built.interpreter).tables()
    got = read_interpreter_tables(open_bundle(half_built.path))
    assert got.keys() == tables.keys()
    for name, table in tables.items():
        assert got[name].tobytes() == table.tobytes(), name


def wide_maps(built: BuiltBundle, side: int) -> list[str]:
    """Operations that give feature maps in float32: of the picture's colours alone there are some."""
    model = onnx.load(built.path / "synthesis.onnx")
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    kinds = {value.name: value.type.tensor_type for value in graph.value_info}
    found = []
    for node in graph.node:
        kind = kinds.get(node.output[0])
        if kind is None or kind.elem_type != TensorProto.FLOAT or len(kind.shape.dim) != 4:
            continue
        _, channels, height, width = (size.dim_value for size in kind.shape.dim)
        if channels > 3 and (height, width) == (side, side):
            found.append(node.op_type)
    return found


def test_no_feature_map_above_the_coarsest_is_computed_in_float32(half_built: BuiltBundle) -> None:
    assert wide_maps(half_built, 32) == []
    assert wide_maps(half_built, FLOAT32_UP_TO).count("LeakyRelu") == 2


def test_layer_of_stylegan1_is_five_operations_on_its_maps(stylegan1: Backbone, tmp_path: Path) -> None:
    interpreter = make_interpreter(stylegan1.tap_specs[2:], 64, num_members=3)
    built = BuiltBundle.build(
        tmp_path / "bundle", stylegan1, interpreter, make_settings(name="stylegan1", precision="float16")
    )
    nodes = load_graph(built, "synthesis").node
    first = next(number for number, node in enumerate(nodes) if any(".b32." in name for name in node.input))
    kinds = [node.op_type for node in nodes[first:]]
    assert [kinds.count(kind) for kind in ("InstanceNormalization", "LeakyRelu", "ConvTranspose")] == [4, 4, 2]
    assert kinds.count("Conv") == 2 + 2 + 1  # blurs, second convolutions, colours
    assert not {"ReduceMean", "Sqrt", "Pad"} & set(kinds)
    assert wide_maps(built, 32) == wide_maps(built, 64) == []
    feeds = built.feeds(seed=3, indices=range(2), psi=1.0)
    whole, painted = built.run("model", feeds), built.run("synthesis", built.run("mapping", feeds))
    assert np.abs(whole["image"].astype(int) - painted["image"].astype(int)).max() <= 1


# --- deployed forms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise_mode", NOISE)
@pytest.mark.parametrize("family", ["stylegan1", "stylegan2", "stylegan2-resnet"])
def test_deployed_form_paints_what_was_trained(
    family: str, noise_mode: NoiseMode, stylegan1: Backbone, stylegan2: Generator
) -> None:
    generator: Backbone = stylegan1 if family == "stylegan1" else stylegan2
    if family == "stylegan2-resnet":
        config = dataclasses.replace(stylegan2.config, architecture="resnet", conv_clamp=2.0)
        generator = make_generator_of(config)
    ws = torch.randn(3, generator.config.num_ws, generator.config.w_dim)
    with torch.no_grad():
        double = copy.deepcopy(generator).double().synthesis(ws.double(), noise_mode, compute_dtype=torch.float64)
        image, *stacks, finite = deploy(generator, noise_mode)(ws)
    expected = stack_taps(double.features, generator.tap_specs)
    assert finite.all()
    for (name, tap), got in zip(expected.items(), stacks, strict=True):
        assert got.dtype == torch.float16
        error = (got.double() - tap).square().mean().sqrt() / tap.square().mean().sqrt()
        assert error < (5e-4 if tap.shape[2] <= FLOAT32_UP_TO else 3e-3), name
    levels = torch.floor((127.5 * double.image + 128).clamp(0, 255)).permute(0, 2, 3, 1)
    assert (image.double() - levels).abs().mean() < 0.5


def test_pictures_of_a_batch_do_not_see_each_other(stylegan1: Backbone) -> None:
    """Their maps are normalised as channels of one picture."""
    ws = torch.randn(3, stylegan1.config.num_ws, stylegan1.config.w_dim)
    with torch.no_grad():
        together = deploy(stylegan1)(ws)
        ws[1] = float("nan")
        beside = deploy(stylegan1)(ws)
    assert beside[-1].tolist() == [True, False, True]
    for one, other in zip(together, beside, strict=True):
        assert torch.equal(one[[0, 2]], other[[0, 2]])


def test_products_in_float32_are_rounded_once() -> None:
    a, b = torch.randn(40, 700).half(), torch.randn(700, 30).half()
    x, weight = torch.randn(2, 60, 9, 9).half(), torch.randn(5, 60, 3, 3).half()
    bias = torch.randn(5).half()
    with ProductsInFloat32():  # type: ignore[no-untyped-call]  # torch does not annotate it
        products = (a @ b, torch.matmul(a[None], b), torch.nn.functional.conv2d(x, weight, bias, padding=1))
        assert (a.float() @ b.float()).dtype == torch.float32
    exact = (
        a.double() @ b.double(),
        torch.matmul(a[None].double(), b.double()),
        torch.nn.functional.conv2d(x.double(), weight.double(), bias.double(), padding=1),
    )
    for got, expected in zip(products, exact, strict=True):
        assert got.dtype == torch.float16
        assert (got == expected.half()).double().mean() > 0.99


# --- every reader -----------------------------------------------------------------------------------------------------


def check_labels(got: Arrays, expected: Arrays) -> None:
    """Random members disagree at most pixels, so few of them are far from a tie."""
    assert got["finite"].all()
    assert np.abs(got["image"].astype(int) - expected["image"]).max() <= 2
    assert (got["label"] == expected["label"]).mean() >= 0.99
    error = np.abs(got["uncertainty_map"].astype(float) - expected["uncertainty_map"])
    assert error.max() < 2e-2
    assert error.mean() < 1e-3
    seen = expected["keypoints"][..., 3] > 0.5
    near = np.abs(got["keypoints"][..., :2] - expected["keypoints"][..., :2]).max(axis=2) < 0.5
    assert near[seen].mean() >= 0.9


@pytest.mark.parametrize("engine", ["onnxruntime", "fused"])
def test_engines_of_a_processor_label_with_it(half_built: BuiltBundle, engine: str) -> None:
    feeds = half_built.feeds(seed=31, indices=range(4), psi=0.9)
    loaded = load_engine(open_bundle(half_built.path), EngineChoice(engine=engine))
    batch = loaded.run(engine_inputs(feeds, [0, 1, 2, 3]))
    styled = loaded.run_styles(half_built.run("mapping", feeds)["ws"])
    loaded.close()
    expected = half_built.plain_outputs(feeds)
    for one in (batch, styled):
        check_labels({name: getattr(one, name) for name in (*expected, "finite")}, expected)


def test_device_reads_its_taps_in_float16(half_built: BuiltBundle) -> None:
    """The whole path of a GPU, products in float16 too, on a device that is this processor."""
    pytest.importorskip("triton", reason="triton is installed on Linux only")
    from labelmint_service.engine.fused.gpu.engine import GpuEngine  # noqa: PLC0415 - needs triton
    from tests.service.interpreted_device import InterpretedDevice  # noqa: PLC0415 - needs triton

    bundle = open_bundle(half_built.path)
    bundle.manifest.runtime.batch_size = 1
    engine = GpuEngine(bundle, InterpretedDevice(np.float16))
    feeds = half_built.feeds(seed=31, indices=range(1), psi=0.9)
    batch = engine.run(engine_inputs(feeds, [0]))
    assert any(name.endswith("-float16") for name in engine.describe()["binaries"])  # type: ignore[union-attr]  # a dict
    expected = half_built.plain_outputs(feeds)
    check_labels({name: getattr(batch, name) for name in (*expected, "finite")}, expected)


def test_fused_engine_names_the_precision_that_it_does_not_read(half_built: BuiltBundle) -> None:
    bundle = open_bundle(half_built.path)
    bundle.manifest.precision = "bfloat16"
    with pytest.raises(
        EngineStartError, match=r"precision of bundle 'half' is 'bfloat16', expected .* float16"
    ) as caught:
        load_engine(bundle, EngineChoice(engine="fused"))
    assert caught.value.field == "precision"
    bundle.manifest.precision = "float32"
    with pytest.raises(EngineStartError, match="gives 'tap_r4' as float16, expected float32"):
        load_engine(bundle, EngineChoice(engine="fused"))


def test_build_measures_the_graph_and_its_rounding(half_built: BuiltBundle) -> None:
    checks = {check.name: check for check in half_built.manifest.parity.checks}
    for prefix in ("onnx_vs_reference", "rounded_vs_reference"):
        assert checks[f"{prefix}.label_agreement"].tolerance == 0.995
        assert checks[f"{prefix}.finite_share"].measured == 1.0
    wide, rounded = (checks[f"{p}.uncertainty_mean_error"] for p in ("onnx_vs_reference", "rounded_vs_reference"))
    assert 0 < wide.measured < 1e-3
    assert 0 < rounded.measured < 1e-3
    assert rounded.measured != wide.measured


def test_verify_measures_again_with_the_tolerances_of_float16(half_built: BuiltBundle) -> None:
    results = dict(verify_bundle(half_built.path, (half_built.generator, half_built.interpreter), num_samples=2))
    assert "rounded_vs_reference.label_agreement" in results
    assert "onnx_vs_reference.image_max_error_levels" not in results
    other = make_interpreter(half_built.generator.tap_specs, 32, seed=9)
    with pytest.raises(BuildError, match=r"vs_reference\.label_agreement is"):
        verify_bundle(half_built.path, (half_built.generator, other), num_samples=1)


def test_verify_as_an_engine_tells_its_precision_and_adds_the_emulation(
    half_built: BuiltBundle, tmp_path: Path
) -> None:
    sources = save_sources(half_built, tmp_path)
    status, printed, complained = run_command("verify", half_built.path, *sources, "--engine", "bundle", "--samples", 2)
    assert status == 0, complained
    assert "emulated-float16" in printed
    assert "in float32 (no float16 arithmetic on this device)" in printed


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_bfloat16_is_refused_before_anything_is_exported() -> None:
    generator = make_generator()
    parts = generator, make_interpreter(generator.tap_specs, 16), make_schema()
    check_parts(*parts, make_settings(precision="float16"))
    with pytest.raises(BuildError, match="precision is 'bfloat16', expected float32 or float16") as caught:
        check_parts(*parts, make_settings(precision="bfloat16"))
    assert caught.value.field == "precision"


def test_weights_beyond_float16_are_named(stylegan1: Backbone) -> None:
    large = copy.deepcopy(stylegan1)
    with torch.no_grad():
        large.synthesis.get_submodule("blocks.b32.conv1").bias[1] = LARGE  # type: ignore[operator]  # a tensor
    with pytest.raises(BuildError, match=r"blocks\.b32\.conv1\.bias holds values beyond 65504") as caught:
        deploy(large)
    assert caught.value.field == "precision"
    deploy(stylegan1)


@pytest.mark.parametrize("given", [[], ["--precision", "float16"], ["--precision", "float32"]])
def test_build_takes_the_precision_that_is_asked_for(given: list[str]) -> None:
    least = ["build", "--generator", "g", "--interpreter", "i", "--classes", "a", "--out", "o", "--name", "n"]
    terms = ["--weights-licence", "CC0-1.0", "--data-licence", "CC0-1.0", "--attribution", "nobody"]
    settings = _settings_of(make_parser().parse_args([*least, *terms, *given]), usual_batch_size=2)
    assert settings.precision == (given[1] if given else "float32")
    assert settings.batch_size == 2


def test_command_line_refuses_another_precision(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        make_parser().parse_args(["build", "--precision", "bfloat16"])
    assert "invalid choice: 'bfloat16'" in capsys.readouterr().err
