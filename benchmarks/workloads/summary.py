"""From measured times to the document and the table."""

import statistics
from collections.abc import Mapping
from typing import Any

from benchmarks.reporting.environment import describe_origin
from benchmarks.reporting.statistics import summarize_durations
from benchmarks.reporting.tables import markdown_table
from benchmarks.workloads.measuring import Contender, WorkloadSettings

GOALS = {"car-512": 25.0, "cat-256": 15.0}
"""Times faster than the reference that the fused engine should be on a processor."""
GPU_GOALS = {"car-512": (1000.0, 100.0), "face-1024": (250.0, 0.0)}
"""Pictures a second that the fused engine should make on an H100, and times faster than the reference there."""

_DEVICES = {"fused": "cpu", "fused-cuda": "cuda"}
"""Contenders that work on one device, whatever is asked for; a floor is that of one device."""
_KERNEL_DTYPES = {"bf16": "bfloat16", "float16": "float16"}
"""How the name of a kernel ends that multiplies in another dtype than float32."""


def summarize(name: str, seen: Mapping[str, Contender], settings: WorkloadSettings) -> dict[str, Any]:
    """One workload as a document of JSON."""
    reference = seen.get("reference")
    floor_of_device = _floor(reference.description) if reference else {}
    contenders = {}
    for one, contender in seen.items():
        median = statistics.median(contender.runs_ns)
        floor = floor_of_device if _DEVICES.get(one, settings.device) == settings.device else {}
        entry: dict[str, Any] = {
            "batch_size": contender.description.get("batch_size"),
            "precision": _precision(contender),
            "ms_a_picture": summarize_durations(contender.runs_ns),
            "pictures_a_second": round(1e9 / median, 3),
            "stages_ms": _median_stages(contender),
            "peak_rss_bytes": contender.peak_rss_bytes,
            "peak_device_bytes": contender.peak_device_bytes,
            "label_agreement": contender.label_agreement,
            "largest_divergence_error_nats": contender.divergence_error,
        }
        if reference:
            entry["times_the_reference"] = round(_times(reference, contender), 2)
        if floor:
            entry["share_of_float32_floor"] = round(floor["seconds"] / (median / 1e9), 3)
        entry |= _beside_their_floors(contender, floor, entry["stages_ms"])
        if "seconds_in_float16" in floor:
            entry["share_of_float16_floor"] = round(floor["seconds_in_float16"] / (median / 1e9), 3)
        contenders[one] = entry
    document: dict[str, Any] = {
        "contenders": contenders,
        "device": settings.device,
        "rounds": settings.rounds,
        "pictures": settings.pictures,
        "digest": next((one.description["digest"] for one in seen.values() if "digest" in one.description), None),
        "floor": floor_of_device,
    }
    if reference:
        seconds = statistics.median(reference.runs_ns) / 1e9
        rate = reference.description["reference_operations"] / seconds
        document["reference_share_of_gemm_rate"] = round(rate / reference.description["rates"]["gemm_float32"], 3)
    document |= _goals(name, contenders, settings.device)
    return document


def _times(reference: Contender, contender: Contender) -> float:
    """How many times as long the reference takes: median over the rounds."""
    turns = zip(reference.turns_ns, contender.turns_ns, strict=True)
    return statistics.median(statistics.median(slow) / statistics.median(fast) for slow, fast in turns)


def _goals(name: str, contenders: Mapping[str, Mapping[str, Any]], device: str) -> dict[str, Any]:
    """What was aimed at on this device, and whether it was reached; empty where nothing can be said."""
    reference = "reference" in contenders
    if device == "cpu" and reference and "fused" in contenders and name in GOALS:
        reached = contenders["fused"]["times_the_reference"] >= GOALS[name]
        return {"goal_times_the_reference": GOALS[name], "reaches_goal": reached}
    if device == "cuda" and reference and "fused-cuda" in contenders and name in GPU_GOALS:
        rate, times = GPU_GOALS[name]
        fused = contenders["fused-cuda"]
        reached = fused["pictures_a_second"] >= rate and fused["times_the_reference"] >= times
        return {"goal_pictures_a_second": rate, "goal_times_the_reference": times, "reaches_goal": reached}
    return {}


def _floor(description: Mapping[str, Any]) -> dict[str, Any]:
    """Seconds that the arithmetic of one picture takes at the rate of a large product in float32."""
    operations = description["generator_operations"] + description["interpreter_operations"]
    rates = description["rates"]
    halves = {"seconds_in_float16": operations / rates["gemm_float16"]} if "gemm_float16" in rates else {}
    return {
        "generator_operations": description["generator_operations"],
        "interpreter_operations": description["interpreter_operations"],
        "reference_operations": description["reference_operations"],
        "rates": rates,
        "seconds": operations / rates["gemm_float32"],
        **halves,
    }


def _beside_their_floors(
    contender: Contender, floor: Mapping[str, Any], stages_ms: Mapping[str, float]
) -> dict[str, Any]:
    """Form of the kernel, and how many times what their arithmetic takes, at the rate of large products, stages take.

    Synthesis multiplies in the precision of the bundle, the interpreter in what its kernel does (the small last layer
    in float32). Nothing is said of a dtype that is emulated here.
    """
    kernel = contender.description.get("numerics", {}).get("engine", {}).get("kernel")
    if kernel is None:
        return {}
    if not floor:
        return {"kernel": kernel}
    dtype = next((dtype for ending, dtype in _KERNEL_DTYPES.items() if kernel.endswith(ending)), "float32")
    dtypes = {"synthesis": _precision(contender), "interpreter": dtype}
    operations = {"synthesis": floor["generator_operations"], "interpreter": floor["interpreter_operations"]}
    rates = {stage: floor["rates"].get(f"gemm_{dtype}") for stage, dtype in dtypes.items()}
    least_ms = {stage: 1e3 * operations[stage] / rate for stage, rate in rates.items() if rate}
    times = {stage: round(stages_ms[stage] / least, 2) for stage, least in least_ms.items() if stage in stages_ms}
    return {"kernel": kernel, "times_their_floor": times}


def _precision(contender: Contender) -> str:
    """Of its generator; torch's contenders compute in float32."""
    precision: str = contender.description.get("precision", "float32")
    return precision


def _median_stages(contender: Contender) -> dict[str, float]:
    names = list(contender.stages_ns[0]) if contender.stages_ns else []
    return {name: round(statistics.median(stage[name] for stage in contender.stages_ns) / 1e6, 2) for name in names}


def draw_table(document: Mapping[str, Any]) -> str:
    """A Markdown table of all workloads; precisions are named where one is not float32."""
    rows = []
    entries = [entry for part in document["workloads"].values() for entry in part["contenders"].values()]
    is_mixed = any(entry.get("precision", "float32") != "float32" for entry in entries)
    for workload, part in document["workloads"].items():
        for name, entry in part["contenders"].items():
            memory, on_device = entry["peak_rss_bytes"], entry["peak_device_bytes"]
            rows.append(
                (
                    workload,
                    name,
                    *([entry.get("precision", "float32")] if is_mixed else []),
                    f"{entry['ms_a_picture']['p50']:,.{0 if on_device is None else 2}f}",
                    f"{entry['pictures_a_second']:.2f}",
                    f"{entry['times_the_reference']:.1f}" if "times_the_reference" in entry else "",
                    f"{entry['share_of_float32_floor']:.2f}" if "share_of_float32_floor" in entry else "",
                    f"{entry['share_of_float16_floor']:.2f}" if "share_of_float16_floor" in entry else "",
                    f"{memory / 1e9:.2f}" if memory else "",
                    f"{on_device / 1e9:.2f}" if on_device else "",
                    f"{entry['label_agreement']:.3%}",
                )
            )
    header = (
        "workload",
        "contender",
        *(["precision"] if is_mixed else []),
        "ms",
        "pictures/s",
        "x reference",
        "of the floor",
        "in float16",
        "GB",
        "GB of GPU",
        "same labels",
    )
    return markdown_table(header, rows)


def draw_page(document: Mapping[str, Any]) -> str:
    """Markdown: the table, when each workload was measured, and by which command."""
    measured = document["workloads"]
    origins = "".join(f"- {name}: {describe_origin(part)}\n" for name, part in measured.items())
    commands = ", ".join(f"`{command}`" for command in dict.fromkeys(find_commands(measured).values()))
    return f"{draw_table(document)}\n{origins}\nMade by {commands}.\n"


def find_commands(measured: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Command of each workload; of results from before they named it, one that measures the same workloads again."""
    together = " ".join(
        ["python -m benchmarks.workloads", *(n for n, part in measured.items() if "command" not in part)]
    )
    return {name: part.get("command", together) for name, part in measured.items()}
