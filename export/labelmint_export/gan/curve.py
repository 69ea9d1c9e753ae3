"""The course of a training as a picture: distance and losses over the pictures seen."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labelmint_export.errors import TrainingError
from labelmint_export.placing import file_placed_whole

LOSSES = {"generator_loss": "tab:blue", "discriminator_loss": "tab:red", "reconstruction": "tab:green"}
"""What a log may hold, with the colour of its line."""


def read_log(path: Path) -> list[dict[str, float]]:
    """Read a `log.jsonl` that `train-gan` wrote.

    Raises:
        TrainingError: The file is missing or holds something else.
    """
    try:
        records = [{str(k): float(v) for k, v in json.loads(line).items()} for line in _whole_lines(path)]
    except FileNotFoundError as error:
        raise TrainingError(f"{path} does not exist; `train-gan` writes it into its --out", field="log") from error
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise TrainingError(f"{path} is no log of `train-gan` ({error})", field="log") from error
    if not records or any("images" not in record or "resolution" not in record for record in records):
        raise TrainingError(f"{path} is no log of `train-gan`: images or resolution is missing", field="log")
    return records


def trim_log(path: Path, images: int) -> None:
    """Make a log end where a training goes on: without what a crash cut off, and what will be written once more.

    Args:
        path: The log; it may be missing.
        images: Pictures that the training has seen.
    """
    if path.exists():
        kept = [line for line in _whole_lines(path) if _images_of(line) <= images]
        with file_placed_whole(path) as partial:
            partial.write_text("".join(kept), encoding="utf-8")


def _whole_lines(path: Path) -> list[str]:
    """Read lines with their ends; one without is being written, or its writing was cut off."""
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]


def _images_of(line: str) -> float:
    """Infinite where a line was cut off and another was written behind it."""
    try:
        return float(json.loads(line)["images"])
    except (ValueError, TypeError, KeyError):
        return math.inf


def save_curve(logs: Sequence[Sequence[dict[str, float]]], path: Path) -> None:
    """Draw the distance and the losses of the stages of one training.

    Args:
        logs: Records of each stage, from `read_log`; the lowest resolution first.
        path: PNG file.

    Raises:
        TrainingError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an optional library
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise TrainingError(f"cannot draw a curve ({error}); run: pip install 'labelmint[train]'") from error

    figure = Figure(figsize=(9.0, 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    # A single distance is no course.
    has_distance = sum(math.isfinite(r.get("frechet", math.nan)) for records in logs for r in records) > 1
    # Any: matplotlib types the result of subplots as object.
    axes: Any = figure.subplots(2 if has_distance else 1, 1, sharex=True, squeeze=False)[:, 0]
    top, bottom = axes[0], axes[-1]
    for records in logs:
        label = f"{records[0]['resolution']:.0f} x {records[0]['resolution']:.0f}"
        measured = [r for r in records if math.isfinite(r.get("frechet", math.nan))]
        if has_distance and measured:
            top.plot([r["images"] / 1000 for r in measured], [r["frechet"] for r in measured], marker="o", label=label)
        for axis in axes:
            axis.axvline(records[-1]["images"] / 1000, color="0.85", linewidth=1)
    for name, colour in LOSSES.items():
        stages = [[(r["images"] / 1000, r[name]) for r in records if name in r] for records in logs]
        for number, points in enumerate(points for points in stages if points):
            entry = None if number else name.replace("_", " ")  # one in the legend
            bottom.plot(*zip(*points, strict=True), color=colour, label=entry)
    if has_distance:
        top.set_ylabel("Frechet distance\n(segmenter features)")
        top.set_yscale("log")
    bottom.set_ylabel("loss")
    bottom.set_xlabel("thousand pictures seen")
    for axis in axes:
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend()
    with file_placed_whole(path) as partial:
        figure.savefig(partial, dpi=110, format="png")
