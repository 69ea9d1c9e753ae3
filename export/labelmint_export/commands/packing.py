"""`build` and `verify`."""

import argparse
from pathlib import Path

from labelmint.bundle import open_bundle, sha256_of_file
from labelmint.graphs import VOTE_RULES
from labelmint.v1 import bundle_pb2
from labelmint_export.annotations import AnnotationSchema, files_of, read_joined
from labelmint_export.bundle.build import build_bundle
from labelmint_export.bundle.graphs import CropWindow
from labelmint_export.bundle.settings import BUNDLE_PRECISIONS, BuildSettings
from labelmint_export.bundle.verify import verify_bundle
from labelmint_export.commands.checkpoints import add_generator, read_generator
from labelmint_export.commands.naming import name_classes
from labelmint_export.commands.targets import add_engine_options, add_sources, load_parts, verify_engines
from labelmint_export.errors import BuildError
from labelmint_export.generator import TapSpec
from labelmint_export.interpreter.labelling import pictures_at_once
from labelmint_export.interpreter.storage import load_interpreter
from labelmint_export.interpreter.taps import TAP_SETS, select_taps
from labelmint_export.stored import sha256_of_files

LICENCE_HELP = (
    "licence of the generator's weights, an SPDX identifier or a name. Weights are often not free to use: "
    "NVIDIA's StyleGAN, StyleGAN2-ADA and StyleGAN3 models are non-commercial (NVIDIA Source Code License, many "
    "CC-BY-NC-SA-4.0 as they come from FFHQ); rosinality's and DatasetGAN's checkpoints follow the set they were "
    "trained on"
)


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands of this stage."""
    build = commands.add_parser("build", help="export generator and interpreter to a bundle")
    add_generator(build)
    build.add_argument("--interpreter", type=Path, required=True, help=".safetensors from train-interpreter")
    names = build.add_mutually_exclusive_group(required=True)
    names.add_argument(
        "--annotations", type=Path, nargs="+", help="folders that were learned from, for the names and colours"
    )
    names.add_argument("--classes", nargs="+", metavar="NAME", help="names of an imported interpreter's classes")
    build.add_argument("--out", type=Path, required=True, help="folder of the bundle")
    build.add_argument("--name", required=True, help="model name that requests use")
    build.add_argument("--version", default="1", help="of the model (default 1)")
    build.add_argument("--description", default="", help="one sentence")
    build.add_argument("--weights-licence", required=True, help=LICENCE_HELP)
    build.add_argument("--data-licence", required=True, help="licence of the pictures the generator learned from")
    build.add_argument("--attribution", required=True, help="text that every data set repeats")
    build.add_argument("--url", default="", help="where the licence or source is found")
    build.add_argument(
        "--truncation-psi", type=float, default=1.0, help="of requests that say nothing, 0 to 1 (default 1)"
    )
    build.add_argument("--truncation-cutoff", type=int, default=0, help="leading ws to truncate; 0 for all (default 0)")
    build.add_argument("--psi-grid", type=float, nargs="+", default=[0.7, 1.0], help="calibrated ones (default 0.7 1)")
    build.add_argument("--calibration-samples", type=int, default=2000, help="for each psi, and class (default 2000)")
    build.add_argument("--parity-samples", type=int, default=16, help="compared with float64 (default 16)")
    build.add_argument(
        "--batch-size",
        type=int,
        help="rows of every run of the service (default 4, where labels are larger than 128 x 128 fewer: "
        "onnxruntime needs 8 GB for one of 512 x 512)",
    )
    build.add_argument("--vote-rule", choices=VOTE_RULES, help="how members vote; that of --taps, or majority")
    build.add_argument(
        "--taps", nargs="+", metavar="LAYER", help="refuse an interpreter on other taps: as for train-interpreter"
    )
    build.add_argument(
        "--noise-mode", choices=["const", "none"], default="const", help="fixed, or none (default const)"
    )
    build.add_argument(
        "--crop", type=int, nargs=4, metavar=("TOP", "LEFT", "HEIGHT", "WIDTH"), help="part to deliver, pixels"
    )
    build.add_argument(
        "--class-distribution", type=float, nargs="+", metavar="P", help="of a conditional generator; all alike"
    )
    build.add_argument(
        "--precision",
        choices=BUNDLE_PRECISIONS,
        default="float32",
        help="of feature maps, taps and the interpreter's large products; float16 is for GPUs (default float32)",
    )
    build.add_argument("--commit", default="", help="revision of the sources, for the manifest")
    build.add_argument("--overwrite", action="store_true", help="replace an existing folder")
    build.set_defaults(run=run_build)

    verify = commands.add_parser("verify", help="check a bundle: hashes, graphs, and parity if its sources are given")
    verify.add_argument("bundle", type=Path, help="folder of the bundle")
    add_sources(verify, required=False)
    verify.add_argument("--samples", type=int, default=8, help="samples to run (default 8)")
    add_engine_options(verify)
    verify.set_defaults(run=run_verify)


def run_build(arguments: argparse.Namespace) -> str:
    """Build the bundle and give its digest."""
    generator, interpreter = read_generator(arguments), load_interpreter(arguments.interpreter)
    if arguments.taps is not None:
        _check_taps(select_taps(generator, arguments.taps), interpreter.config.taps)
    schema, provenance = _names_of(arguments)
    settings = _settings_of(arguments, pictures_at_once(interpreter.config.label_resolution))
    bundle = build_bundle(
        generator, interpreter, schema, settings, provenance, arguments.out, overwrite=arguments.overwrite
    )
    lines = [f"{c.name:48} {c.measured:12.6g}   {c.bound} {c.tolerance:g}" for c in bundle.manifest.parity.checks]
    return "\n".join([*lines, f"wrote {arguments.out}: digest {bundle.digest}"])


def _check_taps(wanted: tuple[TapSpec, ...], taken: tuple[TapSpec, ...]) -> None:
    if wanted != taken:
        raise BuildError(
            f"the interpreter looks at {' '.join(tap.name for tap in taken)}, but --taps means "
            f"{' '.join(tap.name for tap in wanted)}; train it anew or leave --taps out",
            field="taps",
        )


def _settings_of(arguments: argparse.Namespace, usual_batch_size: int) -> BuildSettings:
    tap_set = TAP_SETS.get(arguments.taps[0]) if arguments.taps else None
    crop = None
    if arguments.crop is not None:
        top, left, height, width = arguments.crop
        crop = CropWindow(top=top, left=left, height=height, width=width)
    return BuildSettings(
        name=arguments.name,
        version=arguments.version,
        description=arguments.description,
        weights_licence=arguments.weights_licence,
        data_licence=arguments.data_licence,
        attribution=arguments.attribution,
        url=arguments.url,
        vote_rule=arguments.vote_rule or (VOTE_RULES[0] if tap_set is None else tap_set.vote_rule),
        noise_mode=arguments.noise_mode,
        default_psi=arguments.truncation_psi,
        truncation_cutoff=arguments.truncation_cutoff,
        psi_grid=tuple(sorted(arguments.psi_grid)),
        num_calibration_samples=arguments.calibration_samples,
        num_parity_samples=arguments.parity_samples,
        batch_size=usual_batch_size if arguments.batch_size is None else arguments.batch_size,
        class_distribution=tuple(arguments.class_distribution or ()),
        crop=crop,
        precision=arguments.precision,
    )


def _names_of(arguments: argparse.Namespace) -> tuple[AnnotationSchema, bundle_pb2.Provenance]:
    """Names and colours, and where the parts come from."""
    provenance = bundle_pb2.Provenance(
        created_by="labelmint-export",
        checkpoint_sha256=sha256_of_file(arguments.generator),
        interpreter_sha256=sha256_of_file(arguments.interpreter),
        commit=arguments.commit,
    )
    if arguments.annotations is None:
        return name_classes(arguments.classes), provenance
    annotated = read_joined(arguments.annotations)
    files = files_of(arguments.annotations)
    provenance.annotations_sha256, provenance.num_annotated_images = sha256_of_files(files), len(annotated)
    return annotated.schema, provenance


def run_verify(arguments: argparse.Namespace) -> str:
    """Check and give what was seen."""
    if (arguments.generator is None) != (arguments.interpreter is None):
        raise BuildError("--generator and --interpreter go together; give both or none", field="generator")
    if arguments.engine is not None:
        return verify_engines(arguments, open_bundle(arguments.bundle))
    for option in ("targets", "json"):
        if getattr(arguments, option) is not None:
            raise BuildError(
                f"{option} is given and engine is not, expected both; name engines with --engine", field="engine"
            )
    parts = None
    if arguments.generator is not None:
        generator, interpreter, _ = load_parts(arguments, open_bundle(arguments.bundle))
        parts = (generator, interpreter)
    return "\n".join(f"{name:48} {seen}" for name, seen in verify_bundle(arguments.bundle, parts, arguments.samples))
