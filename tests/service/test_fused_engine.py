"""The fused engine on a processor: it runs bundles whose parts fit each other, or it does not start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labelmint.bundle import Bundle, open_bundle
from labelmint.v1 import bundle_pb2
from labelmint_service.engine.fused.bundles import read_weights
from labelmint_service.engine.fused.engine import FusedEngine
from labelmint_service.engine.fused.kernel import LEAST_AGREEMENT, InterpreterKernel
from labelmint_service.engine.fused.native import Variant
from labelmint_service.engine.graph_runs import trial_latents
from labelmint_service.errors import EngineMemoryError, EngineRunError, EngineStartError
from labelmint_service.settings import EMBEDDED_BUNDLE


@pytest.fixture
def bundle() -> Bundle:
    """The embedded one, whose manifest a test may change in memory."""
    return open_bundle(EMBEDDED_BUNDLE, verify_files=False)


def _wider_labels(manifest: bundle_pb2.Manifest) -> None:
    manifest.frame.label_width *= 2


def _labels_of_a_part(manifest: bundle_pb2.Manifest) -> None:
    manifest.frame.label_width //= 2


def _labels_between_pixels(manifest: bundle_pb2.Manifest) -> None:
    manifest.frame.image_height -= 1
    manifest.frame.label_height -= 2


def _fewer_classes(manifest: bundle_pb2.Manifest) -> None:
    del manifest.classes[-1]


def _one_keypoint(manifest: bundle_pb2.Manifest) -> None:
    del manifest.keypoints.names[1:]


def _no_keypoints(manifest: bundle_pb2.Manifest) -> None:
    manifest.ClearField("keypoints")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_wider_labels, "is not that of the picture"),
        (_labels_of_a_part, "is not that of the picture"),
        (_labels_between_pixels, "is not that of the picture"),
        (_fewer_classes, r"the members have \[9, \d+\] outputs, expected \[8, \d+\]"),
        (_one_keypoint, r"the members have \[9, \d+\] outputs, expected \[9, 1\]"),
        (_no_keypoints, r"the members have \[9, \d+\] outputs, expected \[9\]"),
    ],
)
def test_tables_that_contradict_the_manifest_are_refused(
    bundle: Bundle, change: Callable[[bundle_pb2.Manifest], None], message: str
) -> None:
    change(bundle.manifest)
    with pytest.raises(EngineStartError, match=f"interpreter_tables of bundle .* do not fit its manifest .*{message}"):
        read_weights(bundle)


def test_synthesis_that_is_none_stops_the_start(bundle: Bundle) -> None:
    bundle.manifest.graphs.synthesis = bundle.manifest.graphs.mapping
    with pytest.raises(EngineStartError, match=r"has the inputs .*, expected .*'ws'"):
        FusedEngine(bundle)


def test_picture_of_another_size_than_the_manifest_states_is_refused(bundle: Bundle) -> None:
    frame, rows = bundle.manifest.frame, bundle.manifest.runtime.batch_size
    frame.image_height //= 2
    frame.label_height //= 2
    engine = FusedEngine(bundle, kernel="avx2")
    with pytest.raises(
        EngineRunError, match=rf"image has shape \[{rows}, 128, 128, 3\], expected \[{rows}, 64, 128, 3\]"
    ):
        engine.run(trial_latents(bundle.manifest, 1))
    engine.close()


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> dict[InterpreterKernel, bool]:
    """Whether each kernel that an engine makes is open, where a form in bfloat16 may be chosen; it must not run."""
    is_open: dict[InterpreterKernel, bool] = {}

    class WatchedKernel(InterpreterKernel):
        def __init__(self, *arguments: Any) -> None:  # Any: passed on
            super().__init__(*arguments)
            is_open[self] = True

        def close(self) -> None:
            super().close()
            is_open[self] = False

    monkeypatch.setattr("labelmint_service.engine.fused.engine.InterpreterKernel", WatchedKernel)
    fast = Variant(name="avx2", bfloat16=True)
    monkeypatch.setattr("labelmint_service.engine.fused.engine.variants", lambda: (fast,))
    return is_open


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (EngineRunError("it failed"), EngineStartError, "the first run of bundle .* failed: it failed; run "),
        (EngineMemoryError("no memory"), EngineStartError, "the first run of bundle .* failed: no memory; run "),
        (MemoryError("beside the graph"), MemoryError, "beside the graph"),
    ],
)
def test_trial_of_kernels_that_fails_stops_the_start_and_closes_them(
    bundle: Bundle,
    kernels: dict[InterpreterKernel, bool],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    expected: type[Exception],
    message: str,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("labelmint_service.engine.fused.engine.run_graph", fail)
    with pytest.raises(expected, match=message):
        FusedEngine(bundle)
    assert list(kernels.values()) == [False, False]


@pytest.mark.parametrize("is_fast", [False, True])
def test_trial_of_kernels_closes_the_one_that_is_not_taken(
    bundle: Bundle, kernels: dict[InterpreterKernel, bool], monkeypatch: pytest.MonkeyPatch, *, is_fast: bool
) -> None:
    monkeypatch.setattr(FusedEngine, "_agreement", lambda *_: LEAST_AGREEMENT if is_fast else LEAST_AGREEMENT - 0.001)
    engine = FusedEngine(bundle)
    during = list(kernels.values())
    engine.close()

    assert during == [not is_fast, is_fast]
    assert list(kernels.values()) == [False, False]


def test_numerics_name_the_kernel_that_runs_though_its_file_was_replaced(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FusedEngine(bundle, kernel="avx2")
    before = engine.describe()["kernel_sha256"]
    monkeypatch.setattr(Path, "read_bytes", lambda _: b"of the next release")
    assert engine.describe()["kernel_sha256"] == before
    engine.close()
