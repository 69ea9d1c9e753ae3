"""Freed memory that is kept: counted by the pages that the system has to give to a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from labelmint.memory import keep_freed_memory

ROUNDS = 20

PROGRAM = f"""
import resource, sys
from labelmint.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()

def messages():
    return [b"".join([b"x" * 2**20] * 20) for _ in range(6)]  # as many as wait for their readers

for _ in range(3):
    messages()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    messages()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(choice: str) -> int:
    run = subprocess.run([sys.executable, "-c", PROGRAM, choice], capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_messages_of_a_process_that_keeps_memory_need_no_new_pages() -> None:
    assert faults("keep") < faults("default") / 20


def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()
