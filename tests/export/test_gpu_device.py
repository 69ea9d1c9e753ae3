"""On a GPU: the binaries against float64 on fresh random inputs, and the engine through onnxruntime's CUDA provider.

The inputs differ from run to run; a failure prints their seed. tests/service/test_gpu_kernel.py and
tests/export/test_gpu_engine.py are the same on a processor.
"""

from __future__ import annotations

import secrets

import numpy as np
import onnxruntime
import pytest
import torch

from labelmint.addresses import latents
from labelmint.bundle import open_bundle
from labelmint.graphs import VOTE_RULES
from labelmint.scores import NUM_BINS, image_score
from labelmint_service.engine import EngineChoice, LatentInputs, load_engine
from labelmint_service.engine.fused.gpu.binaries import read_archive
from labelmint_service.engine.fused.gpu.device import download
from labelmint_service.engine.fused.gpu.driver import CudaDevice
from labelmint_service.engine.fused.gpu.interpreter import GpuInterpreter
from labelmint_service.engine.fused.gpu.plan import make_plan
from labelmint_service.engine.fused.peaks import refine_peaks
from labelmint_service.engine.loading import ALGORITHMS
from labelmint_service.settings import EMBEDDED_BUNDLE
from tests.export.plain_interpreter import plain_labels
from tests.export.test_fused_interpreter import LAYOUTS
from tests.export.tiny_parts import make_interpreter, make_taps
from tests.service.test_fused_kernel import frame_of, stacks_of, weights_of
from tests.service.test_gpu_driver import needs_gpu

pytestmark = [pytest.mark.gpu, needs_gpu]


@pytest.fixture
def seed() -> int:
    chosen = secrets.randbelow(2**31)
    print(f"seed {chosen}")
    return chosen


@pytest.mark.parametrize("rule", VOTE_RULES)
@pytest.mark.parametrize("taps", ["float32", "float16"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_binaries_are_near_the_plain_algorithm(layout: str, taps: str, rule: str, seed: int) -> None:
    taps_of, side = LAYOUTS[layout]
    interpreter, given = make_interpreter(taps_of, side), make_taps(taps_of, 3, seed=seed)
    expected = plain_labels(interpreter.double(), given, rule)
    weights, stacks = weights_of(interpreter.float(), rule), stacks_of(given, interpreter)
    device = CudaDevice()
    try:
        plan = make_plan(weights, 3, frame_of(side), tap_dtype=taps)
        kernels = GpuInterpreter(device, plan, read_archive(), num_slots=1)
        for r, stack in stacks.items():
            device.copy_in(stack.astype(taps).reshape(-1).view(np.uint8), kernels.inputs[f"tap_r{r}"].address)
        kernels.run(slot=0)
        got = {name: download(device, array) for name, array in kernels.results(0).items()}
    finally:
        device.close()
    # Random members are torn at every pixel, so rounding flips more votes here than in a trained ensemble.
    assert float((torch.from_numpy(got["label_frame"]) == expected.label).double().mean()) >= 0.97
    assert np.abs(got["map_frame"] - expected.uncertainty_map.numpy()).mean() < 4e-3
    peaks = refine_peaks(got["places"], got["values"][..., :5], side, side)
    np.testing.assert_allclose(peaks[..., 2], expected.keypoints[..., 2].numpy(), rtol=0, atol=2e-2)
    assert not got["counts"][:, NUM_BINS].any()


needs_cuda_provider = pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(), reason="this onnxruntime has no CUDA"
)


@needs_cuda_provider
@pytest.mark.parametrize("algorithms", ALGORITHMS)
def test_engine_gives_what_the_graphs_give_on_the_processor(algorithms: str, seed: int) -> None:
    bundle = open_bundle(EMBEDDED_BUNDLE)
    choice = EngineChoice(engine="fused", provider="cuda", algorithms=algorithms)
    engine, graphs = load_engine(bundle, choice), load_engine(bundle)
    count = engine.batch_size
    inputs = latent_inputs(seed, count, bundle.manifest.backbone.z_dim)
    got = engine.run(inputs)
    assert got.finite.all()
    for first in range(0, count, graphs.batch_size):
        rows = slice(first, first + graphs.batch_size)
        expected = graphs.run(inputs.rows(rows.start, rows.stop))
        assert (np.abs(got.image[rows].astype(int) - expected.image) <= 1).mean() > 0.9999
        assert (got.label[rows] == expected.label).mean() >= 0.995
        assert np.abs(got.uncertainty_map[rows].astype(float) - expected.uncertainty_map).mean() < 1e-3
    assert got.scores is not None
    assert got.scores.tobytes() == image_score(got.uncertainty_map).tobytes()
    engine.close()


@needs_cuda_provider
def test_repeatable_engine_gives_the_same_bits_in_any_order_and_beside_any_rows(seed: int) -> None:
    bundle = open_bundle(EMBEDDED_BUNDLE)
    engine = load_engine(bundle, EngineChoice(engine="fused", provider="cuda"))
    inputs = latent_inputs(seed, engine.batch_size, bundle.manifest.backbone.z_dim)
    digests = engine.run(inputs).digests()
    assert engine.run(inputs).digests() == digests
    assert engine.run(inputs.reversed_rows()).digests()[::-1] == digests
    assert engine.run(inputs.rows(0, 1)).digests() == digests[:1]
    engine.close()


def latent_inputs(seed: int, count: int, z_dim: int) -> LatentInputs:
    z = latents(seed, np.arange(count, dtype=np.uint64), z_dim)
    return LatentInputs(z=z, truncation_psi=np.ones(count, np.float32))
