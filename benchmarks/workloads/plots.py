"""The picture of the stages."""

from collections.abc import Mapping
from pathlib import Path

from benchmarks.reporting.files import Document
from benchmarks.reporting.plots import COLOURS, make_axes, save_plot


def plot_stages(workloads: Mapping[str, Document], path: Path) -> None:
    """Draw where the time of a picture goes, a bar for each workload that `fused` ran; nothing if there is none."""
    stages = {
        name: part["contenders"]["fused"]["stages_ms"]
        for name, part in workloads.items()
        if "fused" in part["contenders"]
    }
    if not stages:
        return
    names = list(dict.fromkeys(stage for one in stages.values() for stage in one))
    axes = make_axes("share of the time of a picture, engine fused", "")
    left = [0.0] * len(stages)
    for stage, colour in zip(names, COLOURS, strict=False):
        shares = [one.get(stage, 0.0) / sum(one.values()) for one in stages.values()]
        axes.barh(list(stages), shares, left=left, color=colour, label=stage, height=0.6)
        left = [start + share for start, share in zip(left, shares, strict=True)]
    axes.set_xlim(0, 1)
    axes.invert_yaxis()
    save_plot(axes, "Time by stage", path)
