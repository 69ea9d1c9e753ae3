"""The fused engine's path for GPUs, whole, on a device that is this processor: buffers, launches, chunks and results.

Nothing here touches a GPU: tests/export/test_gpu_device.py does where there is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from labelmint.bundle import Bundle, open_bundle
from labelmint.scores import image_score
from labelmint_service.engine import EngineBatch, EngineChoice, load_engine
from labelmint_service.engine.fused.bundles import LabelFrame, read_weights
from labelmint_service.errors import EngineStartError
from labelmint_service.models.latents import latents_at
from labelmint_service.models.served import ServedModel, serve_bundle
from tests.export.built_bundle import BuiltBundle, Feeds, engine_inputs

pytest.importorskip("triton", reason="triton is installed on Linux only")

from labelmint_service.engine.fused.gpu.device import DeviceArray
from labelmint_service.engine.fused.gpu.engine import CHUNKS, GpuEngine
from labelmint_service.engine.fused.gpu.proof import check_labels
from tests.service.calls import EVERY_FIELD, TIMEOUT_S, Collected, collect, make_request
from tests.service.interpreted_device import InterpretedDevice
from tests.service.reading import read_metrics
from tests.serving import serving

OUTPUTS = ("image", "label", "uncertainty_map", "keypoints", "finite", "scores")
Arrays = dict[str, np.ndarray[Any, Any]]

_engines: dict[str, GpuEngine] = {}
_painted: dict[str, Arrays] = {}
plain_or_both = pytest.mark.parametrize(
    "built", ["plain_built", pytest.param("unusual_built", marks=pytest.mark.interpreted)], indirect=True
)
"""The first bundle shows the behaviour; the second shows it for the other forms of the kernels, and takes long."""


@pytest.fixture
def engine(built: BuiltBundle) -> GpuEngine:
    """In float32, so that it can be compared closely; starting one takes seconds in Triton's interpreter."""
    key = str(built.path)
    if key not in _engines:
        _engines[key] = GpuEngine(open_small(built), InterpretedDevice(np.float32))
    return _engines[key]


def open_small(built: BuiltBundle) -> Bundle:
    """A bundle whose profile has two rows: the interpreter takes seconds a row, also one that nobody asked for."""
    bundle = open_bundle(built.path)
    bundle.manifest.runtime.batch_size = 2
    return bundle


def run(engine: GpuEngine, feeds: Feeds, rows: list[int]) -> Arrays:
    return arrays_of(engine.run(engine_inputs(feeds, rows)))


def three_rows(built: BuiltBundle) -> Feeds:
    return built.feeds(seed=31, indices=range(3), psi=0.9)


@pytest.fixture
def painted(built: BuiltBundle, engine: GpuEngine) -> Arrays:
    """What the engine gives for `three_rows`: two chunks, the second not full."""
    assert engine.batch_size // CHUNKS == 2
    key = str(built.path)
    if key not in _painted:
        _painted[key] = run(engine, three_rows(built), [0, 1, 2])
    return _painted[key]


def arrays_of(batch: EngineBatch) -> Arrays:
    return {name: getattr(batch, name) for name in OUTPUTS}


def assert_same_bits(got: Arrays, expected: Arrays) -> None:
    for name in OUTPUTS:
        assert got[name].dtype == expected[name].dtype, name
        assert got[name].tobytes() == expected[name].tobytes(), name


@plain_or_both
def test_whole_path_gives_what_the_definitions_say(built: BuiltBundle, painted: Arrays) -> None:
    got, expected = painted, built.plain_outputs(three_rows(built))
    assert np.abs(got["image"].astype(int) - expected["image"]).max() <= 1
    assert (got["label"] == expected["label"]).mean() >= 0.9995
    assert np.abs(got["uncertainty_map"].astype(float) - expected["uncertainty_map"]).max() < 1e-3
    np.testing.assert_allclose(got["keypoints"][..., 2], expected["keypoints"][..., 2], atol=1e-4)
    same = np.abs(got["keypoints"][..., :2] - expected["keypoints"][..., :2]).max(axis=2) < 1e-2
    assert same.mean() >= 0.8
    assert np.array_equal(got["keypoints"][..., 3][same], expected["keypoints"][..., 3][same])
    assert got["finite"].all()
    assert got["scores"].tobytes() == image_score(got["uncertainty_map"]).tobytes()


@plain_or_both
def test_gpu_path_and_the_kernel_of_the_processor_agree(built: BuiltBundle, painted: Arrays) -> None:
    other = load_engine(open_bundle(built.path), EngineChoice(engine="fused", kernel="avx2"))
    got, expected = painted, other.run(engine_inputs(three_rows(built), [0, 1, 2]))
    assert got["image"].tobytes() == expected.image.tobytes()
    assert (got["label"] == expected.label).mean() >= 0.9995
    assert np.abs(got["uncertainty_map"].astype(float) - expected.uncertainty_map).max() < 1e-3


@plain_or_both
def test_row_has_the_same_bits_in_every_chunk_and_place_beside_every_neighbour(
    built: BuiltBundle, engine: GpuEngine
) -> None:
    """A chunk whose results the next one overwrote, or that were copied too early, would show here."""
    feeds = built.feeds(seed=33, indices=range(2), psi=1.0)
    feeds["truncation_psi"][0] = 0.4
    alone = [run(engine, feeds, [row]) for row in range(2)]
    rows = [1, 0, 0, 1, 1]  # three chunks: the first slot is used again
    got = run(engine, feeds, rows)
    for place, row in enumerate(rows):
        assert_same_bits({name: array[place : place + 1] for name, array in got.items()}, alone[row])
    feeds["z"][1] = np.nan
    poisoned = run(engine, feeds, [1, 0])
    assert poisoned["finite"].tolist() == [False, True]
    assert_same_bits({name: array[1:2] for name, array in poisoned.items()}, alone[0])


@plain_or_both
def test_explicit_styles_give_what_latents_give(built: BuiltBundle, engine: GpuEngine, painted: Arrays) -> None:
    styled = arrays_of(engine.run_styles(built.run("mapping", three_rows(built))["ws"][:2]))
    assert np.abs(styled["image"].astype(int) - painted["image"][:2].astype(int)).max() <= 1
    assert (styled["label"] == painted["label"][:2]).mean() > 0.999


@dataclass(frozen=True, slots=True, kw_only=True)
class Streamed:
    """What was seen of an engine that a server ran, and then closed."""

    device: InterpretedDevice
    model: ServedModel
    stages: frozenset[str]
    device_bytes: int
    metrics: dict[tuple[str, ...], float]
    expected: EngineBatch
    got: Collected


@pytest.fixture(scope="module")
def streamed(plain_built: BuiltBundle) -> Streamed:
    """A stream over gRPC, from the engine's own thread; starting, running and closing an engine takes long here."""
    device, bundle = InterpretedDevice(), open_small(plain_built)
    engine = GpuEngine(bundle, device)
    model = serve_bundle(bundle, engine)
    stages = frozenset(engine.stages_ns)
    count = bundle.manifest.runtime.batch_size + 1
    expected = engine.run(latents_at(plain_built.manifest, 35, np.arange(count, dtype=np.uint64)))
    with serving([model]) as running:
        request = make_request(seed=35, max_accepted=count, output={"fields": EVERY_FIELD})
        got = collect(running.stub().Generate(request, timeout=10 * TIMEOUT_S))
        device_bytes, metrics = device.allocated_bytes(), read_metrics(running)
    return Streamed(
        device=device,
        model=model,
        stages=stages,
        device_bytes=device_bytes,
        metrics=metrics,
        expected=expected,
        got=got,
    )


def test_served_model_names_what_its_bits_depend_on(plain_built: BuiltBundle, streamed: Streamed) -> None:
    w_avg = plain_built.generator.mapping.w_avg.numpy()
    np.testing.assert_allclose(streamed.model.average_style, w_avg, rtol=1e-5, atol=1e-6)
    for part in ('"kernel":"gpu-', '"device":{"name":"interpreted"}', '"kernel_sha256"', "-sm90.cubin"):
        assert part in streamed.model.numerics.document
    assert streamed.stages == {"mapping", "synthesis", "interpreter", "copy"}


def test_server_tells_the_memory_of_the_device(streamed: Streamed) -> None:
    model, used, total = streamed.model.name, streamed.device_bytes, streamed.device.total_bytes()
    assert streamed.metrics["labelmint_device_memory_bytes", "used", model] == used > 0
    assert streamed.metrics["labelmint_device_memory_bytes", "total", model] == total


def test_server_streams_what_the_engine_gives(streamed: Streamed) -> None:
    got, expected = streamed.got, streamed.expected
    assert got.indices == list(range(len(expected.image)))
    assert got.arrays["image_raw"].tobytes() == expected.image.tobytes()
    assert got.arrays["mask_raw"].tobytes() == expected.label.tobytes()
    assert got.arrays["uncertainty_map"].tobytes() == expected.uncertainty_map.tobytes()
    assert got.arrays["uncertainty"].tobytes() == image_score(expected.uncertainty_map).tobytes()


def test_engine_that_the_server_closed_has_freed_its_device(streamed: Streamed) -> None:
    assert streamed.device.is_closed
    assert streamed.device.allocated_bytes() == 0


@pytest.mark.parametrize("count", [0, 1])
def test_wrong_number_of_rows_is_refused(plain_built: BuiltBundle, count: int) -> None:
    engine = _engines.get(str(plain_built.path)) or GpuEngine(open_small(plain_built), InterpretedDevice())
    backbone, rows = plain_built.manifest.backbone, count * (engine.batch_size + 1)
    with pytest.raises(ValueError, match=rf"expected float32 \[1\.\.{engine.batch_size}"):
        engine.run_styles(np.zeros((rows, backbone.num_ws, backbone.w_dim), np.float32))


def test_device_that_labels_otherwise_does_not_start(plain_built: BuiltBundle) -> None:
    bundle, device = open_bundle(plain_built.path), InterpretedDevice()
    weights = read_weights(bundle)
    frame = LabelFrame(bundle.manifest, weights.size)
    taps = {}
    for r, table in weights.levels.items():
        shape = (2, table.shape[1], r, r)
        content = np.random.default_rng(r).standard_normal(shape).astype(np.float32)
        address = device.allocate(content.nbytes)
        device.copy_in(content.reshape(-1).view(np.uint8), address)
        taps[f"tap_r{r}"] = DeviceArray(address=address, shape=shape, dtype=np.dtype(np.float32))
    with pytest.raises(EngineStartError, match=r"of the labels that the processor gives in float32, expected 99\.5%"):
        check_labels(weights, frame, taps, np.zeros((frame.height, frame.width), np.uint8), device)
