"""Pictures of the curves."""

from pathlib import Path

import matplotlib as mpl

from benchmarks.reporting.files import Document

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

_COLOURS = ("#2563eb", "#f59e0b", "#10b981", "#ef4444", "#8b5cf6", "#64748b", "#ec4899", "#14b8a6")
_SIZE, _DPI = (7.2, 4.0), 150


def plot_batches(batches: dict[str, Document], path: Path) -> None:
    """Draw samples a second over the batch size, a line for each engine."""
    axes = _axes("batch size", "samples a second")
    for (engine, sizes), colour in zip(batches.items(), _COLOURS, strict=False):
        rates = [entry["samples_per_s"] for entry in sizes.values()]
        axes.plot([int(size) for size in sizes], rates, marker="o", color=colour, label=engine)
    axes.set_xscale("log", base=2)
    axes.set_xticks([int(size) for size in next(iter(batches.values()))])
    axes.get_xaxis().set_major_formatter(mpl.ticker.ScalarFormatter())
    axes.set_ylim(bottom=0)
    _save(axes, "Throughput of the engine by batch size", path)


def plot_loads(loads: dict[str, Document], path: Path) -> None:
    """Draw the latency of a call over the load, one line for each percentile."""
    axes = _axes("calls a second, as a share of what the server answers at most", "latency, ms")
    for (engine, measured), style in zip(loads.items(), ("-", "--"), strict=False):
        shares = [float(load) for load in measured["loads"]]
        for key, colour in zip(("p50", "p90", "p99"), _COLOURS, strict=False):
            values = [entry["latency_ms"][key] for entry in measured["loads"].values()]
            axes.plot(shares, values, style, marker="o", markersize=4, color=colour, label=f"{engine} {key}")
    axes.set_yscale("log")
    axes.get_yaxis().set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
    axes.get_yaxis().set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.get_yaxis().set_minor_formatter(mpl.ticker.NullFormatter())
    _save(axes, "Latency of a call for one sample by load", path)


def plot_stages(workloads: dict[str, Document], path: Path) -> None:
    """Draw where the time of a picture goes, a bar for each workload."""
    stages = {
        name: part["contenders"]["fused"]["stages_ms"]
        for name, part in workloads.items()
        if "fused" in part["contenders"]
    }
    names = list(dict.fromkeys(stage for one in stages.values() for stage in one))
    axes = _axes("share of the time of a picture, engine fused", "")
    left = [0.0] * len(stages)
    for stage, colour in zip(names, _COLOURS, strict=False):
        shares = [one.get(stage, 0.0) / sum(one.values()) for one in stages.values()]
        axes.barh(list(stages), shares, left=left, color=colour, label=stage, height=0.6)
        left = [start + share for start, share in zip(left, shares, strict=True)]
    axes.set_xlim(0, 1)
    axes.invert_yaxis()
    _save(axes, "Time by stage", path)


def _axes(x: str, y: str) -> Axes:
    _, axes = plt.subplots(figsize=_SIZE)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _save(axes: Axes, title: str, path: Path) -> None:
    axes.set_title(title, loc="left", fontsize=11)
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    plt.savefig(path, dpi=_DPI, bbox_inches="tight")
    plt.close("all")
