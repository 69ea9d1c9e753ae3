"""`python -m benchmarks.downstream`: is a network trained on streamed samples as good as one trained on true labels?"""

import argparse
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

import torch

from benchmarks.argument_types import distinct_seeds, positive_int, result_folder, share
from benchmarks.downstream.record import Record
from benchmarks.downstream.settings import STREAMED_SEED, TEST_SEED, TRAINING_SEED, DownstreamSettings
from benchmarks.downstream.streamed import fetch_samples
from benchmarks.downstream.summary import draw_page, draw_table, summarize
from benchmarks.downstream.training import (
    ARMS,
    RENDERED,
    STREAMED,
    render_test,
    render_training,
    run_arms,
    use_streamed,
)
from benchmarks.reporting.environment import describe_command, describe_environment
from benchmarks.reporting.files import RESULTS_FOLDER, write_text
from labelmint.errors import LabelmintError
from labelmint_export.devices import DEVICES, choose_device
from labelmint_service.engine.loading import ENGINES
from labelmint_service.engine.processor import describe_processor
from labelmint_service.settings import EMBEDDED_BUNDLE

_COMPARED = (
    *("num_samples", "num_rendered", "num_test", "pose_range"),
    *("steps", "batch_size", "blur_share", "with_keypoints"),
)
"""Settings in which trainings have to agree for their results to be compared."""
DEFAULT_CACHE = Path("out") / "downstream-samples.npz"


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch, train what was not trained yet, compare, write.

    Args:
        arguments: Without the program's name; None takes those of the process.

    Returns:
        Exit status: 0, or 1 after a printed error. Ratios below the aims are a result, not an error.
    """
    parsed = vars(_make_parser().parse_args(arguments))
    forgotten = parsed.pop("restart")
    settings = DownstreamSettings(**parsed)
    command = describe_command("benchmarks.downstream", arguments)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    try:
        run(settings, command, list(ARMS) if forgotten == [] else forgotten or ())
    except LabelmintError as error:
        print(f"benchmarks.downstream: {error}", file=sys.stderr)
        return 1
    return 0


def run(settings: DownstreamSettings, command: str, forgotten: Collection[str] = ()) -> None:
    """Do all of it; see `main`.

    Args:
        settings: What to train on what.
        command: That does it, for the record.
        forgotten: Arms whose earlier trainings do not count.

    Raises:
        LabelmintError: Something cannot be fetched, does not fit or failed.
    """
    chosen = {name: getattr(settings, name) for name in _COMPARED}
    path = settings.out / "downstream.json"
    # An earlier run with other settings, or a device that is not there, is better refused before the long fetch.
    Record(path, chosen, forgotten)
    choose_device(settings.device)
    samples = fetch_samples(settings)
    streamed = use_streamed(samples, settings)
    seeds = {"streamed_seed": STREAMED_SEED, "rendered_seed": TRAINING_SEED, "test_seed": TEST_SEED}
    configuration = {**chosen, **seeds, "source": samples.source}
    record = Record(path, configuration, forgotten)
    resolution = streamed.masks.shape[1]
    test = render_test(settings, resolution)
    learned = {STREAMED: streamed, RENDERED: render_training(settings, resolution)}
    wanted = [(arm, seed) for seed in settings.seeds for arm in settings.arms if record.find(arm, seed) is None]
    origin = {"processor": describe_processor(), "command": command}
    for run in run_arms(learned, test, settings, wanted):
        engine = {"engine": samples.engine} if run["arm"] == STREAMED else {}
        record.add({**run, **engine, **origin})
    missing = [(arm, seed) for arm in ARMS for seed in settings.seeds if record.find(arm, seed) is None]
    if missing:
        record.write({"complete": False})
        print(f"{len(missing)} trainings are left: {', '.join(f'{arm}, seed {seed}' for arm, seed in missing)}")
        return
    summary = summarize(record.runs, settings.seeds)
    environment = describe_environment(command)
    record.write({"complete": True, **environment, "summary": summary})
    write_text(settings.out / "downstream.md", draw_page(summary, record.runs, configuration, environment))
    print(draw_table(summary), end="")
    print(f"written: {settings.out / 'downstream.json'}, {settings.out / 'downstream.md'}")


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.downstream",
        description="Train a small segmentation network on streamed samples and on rendered pictures with true labels, "
        "test both on unseen pictures with true masks. An interrupted run goes on where it was.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--bundle", type=Path, default=EMBEDDED_BUNDLE, help="folder of the bundle to serve")
    parser.add_argument("--engine", choices=ENGINES, default="onnxruntime", help="what runs it")
    parser.add_argument("--address", help="host:port of a running server, instead of one of its own")
    parser.add_argument("--model", help="name of the model, where the server has several")
    parser.add_argument("--samples", dest="num_samples", type=positive_int, default=10_000, help="streamed samples")
    parser.add_argument(
        "--max-uncertainty-quantile",
        type=share,
        default=0.9,
        help="keep streamed samples up to this quantile of the image score; 1 keeps all",
    )
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help=".npz that keeps the streamed samples")
    parser.add_argument(
        "--rendered", dest="num_rendered", type=positive_int, default=1_600, help="rendered training pictures"
    )
    parser.add_argument("--test", dest="num_test", type=positive_int, default=600, help="rendered test pictures")
    parser.add_argument(
        "--pose-range",
        type=share,
        default=0.4,
        help="of rendered pictures; that of the pictures that the embedded generator learned from",
    )
    parser.add_argument("--steps", type=positive_int, default=3_000, help="optimiser steps of each training")
    parser.add_argument("--batch-size", type=positive_int, default=16, help="pictures a step")
    parser.add_argument("--blur-share", type=share, default=0.0, help="share of training pictures that are softened")
    parser.add_argument("--keypoints", dest="with_keypoints", action="store_true", help="learn keypoints too")
    parser.add_argument(
        "--seeds", type=distinct_seeds, default=(0, 1, 2), help="comma-separated; each trains both arms"
    )
    parser.add_argument("--arms", nargs="+", choices=tuple(ARMS), default=tuple(ARMS), help="which to train now")
    parser.add_argument(
        "--device", default="auto", choices=DEVICES, help="where to train; auto takes a GPU if there is one"
    )
    parser.add_argument("--threads", type=positive_int, help="threads of a training, processes that render")
    parser.add_argument("--jobs", type=positive_int, default=1, help="trainings at a time; give --threads too")
    parser.add_argument("--out", type=result_folder, default=RESULTS_FOLDER, help="folder for the results")
    parser.add_argument(
        "--restart",
        nargs="*",
        choices=tuple(ARMS),
        metavar="ARM",
        help=f"forget the trainings of an earlier run in --out, all or those of an arm ({', '.join(ARMS)}): after a "
        "change of the model those on rendered pictures still hold",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
