"""What all plots share."""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

COLOURS = ("#2563eb", "#f59e0b", "#10b981", "#ef4444", "#8b5cf6", "#64748b", "#ec4899", "#14b8a6")
_SIZE, _DPI = (7.2, 4.0), 150


def make_axes(x: str, y: str) -> Axes:
    """Axes of a new plot with these labels."""
    _, axes = plt.subplots(figsize=_SIZE)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def save_plot(axes: Axes, title: str, path: Path) -> None:
    """Add title and legend, and write the plot."""
    axes.set_title(title, loc="left", fontsize=11)
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    plt.savefig(path, dpi=_DPI, bbox_inches="tight")
    plt.close("all")
