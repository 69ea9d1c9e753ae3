"""Whether bfloat16 is chosen where the processor has instructions for it, and nowhere else."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
import torch

from labelmint_export.precision import fast_dtype

CPU_INFO = Path("/proc/cpuinfo")


@pytest.mark.skipif(
    not CPU_INFO.is_file() or platform.machine() != "x86_64", reason="the kernel does not list x86 flags here"
)
@pytest.mark.skipif(not hasattr(torch.cpu, "get_capabilities"), reason="this torch cannot tell: float32 it is")
def test_choice_follows_the_flags_that_the_kernel_lists() -> None:
    flags = set(CPU_INFO.read_text(encoding="utf-8").split())
    expected = torch.bfloat16 if flags & {"avx512_bf16", "amx_bf16"} else torch.float32
    assert fast_dtype(torch.device("cpu")) is expected


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"neon": True, "bf16": True}, torch.bfloat16),
        ({}, torch.float32),
    ],
)
def test_choice_of_other_processors(
    capabilities: dict[str, bool], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert fast_dtype(torch.device("cpu")) is expected
