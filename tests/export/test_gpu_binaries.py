"""The GPU kernels of a built bundle, compiled for real devices; tests/service/test_gpu_kernel.py runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.export.built_bundle import BuiltBundle

pytest.importorskip("triton", reason="triton is installed on Linux only")


def test_kernels_compile_for_devices_that_are_not_here(plain_built: BuiltBundle, tmp_path: Path) -> None:
    """In a process of its own, where Triton compiles."""
    script = Path(__file__).parents[2] / "service/kernel/compile_gpu.py"
    command = [sys.executable, "-W", "ignore", str(script), str(plain_built.path), str(tmp_path / "out")]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path / "cache")
    subprocess.run(command, env=environment, check=True, timeout=600)
    records = json.loads((tmp_path / "out/kernels.json").read_text())
    assert [record["kernel"] for record in records][-2:] == ["label", "heatmaps"]
    for record in records:
        assert set(record["binaries"]) == {"sm_80", "sm_90"}
        for binary in record["binaries"].values():
            assert (tmp_path / "out" / binary["file"]).read_bytes()[:4] == b"\x7fELF"
            assert binary["shared_bytes"] < 160 * 1024
    assert ".target sm_90" in next((tmp_path / "out").glob("*label-sm90.ptx")).read_text()
