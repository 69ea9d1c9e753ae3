"""A valid manifest and bundle that the tests of this folder alter."""

from pathlib import Path

from labelmint.bundle import Bundle, write_manifest
from labelmint.graphs import GRAPHS
from labelmint.v1 import bundle_pb2


def valid_manifest() -> bundle_pb2.Manifest:
    """Every field set, but `files` and `digest`, which `write_manifest` fills in."""
    return bundle_pb2.Manifest(
        schema_version=1,
        name="test-model",
        version="1.0",
        description="A model that exists in tests only.",
        backbone=bundle_pb2.Backbone(
            family="stylegan2",
            architecture="skip",
            resolution=16,
            image_channels=3,
            z_dim=8,
            c_dim=2,
            w_dim=8,
            num_ws=6,
            num_parameters=1234,
        ),
        frame=bundle_pb2.Frame(
            image_height=12, image_width=16, crop_top=2, crop_left=0, label_height=12, label_width=16
        ),
        taps=[
            bundle_pb2.FeatureTap(name="b8.conv1", channels=4, resolution=8),
            bundle_pb2.FeatureTap(name="b16.conv1", channels=2, resolution=16),
        ],
        upsampling="bilinear",
        segmentation=bundle_pb2.Ensemble(num_members=3, hidden_widths=[8, 4]),
        keypoint_regression=bundle_pb2.Ensemble(num_members=2, hidden_widths=[8]),
        classes=[
            bundle_pb2.SegmentationClass(name="background", red=0, green=0, blue=0),
            bundle_pb2.SegmentationClass(name="face", red=255, green=128, blue=1),
        ],
        ignore_label=255,
        keypoints=bundle_pb2.KeypointSchema(
            names=["left eye", "right eye", "mouth"],
            skeleton=[bundle_pb2.KeypointPair(first=0, second=2), bundle_pb2.KeypointPair(first=1, second=2)],
            left_right_pairs=[bundle_pb2.KeypointPair(first=0, second=1)],
            peak_rule="quadratic_3x3",
            visibility_thresholds=[0.1, 0.2, 0.3],
            sigma_pixels=1.5,
        ),
        vote_rule="majority",
        uncertainty_rule="js_divergence",
        noise_mode="const",
        truncation=bundle_pb2.Truncation(default_psi=0.7, cutoff=4, max_psi=1.0),
        class_distribution=[0.25, 0.75],
        score_quantiles=[
            bundle_pb2.ScoreQuantiles(truncation_psi=0.7, class_index=0, scores=[0.0, 0.1, 0.3], num_samples=2000),
            bundle_pb2.ScoreQuantiles(truncation_psi=0.7, class_index=1, scores=[0.05, 0.2], num_samples=2000),
        ],
        precision="float32",
        parity=bundle_pb2.Parity(
            checks=[
                bundle_pb2.ParityCheck(name="onnx_vs_torch.image_error", measured=0.5, tolerance=1.0, bound="max"),
                bundle_pb2.ParityCheck(name="onnx_vs_torch.agreement", measured=0.999, tolerance=0.995, bound="min"),
            ],
            num_samples=64,
        ),
        runtime=bundle_pb2.Runtime(
            batch_size=4,
            onnxruntime=bundle_pb2.OnnxRuntimeOptions(
                intra_op_num_threads=2,
                inter_op_num_threads=1,
                graph_optimization_level="all",
                execution_mode="sequential",
                config_entries={"session.set_denormal_as_zero": "1"},
            ),
        ),
        graphs=bundle_pb2.Graphs(**{name: f"{name}.onnx" for name in GRAPHS}),
        provenance=bundle_pb2.Provenance(
            created_by="labelmint tests",
            created_at="2026-01-02T03:04:05Z",
            checkpoint_sha256="a" * 64,
            interpreter_sha256="b" * 64,
            annotations_sha256="c" * 64,
            num_annotated_images=16,
            commit="0123456789abcdef0123456789abcdef01234567",
            versions={"torch": "2.13.0"},
        ),
        licence=bundle_pb2.Licence(
            weights="Apache-2.0", data="CC-BY-4.0", attribution="„Picture“ by A. Painter", url="https://example.org/"
        ),
    )


def manifest_with_tables() -> bundle_pb2.Manifest:
    """The same with tables of the interpreter, which lie in the weights that `write_bundle` writes."""
    manifest = valid_manifest()
    manifest.interpreter_tables.add(name="bias1", path="weights/data.bin", offset=0, shape=[5])
    manifest.interpreter_tables.add(name="weight2", path="weights/data.bin", offset=512, shape=[2, 3])
    return manifest


def write_bundle(root: Path, manifest: bundle_pb2.Manifest | None = None) -> Bundle:
    """Write a bundle whose graphs are a few bytes that no test runs."""
    (root / "weights").mkdir(parents=True)
    for name in GRAPHS:
        (root / f"{name}.onnx").write_bytes(f"graph {name}".encode())
    (root / "weights" / "data.bin").write_bytes(bytes(range(256)) * 40)
    return write_manifest(root, manifest or valid_manifest())
