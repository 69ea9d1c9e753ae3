"""`build` and `verify`."""

import argparse
from pathlib import Path

from labelmint.bundle import open_bundle
from labelmint.v1 import bundle_pb2
from labelmint_export.annotations import read_annotations
from labelmint_export.bundle.build import build_bundle, sha256_of_files
from labelmint_export.bundle.settings import BuildSettings
from labelmint_export.bundle.verify import verify_bundle
from labelmint_export.checkpoints.loading import load_stylegan2
from labelmint_export.commands.checkpoints import GENERATOR_HELP
from labelmint_export.commands.targets import add_engine_options, add_sources, verify_engines
from labelmint_export.errors import BuildError
from labelmint_export.interpreter.storage import load_interpreter

LICENCE_HELP = (
    "licence of the generator's weights, an SPDX identifier or a name. Weights are often not free to use: "
    "NVIDIA's StyleGAN, StyleGAN2-ADA and StyleGAN3 models are non-commercial (NVIDIA Source Code License, many "
    "CC-BY-NC-SA-4.0 as they come from FFHQ); rosinality's and DatasetGAN's checkpoints follow the set they were "
    "trained on"
)


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands of this stage."""
    build = commands.add_parser("build", help="export generator and interpreter to a bundle")
    build.add_argument("--generator", type=Path, required=True, help=GENERATOR_HELP)
    build.add_argument("--interpreter", type=Path, required=True, help=".safetensors from train-interpreter")
    build.add_argument("--annotations", type=Path, required=True, help="folder with names and colours of the classes")
    build.add_argument("--out", type=Path, required=True, help="folder of the bundle")
    build.add_argument("--name", required=True, help="model name that requests use")
    build.add_argument("--version", default="1", help="of the model (default 1)")
    build.add_argument("--description", default="", help="one sentence")
    build.add_argument("--weights-licence", required=True, help=LICENCE_HELP)
    build.add_argument("--data-licence", required=True, help="licence of the pictures the generator learned from")
    build.add_argument("--attribution", required=True, help="text that every data set repeats")
    build.add_argument("--url", default="", help="where the licence or source is found")
    build.add_argument("--truncation-psi", type=float, default=1.0, help="default of requests (default 1)")
    build.add_argument("--psi-grid", type=float, nargs="+", default=[0.7, 1.0], help="calibrated truncations")
    build.add_argument("--calibration-samples", type=int, default=2000, help="for each psi (default 2000)")
    build.add_argument("--parity-samples", type=int, default=16, help="compared with float64 (default 16)")
    build.add_argument("--batch-size", type=int, default=4, help="rows of every run of the service (default 4)")
    build.add_argument(
        "--vote-rule", choices=["majority", "mean_probability"], default="majority", help="how members vote"
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
    annotated = read_annotations(arguments.annotations)
    generator, interpreter = load_stylegan2(arguments.generator), load_interpreter(arguments.interpreter)
    settings = BuildSettings(
        name=arguments.name,
        version=arguments.version,
        description=arguments.description,
        weights_licence=arguments.weights_licence,
        data_licence=arguments.data_licence,
        attribution=arguments.attribution,
        url=arguments.url,
        vote_rule=arguments.vote_rule,
        default_psi=arguments.truncation_psi,
        psi_grid=tuple(sorted(arguments.psi_grid)),
        num_calibration_samples=arguments.calibration_samples,
        num_parity_samples=arguments.parity_samples,
        batch_size=arguments.batch_size,
    )
    provenance = bundle_pb2.Provenance(
        created_by="labelmint-export",
        checkpoint_sha256=sha256_of_files([arguments.generator]),
        interpreter_sha256=sha256_of_files([arguments.interpreter]),
        annotations_sha256=sha256_of_files(sorted(path for path in arguments.annotations.iterdir() if path.is_file())),
        num_annotated_images=len(annotated),
        commit=arguments.commit,
    )
    bundle = build_bundle(
        generator,
        interpreter,
        annotated.schema,
        settings,
        provenance,
        arguments.out,
        overwrite=arguments.overwrite,
    )
    lines = [f"{c.name:48} {c.measured:12.6g}   {c.bound} {c.tolerance:g}" for c in bundle.manifest.parity.checks]
    return "\n".join([*lines, f"wrote {arguments.out}: digest {bundle.digest}"])


def run_verify(arguments: argparse.Namespace) -> str:
    """Check and give what was seen."""
    if (arguments.generator is None) != (arguments.interpreter is None):
        raise BuildError("--generator and --interpreter go together; give both or none", field="generator")
    if arguments.engine is not None:
        return verify_engines(arguments, open_bundle(arguments.bundle))
    parts = None
    if arguments.generator is not None:
        parts = (load_stylegan2(arguments.generator), load_interpreter(arguments.interpreter))
    return "\n".join(f"{name:48} {seen}" for name, seen in verify_bundle(arguments.bundle, parts, arguments.samples))
