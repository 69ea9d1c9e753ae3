"""The service's own engines on a bundle that the export side built: equal bits, whatever stands beside a sample."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from labelmint.bundle import open_bundle, write_manifest
from labelmint.errors import IntegrityError
from labelmint.v1 import bundle_pb2
from labelmint_service.engine import Engine, EngineBatch, EngineChoice, load_engine
from labelmint_service.engine.fused.native import find_variant, variants
from labelmint_service.engine.loading import ENGINES
from labelmint_service.errors import EngineStartError
from labelmint_service.models.numerics import describe_numerics
from labelmint_service.models.served import load_model
from tests.export.built_bundle import Arrays, BuiltBundle, Feeds, engine_inputs

OUTPUTS = ("image", "label", "uncertainty_map", "keypoints", "finite")


def run_engine(engine: Engine, feeds: Feeds, rows: list[int]) -> Arrays:
    return arrays_of(engine.run(engine_inputs(feeds, rows)))


def arrays_of(batch: EngineBatch) -> dict[str, np.ndarray[Any, Any]]:
    assert batch.keypoints is not None
    return {name: getattr(batch, name) for name in OUTPUTS}


def assert_same_bits(got: Arrays, expected: Arrays) -> None:
    for name in OUTPUTS:
        assert got[name].dtype == expected[name].dtype, name
        assert got[name].tobytes() == expected[name].tobytes(), name


def test_engine_gives_the_bits_of_raw_onnxruntime(built: BuiltBundle) -> None:
    engine = load_model(built.path).engine
    batch = built.manifest.runtime.batch_size
    feeds = built.feeds(seed=21, indices=range(batch), psi=0.9)
    assert_same_bits(run_engine(engine, feeds, list(range(batch))), built.run("model", feeds))


@pytest.mark.parametrize("name", ENGINES)
def test_sample_has_the_same_bits_in_every_row_and_beside_every_neighbour(built: BuiltBundle, name: str) -> None:
    """If this fails, a stream depends on how its samples are batched, and addresses mean nothing."""
    engine = load_engine(open_bundle(built.path), EngineChoice(engine=name))
    batch = built.manifest.runtime.batch_size
    feeds = built.feeds(seed=22, indices=range(12), psi=1.0)
    feeds["truncation_psi"][::3] = 0.4
    alone = [run_engine(engine, feeds, [row]) for row in range(12)]
    random = np.random.default_rng(0)
    for _ in range(25):
        rows = random.integers(0, 12, random.integers(1, batch + 1)).tolist()
        got = run_engine(engine, feeds, rows)
        for place, row in enumerate(rows):
            assert_same_bits({name: array[place : place + 1] for name, array in got.items()}, alone[row])


@pytest.mark.parametrize("name", ENGINES)
def test_non_finite_neighbour_does_not_change_a_sample(built: BuiltBundle, name: str) -> None:
    engine = load_engine(open_bundle(built.path), EngineChoice(engine=name))
    feeds = built.feeds(seed=23, indices=range(3), psi=1.0)
    alone = run_engine(engine, feeds, [1])
    feeds["z"][[0, 2]] = np.nan
    got = run_engine(engine, feeds, [0, 1, 2])
    assert got["finite"].tolist() == [False, True, False]
    assert_same_bits({name: array[1:2] for name, array in got.items()}, alone)


@pytest.mark.parametrize("name", ENGINES)
def test_two_engines_agree_bit_for_bit(built: BuiltBundle, name: str) -> None:
    feeds = built.feeds(seed=24, indices=range(3), psi=0.5)
    bundle, choice = open_bundle(built.path), EngineChoice(engine=name)
    first, second = (run_engine(load_engine(bundle, choice), feeds, [0, 1, 2]) for _ in range(2))
    assert_same_bits(first, second)


@pytest.mark.parametrize("kernel", ["auto", *(variant.name for variant in variants())])
def test_fused_engine_gives_what_the_definitions_say(built: BuiltBundle, kernel: str) -> None:
    engine = load_engine(open_bundle(built.path), EngineChoice(engine="fused", kernel=kernel))
    feeds = built.feeds(seed=27, indices=range(3), psi=0.9)
    got, expected = run_engine(engine, feeds, [0, 1, 2]), built.plain_outputs(feeds)
    rounded = find_variant(str(engine.describe()["kernel"])).bfloat16
    assert np.abs(got["image"].astype(int) - expected["image"]).max() <= 1
    assert (got["label"] == expected["label"]).mean() >= (0.95 if rounded else 0.9995)
    error = np.abs(got["uncertainty_map"].astype(float) - expected["uncertainty_map"])
    assert error.max() < (0.2 if rounded else 1e-3)
    np.testing.assert_allclose(got["keypoints"][..., 2], expected["keypoints"][..., 2], atol=0.05 if rounded else 1e-4)
    assert got["finite"].all()
    if not rounded:  # the places too, where one value is the largest
        same = np.abs(got["keypoints"][..., :2] - expected["keypoints"][..., :2]).max(axis=2) < 1e-2
        assert same.mean() >= 0.8
        assert np.array_equal(got["keypoints"][..., 3][same], expected["keypoints"][..., 3][same])


def test_numerics_of_the_fused_engine_name_its_kernel(built: BuiltBundle) -> None:
    bundle = open_bundle(built.path)
    ids = {describe_numerics(bundle, load_engine(bundle)).id}
    for variant in variants():
        numerics = describe_numerics(bundle, load_engine(bundle, EngineChoice(engine="fused", kernel=variant.name)))
        assert f'"kernel":"{variant.name}"' in numerics.document
        ids.add(numerics.id)
    assert len(ids) == 1 + len(variants())


def test_bundle_without_tables_runs_as_graphs_alone(plain_built: BuiltBundle, tmp_path: Path) -> None:
    shutil.copytree(plain_built.path, tmp_path / "old")
    manifest = bundle_pb2.Manifest()
    manifest.CopyFrom(plain_built.manifest)
    del manifest.interpreter_tables[:]
    bundle = write_manifest(tmp_path / "old", manifest)
    with pytest.raises(EngineStartError, match=r"has no interpreter_tables.*choose engine 'onnxruntime'"):
        load_engine(bundle, EngineChoice(engine="fused"))
    load_engine(bundle)


def test_fused_engine_on_a_gpu_does_not_fall_back_to_the_processor(plain_built: BuiltBundle) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(EngineStartError, match="provider 'cuda' needs CUDAExecutionProvider"):
        load_engine(open_bundle(plain_built.path), EngineChoice(engine="fused", provider="cuda"))


@pytest.mark.parametrize(
    ("provider", "kernel", "message"),
    [("cuda", "avx2", "kernel is 'avx2', a form for processors"), ("npu", "auto", "provider is 'npu', expected cpu")],
)
def test_fused_engine_says_what_does_not_fit(
    plain_built: BuiltBundle, provider: str, kernel: str, message: str
) -> None:
    with pytest.raises(EngineStartError, match=message):
        load_engine(open_bundle(plain_built.path), EngineChoice(engine="fused", provider=provider, kernel=kernel))


@pytest.mark.parametrize("name", ENGINES)
def test_explicit_styles_give_what_latents_give(built: BuiltBundle, name: str) -> None:
    engine = load_engine(open_bundle(built.path), EngineChoice(engine=name))
    feeds = built.feeds(seed=25, indices=range(3), psi=0.7)
    styled = arrays_of(engine.run_styles(built.run("mapping", feeds)["ws"]))
    direct = run_engine(engine, feeds, [0, 1, 2])
    assert np.abs(styled["image"].astype(int) - direct["image"].astype(int)).max() <= 1
    assert (styled["label"] == direct["label"]).mean() > 0.999
    assert styled["finite"].all()


def test_average_style_is_that_of_the_generator(built: BuiltBundle) -> None:
    average = load_model(built.path).average_style
    np.testing.assert_allclose(average, built.generator.mapping.w_avg.numpy(), rtol=1e-5, atol=1e-6)


def test_copied_bundle_serves_the_same_bits_under_another_path(plain_built: BuiltBundle, tmp_path: Path) -> None:
    shutil.copytree(plain_built.path, tmp_path / "elsewhere")
    feeds = plain_built.feeds(seed=26, indices=range(4), psi=1.0)
    first = run_engine(load_model(plain_built.path).engine, feeds, [0, 1, 2, 3])
    second = run_engine(load_model(tmp_path / "elsewhere").engine, feeds, [0, 1, 2, 3])
    assert_same_bits(first, second)


@pytest.mark.parametrize("name", ["weights.bin", "model.onnx"])
def test_service_refuses_an_altered_bundle(plain_built: BuiltBundle, tmp_path: Path, name: str) -> None:
    shutil.copytree(plain_built.path, tmp_path / "altered")
    content = bytearray((tmp_path / "altered" / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "altered" / name).write_bytes(content)
    with pytest.raises(IntegrityError, match=name.replace(".", r"\.")):
        load_model(tmp_path / "altered")
