"""What the trainings say."""

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.downstream.record import Run
from benchmarks.downstream.training import ARMS, RENDERED, STREAMED
from benchmarks.reporting.environment import describe_origin
from benchmarks.reporting.statistics import spread
from benchmarks.reporting.tables import markdown_table

MIOU_TARGET = 0.9
"""Aim for streamed / rendered mIoU."""
CLASS_TARGET = 0.75
"""Aim for streamed / rendered IoU of every class."""

_KEYPOINT_SCORES = ("pck_at_0_1", "pck_at_0_05", "visibility_accuracy")

# Any: documents of JSON.
Summary = dict[str, Any]


def summarize(runs: Sequence[Run], seeds: Sequence[int]) -> Summary:
    """Compare the arms over some seeds, all of which have been run.

    Returns:
        For mIoU, each class and each keypoint score: mean and standard deviation of both arms, and the ratio of the
        means (None where the rendered arm has 0 or a class does not occur). Ready for JSON.
    """
    scores = {arm: [run["scores"] for run in runs if run["arm"] == arm and run["seed"] in seeds] for arm in ARMS}
    classes = list(scores[RENDERED][0]["iou"])
    measures = {
        "miou": {arm: [one["miou"] for one in scores[arm]] for arm in ARMS},
        **{name: {arm: [one["iou"][name] for one in scores[arm]] for arm in ARMS} for name in classes},
        **{
            name: {arm: [one[name] for one in scores[arm]] for arm in ARMS}
            for name in _KEYPOINT_SCORES
            if name in scores[RENDERED][0]
        },
    }
    compared = {name: _compare(values) for name, values in measures.items()}
    class_ratios = {name: compared[name]["ratio"] for name in classes if compared[name]["ratio"] is not None}
    worst = min(class_ratios, key=lambda name: class_ratios[name], default=None)
    return {
        "seeds": list(seeds),
        "miou": compared["miou"],
        "iou": {name: compared[name] for name in classes},
        "keypoints": {name: compared[name] for name in _KEYPOINT_SCORES if name in compared},
        "targets": {"miou_ratio": MIOU_TARGET, "class_ratio": CLASS_TARGET},
        "worst_class": worst,
        "reaches_miou_target": compared["miou"]["ratio"] is not None and compared["miou"]["ratio"] >= MIOU_TARGET,
        "reaches_class_target": bool(class_ratios) and all(ratio >= CLASS_TARGET for ratio in class_ratios.values()),
    }


def _compare(values: dict[str, list[float | None]]) -> Summary:
    compared: Summary = {}
    for arm in ARMS:
        known = [value for value in values[arm] if value is not None]
        compared[arm] = (
            {"mean": round(statistics.fmean(known), 4), "std": round(spread(known), 4)}
            if len(known) == len(values[arm])
            else None
        )
    streamed, rendered = compared[STREAMED], compared[RENDERED]
    has_ratio = streamed is not None and rendered is not None and rendered["mean"] > 0
    return compared | {"ratio": round(streamed["mean"] / rendered["mean"], 4) if has_ratio else None}


def draw_table(summary: Summary) -> str:
    """Markdown: one measure a row."""
    named = {"mIoU": summary["miou"], **summary["iou"], **summary["keypoints"]}
    rows = [
        [
            name,
            *("" if (one := compared[arm]) is None else _shown(one, len(summary["seeds"])) for arm in ARMS),
            "" if compared["ratio"] is None else f"{compared['ratio']:.3f}",
        ]
        for name, compared in named.items()
    ]
    return markdown_table(["IoU on unseen true pictures", *ARMS, "ratio"], rows)


def _shown(measured: dict[str, float], num_seeds: int) -> str:
    spread_of_seeds = f" ± {measured['std']:.3f}" if num_seeds > 1 else ""  # one seed has no spread
    return f"{measured['mean']:.3f}{spread_of_seeds}"


def draw_page(summary: Summary, runs: Sequence[Run], configuration: dict[str, Any], environment: dict[str, Any]) -> str:
    """Markdown: the table with what one has to know to read it."""
    chosen, source = configuration, configuration["source"]

    def verdict(key: str) -> str:
        return "reached" if summary[key] else "not reached"

    return (
        "# Downstream use\n\n"
        f"A small U-Net learns from {chosen['num_samples']:,} samples streamed from model {source['model']} (digest "
        f"{source['digest'][:12]}, image scores up to quantile {source['max_uncertainty_quantile']:g}), and the same "
        f"network from {chosen['num_rendered']:,} rendered pictures with true labels: {chosen['steps']:,} steps of "
        f"{chosen['batch_size']} pictures, the same augmentation, seeds {', '.join(map(str, summary['seeds']))}. Both "
        f"are tested on {chosen['num_test']} rendered pictures with true masks, whose combinations of parts are in no "
        f"training picture and whose poses, as those of all the others, fill {chosen['pose_range']:g} of the set's "
        "ranges; mean and standard deviation over the seeds.\n\n"
        f"{draw_table(summary)}\n"
        f"Aims: ratio at least {MIOU_TARGET} for mIoU ({verdict('reaches_miou_target')}), at least {CLASS_TARGET} for "
        f"every class ({verdict('reaches_class_target')}; lowest: {summary['worst_class']}).\n\n"
        f"{_describe_runs([run for run in runs if run['seed'] in summary['seeds']])}\n"
        f"Summed up by `{environment.get('command', 'python -m benchmarks.downstream')}`, "
        f"{describe_origin(environment)}; every run is in [downstream.json](downstream.json).\n"
    )


def _describe_runs(runs: Sequence[Run]) -> str:
    """Markdown: in what, on what and by which command each arm was trained, as far as the runs tell."""
    lines = []
    for arm in ARMS:
        alike: dict[str, list[int]] = {}
        for run in runs:
            if run["arm"] == arm:
                alike.setdefault(_describe_run(run), []).append(run["seed"])
        lines += [f"- {arm}, seeds {', '.join(map(str, sorted(seeds)))}: {told}" for told, seeds in alike.items()]
    return "".join(f"{line}\n" for line in lines)


def _describe_run(run: Run) -> str:
    processor, command = run.get("processor"), run.get("command")
    told = {
        "precision": run.get("compute_dtype"),
        "device": run.get("device"),
        "processor": processor
        and f"{processor['model']} (instruction sets {processor['instruction_sets_sha256'][:8]})",
        **({"engine of the samples": run.get("engine")} if run["arm"] == STREAMED else {}),
        "command": command and f"`{command}`",
    }
    return ", ".join(f"{name} {value or 'not recorded'}" for name, value in told.items())
