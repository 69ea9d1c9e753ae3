"""Pictures of the curves."""

from pathlib import Path

import matplotlib as mpl

from benchmarks.reporting.files import Document
from benchmarks.reporting.plots import COLOURS, make_axes, save_plot


def plot_batches(batches: dict[str, Document], path: Path) -> None:
    """Draw samples a second over the batch size, a line for each engine."""
    axes = make_axes("batch size", "samples a second")
    for (engine, sizes), colour in zip(batches.items(), COLOURS, strict=False):
        rates = [entry["samples_per_s"] for entry in sizes.values()]
        axes.plot([int(size) for size in sizes], rates, marker="o", color=colour, label=engine)
    axes.set_xscale("log", base=2)
    axes.set_xticks([int(size) for size in next(iter(batches.values()))])
    axes.get_xaxis().set_major_formatter(mpl.ticker.ScalarFormatter())
    axes.set_ylim(bottom=0)
    save_plot(axes, "Throughput of the engine by batch size", path)


def plot_loads(loads: dict[str, Document], path: Path) -> None:
    """Draw the latency of a call over the load, one line for each percentile."""
    axes = make_axes("calls a second, as a share of what the server answers at most", "latency, ms")
    for (engine, measured), style in zip(loads.items(), ("-", "--"), strict=False):
        shares = [float(load) for load in measured["loads"]]
        for key, colour in zip(("p50", "p90", "p99"), COLOURS, strict=False):
            values = [entry["latency_ms"][key] for entry in measured["loads"].values()]
            axes.plot(shares, values, style, marker="o", markersize=4, color=colour, label=f"{engine} {key}")
    axes.set_yscale("log")
    axes.get_yaxis().set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
    axes.get_yaxis().set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.get_yaxis().set_minor_formatter(mpl.ticker.NullFormatter())
    save_plot(axes, "Latency of a call for one sample by load", path)
