"""`export`, and the part of `verify` that looks at engines."""

import argparse
from pathlib import Path

import numpy as np

from labelmint.bundle import Bundle, open_bundle, sha256_of_file
from labelmint_export.bundle.quantiles import make_feeds
from labelmint_export.bundle.runtime import GraphRunner
from labelmint_export.checkpoints.loading import AnyGenerator
from labelmint_export.commands.checkpoints import add_generator, read_generator
from labelmint_export.errors import BuildError
from labelmint_export.interpreter.ensemble import Interpreter
from labelmint_export.interpreter.storage import load_interpreter
from labelmint_export.placing import check_file_place, check_folder_place
from labelmint_export.precision import PRECISIONS
from labelmint_export.reserved_seeds import BUNDLE_SEED
from labelmint_export.stored import write_json
from labelmint_export.targets.deployed import make_target_model
from labelmint_export.targets.registry import TARGETS, find_target
from labelmint_export.targets.reporting import format_table, to_record
from labelmint_export.targets.settings import BatchProfile, TargetSettings
from labelmint_export.targets.tensorrt_builder import read_timing_cache
from labelmint_export.targets.verifying import EngineVerification, list_engines
from labelmint_export.targets.writing import target_folder, write_target

ALL = "all"


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands of this stage."""
    described = "; ".join(f"{target.name}: {target.summary}" for target in TARGETS.values())
    parser = commands.add_parser("export", help="write the model of a bundle for other engines")
    parser.add_argument("bundle", type=Path, help="folder of the bundle, which says how the model is put together")
    add_sources(parser, required=True)
    parser.add_argument("--target", nargs="+", choices=list(TARGETS), required=True, help=described)
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=PRECISIONS,
        default=["float32"],
        help="of feature maps and matrix products; sums, styles, softmax and vote stay in float32 (default float32)",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of targets; each gets TARGET-PRECISION in it")
    parser.add_argument(
        "--profile", nargs=3, type=int, metavar=("MIN", "OPT", "MAX"), default=[1, 4, 8], help="batches (default 1 4 8)"
    )
    parser.add_argument(
        "--compute-capability",
        nargs="+",
        default=[],
        metavar="X.Y",
        help="GPUs of a TensorRT-RTX plan, such as 8.6 (default: whichever loads it)",
    )
    parser.add_argument(
        "--timing-cache",
        type=Path,
        metavar="FILE",
        help="timing.cache of an earlier plan that native TensorRT built on this GPU: it goes by what it measured then",
    )
    parser.add_argument(
        "--queue-delay-us", type=int, default=2000, help="how long Triton waits to fill a batch (default 2000)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace targets that are there")
    parser.set_defaults(run=run_export)


def add_sources(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Add the options that name what a bundle was built from."""
    add_generator(parser, required=required)
    parser.add_argument("--interpreter", type=Path, required=required, help=".safetensors that it was built from")


def load_parts(arguments: argparse.Namespace, bundle: Bundle) -> tuple[AnyGenerator, Interpreter, dict[str, str]]:
    """Load what a bundle was built from.

    Returns:
        Generator, interpreter, and the sha256 of each file.

    Raises:
        BuildError: The bundle was built from another file, or with another mean w.
    """
    hashes, provenance = {}, bundle.manifest.provenance
    for name, expected in (
        ("generator", provenance.checkpoint_sha256),
        ("interpreter", provenance.interpreter_sha256),
    ):
        path: Path = getattr(arguments, name)
        if not path.is_file():
            raise BuildError(
                f"--{name} is {path}, which is no file; give the file the bundle was built from", field=name
            )
        hashes[name] = sha256_of_file(path)
        if expected and hashes[name] != expected:
            raise BuildError(
                f"{path} has sha256 {hashes[name]}, the bundle was built from {expected}; give that file", field=name
            )
    generator = read_generator(arguments)
    _check_mean_w(generator, arguments.mean_latent, bundle)
    return generator, load_interpreter(arguments.interpreter), hashes


def _check_mean_w(generator: AnyGenerator, mean_latent: Path | None, bundle: Bundle) -> None:
    """Compare the mean w with the bundle's, which need not come from the generator's file."""
    manifest = bundle.manifest
    graph = GraphRunner(bundle.path_of(manifest.graphs.mapping), manifest.runtime.onnxruntime)
    feeds = make_feeds(manifest.backbone, BUNDLE_SEED, np.zeros(1, np.uint64), psi=0.0, class_index=0)
    taken, wanted = generator.w_avg.numpy(), np.asarray(graph.run(feeds)["ws"])[0, 0]
    if taken.shape != wanted.shape or not np.allclose(taken, wanted, rtol=1e-3, atol=1e-3):
        raise BuildError(
            f"mean_latent is {mean_latent or 'not given'}, and the generator's mean w is not the bundle's; give the "
            "--mean-latent that the bundle was built with",
            field="mean_latent",
        )


def run_export(arguments: argparse.Namespace) -> str:
    """Write every target in every precision that was asked for."""
    check_folder_place(arguments.out, "--out", filled=True)
    low, best, high = arguments.profile
    settings = TargetSettings(
        profile=BatchProfile(min_batch=low, opt_batch=best, max_batch=high),
        compute_capabilities=tuple(arguments.compute_capability),
        timing_cache=read_timing_cache(arguments.timing_cache) if arguments.timing_cache else b"",
        queue_delay_us=arguments.queue_delay_us,
    )
    pairs = [
        (find_target(t, p), p) for p in dict.fromkeys(arguments.precision) for t in dict.fromkeys(arguments.target)
    ]
    for target, precision in pairs:
        target_folder(target, precision, arguments.out, overwrite=arguments.overwrite)
    bundle = open_bundle(arguments.bundle)
    generator, interpreter, hashes = load_parts(arguments, bundle)
    models = {p: make_target_model(generator, interpreter, bundle.manifest, p) for _, p in pairs}
    lines = []
    for target, precision in pairs:
        folder = write_target(target, models[precision], settings, hashes, arguments.out, overwrite=arguments.overwrite)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        lines.append(f"wrote {folder}: {size} bytes")
    return "\n".join(lines)


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add to `verify` what looking at engines needs."""
    parser.add_argument(
        "--engine",
        metavar="NAME[,NAME...]",
        help="compare engines with the float64 reference: bundle, emulated-float16, emulated-bfloat16, a folder of "
        "--targets such as onnx-float16, or all; needs --generator and --interpreter. Runs what lies in --targets: "
        "TorchScript and compiled packages are programs, verify only your own",
    )
    parser.add_argument("--targets", type=Path, help="folder that `export` wrote")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where engines run (default cpu)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the comparison of engines there, too")


def verify_engines(arguments: argparse.Namespace, bundle: Bundle) -> str:
    """Compare engines and give the table.

    Raises:
        BuildError: An engine misses a tolerance, or one that was asked for by name does not run here. The message holds
            the table.
    """
    if arguments.generator is None or arguments.interpreter is None:
        raise BuildError(
            "--engine compares with the float64 reference; give --generator and --interpreter", field="engine"
        )
    if arguments.json is not None:
        check_file_place(arguments.json, "--json")
    names = list_engines(arguments.targets) if arguments.engine == ALL else arguments.engine.split(",")
    generator, interpreter, _ = load_parts(arguments, bundle)
    verification = EngineVerification(
        bundle,
        generator,
        interpreter,
        targets=arguments.targets,
        num_samples=arguments.samples,
        device=arguments.device,
    )
    reports = verification.compare(names)
    if arguments.json is not None:
        write_json(arguments.json, to_record(reports, bundle, arguments.samples))
    table = format_table(reports)
    missed = [r.engine for r in reports if not (r.holds or (arguments.engine == ALL and not r.ran))]
    if missed:
        raise BuildError(f"these engines miss a tolerance or do not run here: {missed}\n{table}", field="engine")
    return table
