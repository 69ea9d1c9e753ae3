"""Names this machine's processor, because libraries choose their kernels, and so the last bits, by it."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

from labelmint_service.engine.protocol import JsonValue

_CPUINFO = Path("/proc/cpuinfo")


def describe_processor() -> dict[str, JsonValue]:
    """Model, instruction sets and the processors this process may use."""
    fields = _cpuinfo_fields()
    flags = " ".join(sorted(fields.get("flags", fields.get("Features", "")).split()))
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "model": fields.get("model name", platform.processor()),
        "instruction_sets_sha256": hashlib.sha256(flags.encode()).hexdigest(),
        "num_usable": num_usable(),
        "num_logical": os.cpu_count(),
    }


def num_usable() -> int | None:
    """Processors that this process may use; None if the system does not say."""
    if hasattr(os, "sched_getaffinity"):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _cpuinfo_fields() -> dict[str, str]:
    """The first processor's entries on Linux; empty elsewhere."""
    if not _CPUINFO.is_file():
        return {}
    first = _CPUINFO.read_text(encoding="utf-8", errors="replace").split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
