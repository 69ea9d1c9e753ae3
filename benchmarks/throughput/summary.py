"""What a measurement says: JSON for machines, a table for readers."""

import statistics
from typing import Any

from benchmarks.reporting.environment import describe_origin, load_average
from benchmarks.reporting.statistics import summarize_durations
from benchmarks.reporting.tables import markdown_table
from benchmarks.throughput.measuring import ENGINE, Measured, Measurement, ThroughputSettings

TARGET_RATIO = 0.9
"""Share of the engine's speed that the service should keep."""

EARLIER_COMMAND = "make bench"
"""What made the results that name no command."""

# Any: documents of JSON.
Report = dict[str, Any]


def build_report(settings: ThroughputSettings, measurement: Measurement, environment: Report) -> Report:
    """Sum a measurement up.

    Args:
        settings: What was measured.
        measurement: What was seen.
        environment: From `describe_environment`, taken before the measurement.

    Returns:
        Ready for JSON.
    """
    batch_size = int(measurement.description["batch_size"])
    engine = measurement.contenders[ENGINE]
    return {
        "benchmark": "service",
        **environment,
        "load_average_after": load_average(),
        "configuration": {
            "model": measurement.description["model"],
            "digest": measurement.description["digest"],
            "numerics_id": measurement.description["numerics_id"],
            "engine": settings.engine,
            "provider": settings.provider,
            "batch_size": batch_size,
            "rounds": settings.rounds,
            "seconds": settings.seconds,
            "warmup_batches": settings.warmup_batches,
            "timed_batches": measurement.timed_batches,
            "seed": settings.seed,
        },
        "target_ratio": TARGET_RATIO,
        "server_peak_rss_bytes": measurement.server_peak_rss_bytes,
        "contenders": {
            name: _summarize(measured, engine, batch_size, is_engine=name == ENGINE)
            for name, measured in measurement.contenders.items()
        },
    }


def _summarize(measured: Measured, engine: Measured, batch_size: int, *, is_engine: bool) -> Report:
    rates = [batch_size * len(outcome.batch_ns) * 1e9 / outcome.total_ns for outcome in measured.outcomes]
    summary: Report = {
        "samples_per_s": round(statistics.median(rates), 3),
        "samples_per_s_of_rounds": [round(rate, 3) for rate in rates],
        "batch_ms": summarize_durations([value for outcome in measured.outcomes for value in outcome.batch_ns]),
        "peak_rss_bytes": measured.peak_rss_bytes,
    }
    if is_engine:
        return summary
    ratios = [
        alone.total_ns / outcome.total_ns for alone, outcome in zip(engine.outcomes, measured.outcomes, strict=True)
    ]
    return summary | {
        "ratio_to_engine": round(statistics.median(ratios), 4),
        "ratio_to_engine_of_rounds": [round(ratio, 4) for ratio in ratios],
        "reaches_target": statistics.median(ratios) >= TARGET_RATIO,
        "bit_identical_samples": measured.num_checked,
        "image_difference_levels": measured.image_difference_levels,
    }


def draw_table(report: Report) -> str:
    """Markdown: one contender a row."""
    rows = []
    for name, summary in report["contenders"].items():
        times = summary["batch_ms"]
        ratio = summary.get("ratio_to_engine")
        rows.append(
            [
                name,
                f"{summary['samples_per_s']:.2f}",
                *(f"{times[key]:.1f}" for key in ("p50", "p90", "p99")),
                str(times["n"]),
                "" if ratio is None else f"{ratio:.3f}",
                str(summary.get("bit_identical_samples", "")),
            ]
        )
    header = ["contender", "samples/s", "batch p50 ms", "p90 ms", "p99 ms", "batches", "of engine", "samples compared"]
    return markdown_table(header, rows)


def draw_page(report: Report, name: str) -> str:
    """Markdown: the table with what one has to know to read it; `name` is that of the result file."""
    chosen, processor = report["configuration"], report["hardware"]["processor"]
    return (
        "# Throughput of the service\n\n"
        f"Model {chosen['model']} (digest {chosen['digest'][:12]}), engine {chosen['engine']}, "
        f"batches of {chosen['batch_size']}; "
        f"{processor['model'] or processor['machine']}, {processor['num_usable']} processors; "
        f"{describe_origin(report)}; load average before the run "
        f"{report['load_average']}.\n\n"
        f"{draw_table(report)}\n"
        "`engine` is the time inside the engine alone, the others are what a client on the same machine reads, "
        f"decoded. All make the same addresses in turns, {chosen['rounds']} rounds of {chosen['timed_batches']} timed "
        "batches each: samples/s is the median over rounds, `of engine` the median of the ratios of single rounds. The "
        "samples compared had the engine's bits; JPEG pictures are lossy and are compared by their mean difference "
        f"instead (`image_difference_levels`). Made by "
        f"`{report.get('command', EARLIER_COMMAND)}`; details in [{name}.json]({name}.json).\n"
    )
