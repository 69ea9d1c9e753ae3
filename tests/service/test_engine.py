"""The onnxruntime engine: it runs what the manifest says, where it was asked to, or it does not start."""

import itertools
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest

from labelmint.addresses import latents
from labelmint.bundle import open_bundle, write_manifest
from labelmint.errors import IntegrityError
from labelmint.v1 import bundle_pb2
from labelmint_service.engine import Engine, EngineChoice, LatentInputs, load_engine
from labelmint_service.engine.sessions import find_provider
from labelmint_service.errors import EngineStartError, StartError
from labelmint_service.models.catalog import ModelCatalog
from labelmint_service.models.numerics import describe_numerics
from labelmint_service.models.served import load_model, serve_bundle


@pytest.fixture
def engine(bundles: dict[str, Path]) -> Engine:
    return load_engine(open_bundle(bundles["tiny"]))


def make_z(count: int, seed: int = 3) -> npt.NDArray[np.float32]:
    return latents(seed, np.arange(count, dtype=np.uint64), 8)


def run(engine: Engine, z: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.generic]]:
    batch = engine.run(LatentInputs(z=z, truncation_psi=np.full(len(z), 0.7, dtype=np.float32)))
    assert batch.keypoints is not None
    return {
        "image": batch.image,
        "label": batch.label,
        "uncertainty_map": batch.uncertainty_map,
        "keypoints": batch.keypoints,
        "finite": batch.finite,
    }


def altered_copy(bundle: Path, target: Path, change: Callable[[Path, bundle_pb2.Manifest], None]) -> Path:
    """A copy of a bundle with a change, hashed anew, so that only the engine can object."""
    shutil.copytree(bundle, target)
    manifest = bundle_pb2.Manifest()
    manifest.CopyFrom(open_bundle(target).manifest)
    change(target, manifest)
    write_manifest(target, manifest)
    return target


def test_a_row_is_the_same_in_every_place_beside_every_neighbour_in_every_fill(engine: Engine) -> None:
    row, others = make_z(1), make_z(4, seed=9)
    expected = run(engine, row)
    for place, fill in itertools.product(range(4), range(1, 5)):
        if place >= fill:
            continue
        z = others[:fill].copy()
        z[place] = row[0]
        got = run(engine, z)
        for name, array in expected.items():
            assert got[name][place].tobytes() == array[0].tobytes(), (name, place, fill)


def test_a_non_finite_row_leaves_its_neighbours_as_they_are(bundles: dict[str, Path]) -> None:
    engine = load_engine(open_bundle(bundles["poisoned"]))
    z = make_z(4)
    z[:, 0] = [0.0, 5.0, 0.5, -1.0]
    got, alone = run(engine, z), run(engine, z[[0]])

    assert got["finite"].tolist() == [True, False, True, True]
    assert got["image"][0].tobytes() == alone["image"][0].tobytes()


def test_styles_give_what_latents_give(engine: Engine, bundles: dict[str, Path]) -> None:
    mapping = onnxruntime.InferenceSession(bundles["tiny"] / "mapping.onnx", providers=["CPUExecutionProvider"])
    z = make_z(3)
    ws = mapping.run(["ws"], {"z": z, "truncation_psi": np.full(3, 0.7, dtype=np.float32)})[0]
    by_style = engine.run_styles(ws)
    by_latent = run(engine, z)

    assert by_style.finite.all()
    assert np.abs(by_style.image.astype(int) - by_latent["image"].astype(int)).max() <= 1
    assert by_style.image.shape == (3, 16, 16, 3)


def test_average_style_is_where_psi_zero_leads(engine: Engine, bundles: dict[str, Path]) -> None:
    average = engine.average_style()
    truncated = engine.run(LatentInputs(z=make_z(4), truncation_psi=np.zeros(4, dtype=np.float32)))
    styled = engine.run_styles(np.tile(average, (1, 4, 1)))

    assert average.shape == (8,)
    assert np.abs(truncated.image.astype(int) - styled.image.astype(int)).max() <= 1


@pytest.mark.parametrize("count", [0, 5])
def test_wrong_number_of_rows_is_refused(engine: Engine, count: int) -> None:
    with pytest.raises(ValueError, match=re.escape("expected float32 [1..4, 8]")):
        engine.run(LatentInputs(z=make_z(count), truncation_psi=np.ones(count, dtype=np.float32)))


def test_provider_that_is_not_installed_stops_the_start(bundles: dict[str, Path]) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(EngineStartError, match=r"CUDAExecutionProvider, but onnxruntime .* has .*CPUExecutionProvider"):
        load_engine(open_bundle(bundles["tiny"]), EngineChoice(provider="cuda"))


@pytest.mark.parametrize(("algorithms", "search"), [("repeatable", "DEFAULT"), ("fast", "HEURISTIC")])
def test_algorithms_are_those_that_were_asked_for(
    monkeypatch: pytest.MonkeyPatch, algorithms: str, search: str
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    options = find_provider("cuda", algorithms=algorithms).options
    assert dict(options) == {"use_tf32": "0", "cudnn_conv_algo_search": search}
    assert find_provider("cuda", 1).place == {"device_id": "1"}


def test_unknown_algorithms_stop_the_start(bundles: dict[str, Path]) -> None:
    with pytest.raises(EngineStartError, match="algorithms is 'magic', expected one of repeatable, fast"):
        load_engine(open_bundle(bundles["tiny"]), EngineChoice(algorithms="magic"))


def test_engine_that_is_not_installed_names_the_extra(
    bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnxruntime_engine", "sessions"):
        monkeypatch.delitem(sys.modules, f"labelmint_service.engine.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineStartError, match=r"pip install 'labelmint\[service,cpu\]'"):
        load_engine(open_bundle(bundles["tiny"]))


@pytest.mark.parametrize(("engine_name", "provider"), [("magic", "cpu"), ("onnxruntime", "npu")])
def test_unknown_engine_or_provider_stops_the_start(
    bundles: dict[str, Path],
    engine_name: str,
    provider: str,
) -> None:
    with pytest.raises(EngineStartError, match="expected"):
        load_engine(open_bundle(bundles["tiny"]), EngineChoice(engine=engine_name, provider=provider))


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname", "sub/../../weights.bin"])
def test_weights_outside_the_bundle_are_refused(bundles: dict[str, Path], tmp_path: Path, location: str) -> None:
    def point_outside(root: Path, _manifest: bundle_pb2.Manifest) -> None:
        shutil.copy(root / "weights.bin", tmp_path / "weights.bin")
        model = onnx.load(root / "model.onnx", load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        (root / "model.onnx").write_bytes(model.SerializeToString())

    bundle = open_bundle(altered_copy(bundles["tiny"], tmp_path / "bundle", point_outside))
    with pytest.raises(EngineStartError, match=r"cannot load 'model\.onnx'"):
        load_engine(bundle)


def test_weights_behind_a_link_are_refused(bundles: dict[str, Path], tmp_path: Path) -> None:
    root = tmp_path / "bundle"
    shutil.copytree(bundles["tiny"], root)
    outside = tmp_path / "weights.bin"
    (root / "weights.bin").rename(outside)
    (root / "weights.bin").symlink_to(outside)
    with pytest.raises(IntegrityError, match="link"):
        load_model(root)


@pytest.mark.parametrize("keep", [0, 100])
def test_truncated_weights_are_refused(bundles: dict[str, Path], tmp_path: Path, keep: int) -> None:
    root = tmp_path / "bundle"
    shutil.copytree(bundles["tiny"], root)
    (root / "weights.bin").write_bytes((root / "weights.bin").read_bytes()[:keep])
    with pytest.raises(IntegrityError, match=r"weights\.bin"):
        load_model(root)


def test_graph_that_is_no_onnx_stops_the_start(bundles: dict[str, Path], tmp_path: Path) -> None:
    def scribble(root: Path, _manifest: bundle_pb2.Manifest) -> None:
        (root / "model.onnx").write_bytes(b"no graph" * 100)

    bundle = open_bundle(altered_copy(bundles["tiny"], tmp_path / "bundle", scribble))
    with pytest.raises(EngineStartError, match="cannot load"):
        load_engine(bundle)


def _wrong_inputs(root: Path, manifest: bundle_pb2.Manifest) -> None:
    manifest.graphs.model = "synthesis.onnx"


def _wrong_outputs(root: Path, manifest: bundle_pb2.Manifest) -> None:
    manifest.graphs.model = "mapping.onnx"


def _wrong_size(root: Path, manifest: bundle_pb2.Manifest) -> None:
    manifest.frame.image_height = manifest.frame.label_height = 8


def _wrong_z_dim(root: Path, manifest: bundle_pb2.Manifest) -> None:
    manifest.backbone.z_dim = 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_wrong_inputs, "has the inputs"),
        (_wrong_outputs, "gives 'image'"),
        (_wrong_size, "first run .* image has shape"),
        (_wrong_z_dim, "first run"),
    ],
)
def test_graph_that_contradicts_the_manifest_stops_the_start(
    bundles: dict[str, Path],
    tmp_path: Path,
    change: Callable[[Path, bundle_pb2.Manifest], None],
    message: str,
) -> None:
    root = altered_copy(bundles["tiny"], tmp_path / "bundle", change)
    with pytest.raises(EngineStartError, match=message):
        load_model(root)


def test_style_graphs_that_do_not_load_keep_the_engine_from_starting(bundles: dict[str, Path], tmp_path: Path) -> None:
    def break_synthesis(root: Path, _manifest: bundle_pb2.Manifest) -> None:
        (root / "synthesis.onnx").write_bytes(b"no graph" * 100)

    root = altered_copy(bundles["tiny"], tmp_path / "bundle", break_synthesis)
    with pytest.raises(EngineStartError, match=r"'synthesis\.onnx'"):
        load_model(root)


def test_style_graph_that_gives_other_types_keeps_the_engine_from_starting(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    def widen_labels(root: Path, _manifest: bundle_pb2.Manifest) -> None:
        model = onnx.load(root / "interpreter.onnx", load_external_data=False)
        node = next(node for node in model.graph.node if "label" in node.output)
        node.output[list(node.output).index("label")] = "narrow"
        model.graph.node.append(onnx.helper.make_node("Cast", ["narrow"], ["label"], to=onnx.TensorProto.INT64))
        output = next(value for value in model.graph.output if value.name == "label")
        output.type.tensor_type.elem_type = onnx.TensorProto.INT64
        (root / "interpreter.onnx").write_bytes(model.SerializeToString())

    root = altered_copy(bundles["tiny"], tmp_path / "bundle", widen_labels)
    with pytest.raises(EngineStartError, match=r"'interpreter\.onnx' gives 'label' as None, expected uint8"):
        load_model(root)


def test_option_that_holds_for_the_whole_process_stops_the_start(bundles: dict[str, Path], tmp_path: Path) -> None:
    def flush_denormals(_root: Path, manifest: bundle_pb2.Manifest) -> None:
        manifest.runtime.onnxruntime.config_entries["session.set_denormal_as_zero"] = "1"

    root = altered_copy(bundles["tiny"], tmp_path / "bundle", flush_denormals)
    with pytest.raises(EngineStartError, match="change the numbers of other models") as caught:
        load_model(root)
    assert caught.value.field == "runtime.onnxruntime.config_entries"


def test_two_bundles_of_one_name_stop_the_start(bundles: dict[str, Path]) -> None:
    models = [load_model(bundles["tiny"]), load_model(bundles["tiny"])]
    with pytest.raises(StartError, match="both have the name 'tiny'"):
        ModelCatalog(models)


def test_numerics_id_is_the_hash_of_what_it_states_and_changes_with_it(
    bundles: dict[str, Path],
    tmp_path: Path,
) -> None:
    bundle = open_bundle(bundles["tiny"])
    first = describe_numerics(bundle, load_engine(bundle))
    again = describe_numerics(bundle, load_engine(bundle))

    def more_threads(_root: Path, manifest: bundle_pb2.Manifest) -> None:
        manifest.runtime.onnxruntime.intra_op_num_threads = 2

    changed = open_bundle(altered_copy(bundles["tiny"], tmp_path / "bundle", more_threads))
    other = serve_bundle(changed, load_engine(changed))

    assert first == again
    assert other.numerics.id != first.id
    for fact in (bundle.digest, "float32", onnxruntime.__version__, "CPUExecutionProvider", '"batch_size":4'):
        assert fact in first.document
