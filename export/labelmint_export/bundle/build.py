"""Building a bundle: export, calibrate, compare, describe, and only then put in place."""

from pathlib import Path

import torch

from labelmint.bundle import MANIFEST_NAME, Bundle, open_bundle, validate_manifest, write_manifest
from labelmint.graphs import GRAPHS, PEAK_RULE
from labelmint.v1 import bundle_pb2
from labelmint_export.annotations import AnnotationSchema
from labelmint_export.annotations.schema import IGNORE_LABEL
from labelmint_export.bundle.graphs import InterpreterGraph, MappingGraph, SynthesisGraph, bake_gains
from labelmint_export.bundle.half import check_range, make_half_synthesis
from labelmint_export.bundle.onnx_graphs import compose_model, export_module, write_graphs
from labelmint_export.bundle.parity import failed_checks, measure_parity
from labelmint_export.bundle.quantiles import CalibrationPlan, calibrate_scores
from labelmint_export.bundle.runtime import GraphRunner, versions_of
from labelmint_export.bundle.settings import BuildSettings, check_parts, crop_of
from labelmint_export.errors import BuildError
from labelmint_export.generator import Backbone
from labelmint_export.interpreter.ensemble import Interpreter
from labelmint_export.interpreter.fused import FusedInterpreter
from labelmint_export.placing import check_folder_place, placed_whole
from labelmint_export.precision import DTYPES

VERSIONED = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")


def build_bundle(
    generator: Backbone,
    interpreter: Interpreter,
    schema: AnnotationSchema,
    settings: BuildSettings,
    provenance: bundle_pb2.Provenance,
    out: Path,
    *,
    overwrite: bool = False,
) -> Bundle:
    """Write a bundle that appears whole or not at all.

    Args:
        generator: As trained.
        interpreter: Trained on that generator's taps.
        schema: Names and colours of classes and keypoints.
        settings: Everything else.
        provenance: Where the parts come from; tool versions are added.
        out: Folder of the bundle.
        overwrite: Whether an existing folder may be replaced.

    Returns:
        The opened bundle.

    Raises:
        BuildError: The parts do not fit each other, the folder exists, or parity misses a tolerance.
        OutputError: The folder is a file, or a part of its path is one.
        ManifestError: A name or text of the settings is none that a manifest may hold.
    """
    check_folder_place(out, "--out")
    if out.exists() and not overwrite:
        raise BuildError(f"{out} exists; give another folder, or --overwrite to replace it", field="out")
    if out.exists() and not (out / MANIFEST_NAME).is_file():
        raise BuildError(f"{out} exists and is no bundle, so it is not replaced; give another folder", field="out")
    with placed_whole(out) as staging:
        manifest = write_unmeasured(generator, interpreter, schema, settings, provenance, staging)
        runner = GraphRunner(staging / manifest.graphs.model, manifest.runtime.onnxruntime)
        # Parity before the calibration, which takes hours where pictures are large.
        psis, samples = settings.psi_grid, settings.num_parity_samples
        parity = measure_parity(generator, interpreter, runner.run, manifest, psis, samples)
        missed = failed_checks(parity)
        if missed:
            lines = "; ".join(f"{c.name} is {c.measured:g}, tolerance {c.tolerance:g} ({c.bound})" for c in missed)
            raise BuildError(f"the graphs do not compute what was trained: {lines}", field="parity")
        manifest.parity.CopyFrom(parity)
        plan = CalibrationPlan(
            psi_grid=settings.psi_grid,
            num_samples=settings.num_calibration_samples,
            batch_size=settings.batch_size,
        )
        distribution = list(manifest.class_distribution)
        manifest.score_quantiles.extend(calibrate_scores(runner.run, manifest.backbone, distribution, plan))
        write_manifest(staging, manifest)
    return open_bundle(out)


def write_unmeasured(
    generator: Backbone,
    interpreter: Interpreter,
    schema: AnnotationSchema,
    settings: BuildSettings,
    provenance: bundle_pb2.Provenance,
    folder: Path,
) -> bundle_pb2.Manifest:
    """Write the graphs of a bundle and describe them, without calibration and parity.

    Args:
        generator: As trained.
        interpreter: Trained on that generator's taps.
        schema: Names and colours of classes and keypoints.
        settings: Everything else.
        provenance: Where the parts come from; tool versions are added.
        folder: Where to write; exists.

    Returns:
        The manifest, which is not written yet.

    Raises:
        BuildError: The parts do not fit each other.
        ManifestError: A name or text of the settings is none that a manifest may hold.
    """
    check_parts(generator, interpreter, schema, settings)
    manifest = _describe(generator, interpreter, schema, settings, provenance)
    _check_description(manifest)
    manifest.interpreter_tables.extend(_write_graph_files(generator, interpreter, settings, folder))
    return manifest


def _write_graph_files(
    generator: Backbone,
    interpreter: Interpreter,
    settings: BuildSettings,
    folder: Path,
) -> list[bundle_pb2.Table]:
    """Write the graphs, and return where the interpreter's weights are."""
    crop, dtype = crop_of(generator, settings), DTYPES[settings.precision]
    baked, make_synthesis = bake_gains(generator), SynthesisGraph if dtype == torch.float32 else make_half_synthesis
    mapping = MappingGraph(baked, settings.truncation_cutoff or None)
    synthesis = make_synthesis(baked, interpreter.config.taps, settings.noise_mode, crop)
    labels = InterpreterGraph(interpreter, settings.vote_rule, generator.config.resolution, crop, dtype)
    check_range(labels)
    examples: dict[str, torch.Tensor] = {
        "z": torch.randn(2, generator.config.z_dim),
        "truncation_psi": torch.tensor([0.7, 1.0]),
    }
    if generator.config.c_dim:
        examples["c"] = torch.eye(generator.config.c_dim)[[0, 0]]
    with torch.no_grad():
        ws = mapping(*examples.values())
        stacks = synthesis(ws)[1:-1]
        graphs = {
            "mapping": export_module(mapping, tuple(examples.values()), list(examples), ["ws"]),
            "synthesis": export_module(synthesis, (ws,), ["ws"], synthesis.output_names),
            "interpreter": export_module(labels, tuple(stacks), labels.input_names, labels.output_names),
        }
    graphs["model"] = compose_model(graphs["mapping"], graphs["synthesis"], graphs["interpreter"], labels.input_names)
    # Kernels round by themselves, those of processors not at all.
    exact = labels.fused if dtype == torch.float32 else FusedInterpreter(interpreter, settings.vote_rule)
    return write_graphs(graphs, folder, exact.tables())


def _describe(
    generator: Backbone,
    interpreter: Interpreter,
    schema: AnnotationSchema,
    settings: BuildSettings,
    provenance: bundle_pb2.Provenance,
) -> bundle_pb2.Manifest:
    config, shape = generator.config, interpreter.config
    crop = crop_of(generator, settings)
    scale = shape.label_resolution / config.resolution
    manifest = bundle_pb2.Manifest(
        schema_version=1,
        name=settings.name,
        version=settings.version,
        description=settings.description,
        upsampling="bilinear",
        ignore_label=IGNORE_LABEL,
        vote_rule=settings.vote_rule,
        uncertainty_rule="js_divergence",
        noise_mode=settings.noise_mode,
        precision=settings.precision,
        provenance=provenance,
    )
    manifest.backbone.CopyFrom(
        bundle_pb2.Backbone(
            family=generator.family,
            architecture=generator.architecture,
            resolution=config.resolution,
            image_channels=config.image_channels,
            z_dim=config.z_dim,
            c_dim=config.c_dim,
            w_dim=config.w_dim,
            num_ws=config.num_ws,
            num_parameters=sum(parameter.numel() for parameter in generator.parameters()),
        )
    )
    manifest.frame.CopyFrom(
        bundle_pb2.Frame(
            image_height=crop.height,
            image_width=crop.width,
            crop_top=crop.top,
            crop_left=crop.left,
            label_height=int(crop.height * scale),
            label_width=int(crop.width * scale),
        )
    )
    for tap in shape.taps:
        manifest.taps.add(name=tap.name, channels=tap.channels, resolution=tap.resolution)
    manifest.segmentation.num_members = shape.num_members
    manifest.segmentation.hidden_widths.extend(shape.hidden_widths)
    for name, (red, green, blue) in zip(schema.class_names, schema.palette, strict=True):
        manifest.classes.add(name=name, red=red, green=green, blue=blue)
    _describe_keypoints(manifest, interpreter, schema)
    manifest.truncation.default_psi = settings.default_psi
    manifest.truncation.cutoff = settings.truncation_cutoff
    manifest.truncation.max_psi = 1.0
    if config.c_dim:
        manifest.class_distribution.extend(settings.class_distribution or [1.0 / config.c_dim] * config.c_dim)
    manifest.runtime.batch_size = settings.batch_size
    manifest.runtime.onnxruntime.graph_optimization_level = "all"
    manifest.runtime.onnxruntime.execution_mode = "sequential"
    manifest.runtime.onnxruntime.inter_op_num_threads = 1
    for name in GRAPHS:
        setattr(manifest.graphs, name, f"{name}.onnx")
    manifest.licence.weights = settings.weights_licence
    manifest.licence.data = settings.data_licence
    manifest.licence.attribution = settings.attribution
    manifest.licence.url = settings.url
    manifest.provenance.versions.update(versions_of(VERSIONED))
    return manifest


def _describe_keypoints(manifest: bundle_pb2.Manifest, interpreter: Interpreter, schema: AnnotationSchema) -> None:
    shape = interpreter.config
    if not shape.num_keypoints:
        return
    manifest.keypoint_regression.num_members = shape.num_keypoint_members
    manifest.keypoint_regression.hidden_widths.extend(shape.keypoint_hidden_widths)
    manifest.keypoints.names.extend(schema.keypoint_names)
    for first, second in schema.skeleton:
        manifest.keypoints.skeleton.add(first=first, second=second)
    for first, second in schema.left_right_pairs:
        manifest.keypoints.left_right_pairs.add(first=first, second=second)
    manifest.keypoints.peak_rule = PEAK_RULE
    manifest.keypoints.visibility_thresholds.extend(interpreter.visibility_thresholds.tolist())
    manifest.keypoints.sigma_pixels = shape.sigma_pixels


def _check_description(manifest: bundle_pb2.Manifest) -> None:
    """Refuse now what the finished manifest would be refused for after a long calibration."""
    draft = bundle_pb2.Manifest()
    draft.CopyFrom(manifest)
    for name in GRAPHS:
        draft.files.add(path=f"{name}.onnx", sha256="0" * 64)
    validate_manifest(draft)
