"""From measured times to the document and the table."""

import statistics
from collections.abc import Mapping
from typing import Any

from benchmarks.reporting.environment import describe_origin
from benchmarks.reporting.tables import markdown_table
from benchmarks.transport.measuring import FLIGHT, OURS, TRITON, Measured

GOALS: Mapping[str, float] = {FLIGHT: 0.8, TRITON: 2.0}
"""Least speed of labelmint relative to another contender."""

# Any: documents of JSON.
Report = dict[str, Any]


def summarize(measured: Measured) -> Report:
    """One size as a document of JSON."""
    ours = measured.streams[OURS].total_ns
    contenders: Report = {}
    for name, stream in measured.streams.items():
        seconds = statistics.median(stream.total_ns) / 1e9
        contenders[name] = {
            "samples_per_s": round(measured.samples / seconds, 1),
            "megabytes_per_s": round(measured.samples * measured.sample_bytes / seconds / 1e6, 1),
            "seconds_of_turns": [round(value / 1e9, 4) for value in stream.total_ns],
            "reader_peak_rss_bytes": stream.reader_peak_rss_bytes,
        }
        if stream.versions:
            contenders[name]["versions"] = dict(stream.versions)
        if name in GOALS:
            ratios = [other / own for own, other in zip(ours, stream.total_ns, strict=True)]
            contenders[name]["speed_of_labelmint"] = round(statistics.median(ratios), 3)
            contenders[name]["speed_of_labelmint_of_rounds"] = [round(ratio, 3) for ratio in ratios]
            contenders[name]["reaches_goal"] = statistics.median(ratios) >= GOALS[name]
    return {
        "sample_bytes": measured.sample_bytes,
        "batch_size": measured.batch_size,
        "samples_a_turn": measured.samples,
        "contenders": contenders,
    }


def draw_table(report: Report) -> str:
    """A Markdown table of all sizes."""
    rows = []
    for size, part in report["sizes"].items():
        for name, entry in part["contenders"].items():
            relative = entry.get("speed_of_labelmint")
            rows.append(
                (
                    f"{size} x {size}",
                    name,
                    f"{entry['samples_per_s']:,.0f}",
                    f"{entry['megabytes_per_s']:,.0f}",
                    "" if relative is None else f"{relative:.2f}",
                    "" if relative is None else f"{GOALS[name]:.1f}",
                )
            )
    return markdown_table(("sample", "stream", "samples/s", "MB/s", "labelmint to it", "goal"), rows)


def draw_page(report: Report) -> str:
    """Markdown: the table with what one has to know to read it."""
    processor = report["hardware"]["processor"]
    return (
        "# Transport\n\n"
        f"{processor['model'] or processor['machine']}, {processor['num_usable']} processors; "
        f"{describe_origin(report)}; load average before the run {report['load_average']}.\n\n"
        f"{draw_table(report)}\n"
        "Recorded samples (RAW image, mask and keypoints), each stream from a server to a reader on the same machine, "
        "as arrays. An engine that replays them, and hands over their scores as the CUDA engine does, stands in for a "
        "model; the service schedules, builds and writes as it always does, while Arrow Flight and Triton's decoupled "
        "stream only send. The first samples of each had the same bits. All take turns; rates are medians, `labelmint "
        "to it` is the median of the ratios of single rounds. Made by "
        f"`{report['command']}`; details in [transport.json](transport.json).\n"
    )
