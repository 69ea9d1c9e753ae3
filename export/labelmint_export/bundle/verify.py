"""Verification of a bundle: is it whole, does it run, does it compute what its manifest says?"""

from pathlib import Path

import numpy as np

from labelmint.bundle import open_bundle
from labelmint.graphs import GRAPHS
from labelmint.scores import image_score
from labelmint.v1 import bundle_pb2
from labelmint_export.bundle.parity import failed_checks, measure_parity
from labelmint_export.bundle.quantiles import calibrated_psis, make_feeds
from labelmint_export.bundle.runtime import GraphRunner
from labelmint_export.errors import BuildError
from labelmint_export.generator import Backbone
from labelmint_export.interpreter.ensemble import Interpreter
from labelmint_export.reserved_seeds import BUNDLE_SEED

HALF_DIFFERENCES = {"image": 1.0, "uncertainty_map": 0.02, "keypoints": 0.5}
"""What counts as agreement of graphs in half precision, in levels, nats and pixels: taps between two graphs are
rounded, inside one they may not be."""


def verify_bundle(
    path: Path, parts: tuple[Backbone, Interpreter] | None = None, num_samples: int = 8
) -> list[tuple[str, str]]:
    """Check a bundle.

    Args:
        path: The folder.
        parts: Generator and interpreter that it was built from; with them parity is measured anew.
        num_samples: Samples that are run.

    Returns:
        What was checked and what was seen, in order.

    Raises:
        BundleError: A file is missing or altered, or the manifest is malformed.
        BuildError: The graphs do not compute what they should; the message says which check failed.
    """
    if num_samples < 1:
        raise BuildError(f"num_samples is {num_samples}, expected at least 1", field="num_samples")
    bundle = open_bundle(path)
    manifest = bundle.manifest
    results = [
        ("files", f"{len(manifest.files)} files, {sum(f.num_bytes for f in manifest.files)} bytes, hashes agree")
    ]
    results.append(("digest", manifest.digest))
    options = manifest.runtime.onnxruntime
    graphs = {name: GraphRunner(bundle.path_of(getattr(manifest.graphs, name)), options) for name in GRAPHS}
    results.append(("graphs", "mapping, synthesis, interpreter and model load in onnxruntime"))
    results += _run_graphs(graphs, manifest, num_samples)
    if parts is not None:
        parity = measure_parity(*parts, graphs["model"].run, manifest, calibrated_psis(manifest), num_samples)
        missed = failed_checks(parity)
        if missed:
            raise BuildError(
                f"{missed[0].name} is {missed[0].measured:g}, tolerance {missed[0].tolerance:g}", field="parity"
            )
        results += [
            (check.name, f"{check.measured:.6g} ({check.bound} {check.tolerance:g})") for check in parity.checks
        ]
    return results


def _run_graphs(
    graphs: dict[str, GraphRunner], manifest: bundle_pb2.Manifest, num_samples: int
) -> list[tuple[str, str]]:
    batch = manifest.runtime.batch_size
    psi = manifest.truncation.default_psi
    scores: list[float] = []
    allowed, least = ({}, 0.999) if manifest.precision == "float32" else (HALF_DIFFERENCES, 0.98)
    for start in range(0, num_samples, batch):
        indices = np.arange(start, start + batch, dtype=np.uint64)
        feeds = make_feeds(manifest.backbone, BUNDLE_SEED, indices, psi, None, list(manifest.class_distribution))
        whole = graphs["model"].run(feeds)
        ws = graphs["mapping"].run(feeds)["ws"]
        painted = graphs["synthesis"].run({"ws": ws})
        labelled = graphs["interpreter"].run({name: painted[name] for name in graphs["interpreter"].input_names})
        if not bool(whole["finite"].all()):
            raise BuildError(f"a sample of seed {BUNDLE_SEED} is not finite", field="finite")
        for name, got in ({"image": painted["image"]} | labelled).items():
            if name == "finite":
                continue
            difference = np.abs(np.asarray(got, np.float64) - np.asarray(whole[name], np.float64))
            share = float((difference <= allowed.get(name, 0.0)).mean())
            if difference.size and share < least:
                raise BuildError(
                    f"model and its parts agree on {share:.4f} of {name}, expected {least:g}", field="graphs"
                )
        if int(np.asarray(whole["label"]).max()) >= len(manifest.classes):
            raise BuildError("a label lies outside the classes of the manifest", field="classes")
        scores += image_score(np.asarray(whole["uncertainty_map"], np.float16)).tolist()
    return [
        ("model", f"{len(scores)} samples finite, equal to mapping, synthesis and interpreter in turn"),
        ("image score", f"median {np.median(scores):.4f} nats"),
    ]
