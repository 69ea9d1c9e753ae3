"""A bundle that is altered on disk while it is served: the server is not disturbed, and no other one starts with it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from labelmint.bundle import open_bundle
from labelmint.errors import BundleError
from labelmint_client import Client, RetryPolicy
from labelmint_service.models.served import load_model
from tests.faults.readers import reading
from tests.serving import serving

AT_ONCE = RetryPolicy(max_attempts=1, connect_attempts=1)


def overwrite(path: Path) -> None:
    """Other bytes in the same file, as an impatient copy writes them."""
    with path.open("r+b") as file:
        file.write(os.urandom(path.stat().st_size))


def cut(path: Path) -> None:
    os.truncate(path, 16)


ALTERATIONS: Mapping[str, Callable[[Path], None]] = {"overwritten": overwrite, "cut": cut, "removed": Path.unlink}


@pytest.mark.parametrize(
    "name", ["overwritten", *(pytest.param(name, marks=pytest.mark.faults) for name in ("cut", "removed"))]
)
def test_altered_files_disturb_no_reader_and_keep_the_next_server_from_starting(
    tiny: Path, tmp_path: Path, name: str
) -> None:
    bundle = shutil.copytree(tiny, tmp_path / "tiny")
    with serving([bundle]) as running, reading(lambda _: Client(running.address, retry=AT_ONCE)) as readers:
        readers.wait_until_begun()
        for file in open_bundle(tiny).manifest.files:
            ALTERATIONS[name](bundle / file.path)
        with pytest.raises(BundleError):
            load_model(bundle)
        with serving([tiny]) as sound, Client(sound.address) as client:
            assert not any(readers.finish(client))


def test_styles_that_are_asked_for_after_files_were_altered_are_painted_as_before(tiny: Path, tmp_path: Path) -> None:
    """The graphs of this entry are loaded with the others, while the files are those that were verified."""
    bundle = shutil.copytree(tiny, tmp_path / "tiny")
    with serving([tiny]) as sound, Client(sound.address) as client:
        backbone = open_bundle(tiny).manifest.backbone
        w_plus = np.random.default_rng(0).standard_normal((5, backbone.num_ws, backbone.w_dim)).astype(np.float32)
        expected = [sample.image.tobytes() for sample in client.label("tiny", w_plus=w_plus, fields=["image"])]
    with serving([bundle]) as running, Client(running.address) as client:
        for file in open_bundle(tiny).manifest.files:
            overwrite(bundle / file.path)
        assert [s.image.tobytes() for s in client.label("tiny", w_plus=w_plus, fields=["image"])] == expected
