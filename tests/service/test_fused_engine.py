"""The fused engine on a processor: it runs bundles whose parts fit each other, or it does not start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from labelmint.bundle import Bundle, open_bundle
from labelmint.v1 import bundle_pb2
from labelmint_service.engine.fused.bundles import read_weights
from labelmint_service.engine.fused.engine import FusedEngine
from labelmint_service.engine.graph_runs import trial_latents
from labelmint_service.errors import EngineRunError, EngineStartError
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


def test_numerics_name_the_kernel_that_runs_though_its_file_was_replaced(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FusedEngine(bundle, kernel="avx2")
    before = engine.describe()["kernel_sha256"]
    monkeypatch.setattr(Path, "read_bytes", lambda _: b"of the next release")
    assert engine.describe()["kernel_sha256"] == before
    engine.close()
