"""The examples of the client's README run as they stand there, but for addresses and the places of files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.scripted_server import ScriptedServer, scripted_manifest

README = Path(__file__).parents[2] / "clients" / "README.md"
EXAMPLES: list[str] = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
RUNNABLE = [example for example in EXAMPLES if "AdminClient" not in example]  # test_admin.py does what that one does


@pytest.mark.parametrize("number", range(len(RUNNABLE)))
def test_example_runs(number: int, server: ScriptedServer, tmp_path: Path) -> None:
    manifest = scripted_manifest()
    manifest.backbone.z_dim = 8
    server.servicer.manifest.CopyFrom(manifest)
    for name in ("root.pem", "client.pem", "client.key", "token"):
        (tmp_path / name).write_text("read, not used: nothing is opened")
    (tmp_path / "token").write_text("lmt_secret")
    script = tmp_path / "example.py"
    example = RUNNABLE[number].replace("localhost:50051", server.address).replace("/run/secrets/", "")
    script.write_text(example, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", script.name],
        cwd=tmp_path,
        env=os.environ | {"LABELMINT_TOKEN": "lmt_secret"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
