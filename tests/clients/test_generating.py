"""`labelmint generate` against the real service, and against faults."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image

from labelmint.v1 import service_pb2
from labelmint_client import Client, Sample, _optional
from labelmint_client._writers.dataset import DatasetWriter
from tests.clients.command_line import Run
from tests.clients.datasets import contents
from tests.clients.scripted_server import NUMERICS, Fault, ScriptedServer, scripted_manifest


def test_generate_writes_exactly_what_the_client_streams(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "set"
    arguments = ("--seed", 7, "--count", 9, "--start-index", 3, "--out", out, "--format", "png", "--format", "coco")
    assert run("generate", *arguments, "--uncertainty-maps", "--contact-sheet") == 0
    assert "9 labelled samples in" in run.out
    assert "9/9" in run.err
    keypoints = json.loads((out / "keypoints.json").read_bytes())["samples"]
    with Client(run.address) as client:
        samples = list(
            client.generate(
                "tiny", seed=7, count=9, start_index=3, fields=("image", "mask", "keypoints", "uncertainty_map")
            )
        )
    for sample, points in zip(samples, keypoints, strict=True):
        name = f"{sample.index:06d}"
        with Image.open(out / "images" / f"{name}.png") as image, Image.open(out / "masks" / f"{name}.png") as mask:
            np.testing.assert_array_equal(np.asarray(image), sample.image)
            np.testing.assert_array_equal(np.asarray(mask), sample.mask)
        np.testing.assert_array_equal(np.load(out / "uncertainty_maps" / f"{name}.npy"), sample.uncertainty_map)
        np.testing.assert_array_equal(np.array(points["keypoints"], dtype=np.float32), sample.keypoints)
    with Image.open(out / "contact_sheet.png") as sheet:
        assert sheet.width > 1000
    assert {path.name for path in out.iterdir()} == {
        "LICENCE.txt",
        "annotations.json",
        "contact_sheet.png",
        "dataset.json",
        "images",
        "keypoints.json",
        "masks",
        "uncertainty_maps",
    }


def test_wire_codecs_do_not_change_a_lossless_data_set(run: Run, tmp_path: Path) -> None:
    base = ("generate", "--seed", 7, "--count", 5, "--no-progress", "--out")
    assert run(*base, tmp_path / "raw") == 0
    assert run.err == ""
    assert run(*base, tmp_path / "png", "--image-codec", "png", "--mask-codec", "zstd") == 0
    assert contents(tmp_path / "raw") == contents(tmp_path / "png")


def test_filters_and_shards_choose_the_addresses(run: Run, tmp_path: Path) -> None:
    arguments = ("--seed", 1, "--end-index", 40, "--shard-index", 1, "--num-shards", 2)
    filters = ("--max-uncertainty-quantile", 0.5, "--min-class-area", "disc=0.01", "--truncation-psi", 0.5)
    assert run("generate", "--out", tmp_path / "set", *arguments, *filters) == 0
    description = json.loads((tmp_path / "set" / "dataset.json").read_bytes())
    names = sorted(int(path.stem) for path in (tmp_path / "set" / "images").iterdir())
    assert description["num_scanned"] == 20
    assert description["num_samples"] == len(names) == 20 - description["num_rejected"]
    assert 0 < len(names) < 20
    assert all(index % 2 == 1 for index in names)
    with Client(run.address) as client:
        stream = client.generate(
            "tiny",
            seed=1,
            end_index=40,
            shard_index=1,
            num_shards=2,
            max_uncertainty_quantile=0.5,
            min_class_areas={"disc": 0.01},
            truncation_psi=0.5,
        )
        assert [sample.index for sample in stream] == names


def test_bar_shows_a_filter_that_rejects_everything(run: Run, tmp_path: Path) -> None:
    filters = ("--max-uncertainty", 0, "--max-scanned", 20)
    assert run("generate", "--seed", 1, "--count", 4, "--out", tmp_path / "set", *filters) == 1
    assert re.search(r"tiny: .*0/4 .*rejected=20", run.err)


def test_refusal_comes_without_a_bar(run: Run, tmp_path: Path) -> None:
    assert run("generate", "--seed", 1, "--count", 4, "--out", tmp_path / "set", "--truncation-psi", 7) == 1
    assert "0/4" not in run.err


def test_finished_set_has_nothing_to_resume(run: Run, tmp_path: Path) -> None:
    assert run("generate", "--seed", 1, "--count", 3, "--out", tmp_path / "set", "--contact-sheet") == 0
    assert run("generate", "--seed", 1, "--count", 3, "--out", tmp_path / "set", "--contact-sheet", "--resume") == 0
    assert "3 samples were in" in run.out


@pytest.mark.parametrize("num_written", [3, 30, 40], ids=["early", "late", "before_the_sheet"])
@pytest.mark.parametrize("range_of", [("--count", 40), ("--end-index", 80, "--max-uncertainty-quantile", 1)])
def test_contact_sheet_of_a_resumed_set_is_that_of_one_made_in_one_go(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_written: int, range_of: tuple[object, ...]
) -> None:
    arguments = ("--seed", 1, "--no-progress", "--contact-sheet", *range_of)
    assert run("generate", *arguments, "--out", tmp_path / "whole") == 0
    with monkeypatch.context() as patch:
        interrupt_after(patch, num_written)
        assert run("generate", *arguments, "--out", tmp_path / "set") == 130
    assert run("generate", *arguments, "--out", tmp_path / "set", "--resume") == 0

    assert contents(tmp_path / "set") == contents(tmp_path / "whole")


def interrupt_after(patch: pytest.MonkeyPatch, num_written: int) -> None:
    """Let the next run be interrupted after so many samples."""
    write, count = DatasetWriter.write, itertools.count(1)

    def interrupted(self: DatasetWriter, sample: Sample, next_index: int) -> None:
        write(self, sample, next_index)
        if next(count) == num_written:
            raise KeyboardInterrupt

    patch.setattr(DatasetWriter, "write", interrupted)


def test_bar_ends_at_the_addresses_there_are(run: Run, tmp_path: Path) -> None:
    assert run("generate", "--seed", 1, "--count", 900, "--end-index", 6, "--out", tmp_path / "set") == 0
    assert "6/6" in run.err


def test_killed_run_is_resumed_to_the_same_data_set(
    server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(server.address, capsys)
    server.servicer.manifest.CopyFrom(scripted_manifest())
    killed = threading.Event()

    def hold_back(call: int, number: int, batch: service_pb2.SampleBatch) -> service_pb2.SampleBatch:
        """Later messages of the first run trickle, so that it shows progress and is killed long before its end."""
        if call == 0 and number > 20:
            killed.wait(1)
        return batch

    server.servicer.rewrite = hold_back
    arguments = ["--seed", "5", "--count", "300", "--format", "coco", "--format", "png"]
    command = [sys.executable, "-m", "labelmint_client", "generate", "--address", run.address]
    process = subprocess.Popen([*command, *arguments, "--out", str(tmp_path / "killed")], stderr=subprocess.PIPE)
    assert process.stderr is not None
    shown = b""
    while not re.search(rb"[1-9]\d*/300", shown):
        chunk = os.read(process.stderr.fileno(), 4096)
        assert chunk, shown
        shown += chunk
    process.kill()
    killed.set()
    process.wait(60)
    process.stderr.close()
    assert (tmp_path / "killed" / "INCOMPLETE.jsonl").exists()
    for draft in ("images/.000043.png", "masks/.000043.png", ".keypoints.json"):  # as if killed in the middle of these
        (tmp_path / "killed" / f"{draft}.5841.tmp").write_bytes(b"half")
    assert run("generate", *arguments, "--out", tmp_path / "killed", "--resume") == 0
    assert run("generate", *arguments, "--out", tmp_path / "whole") == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "other"], "other"),
        (["--truncation-psi", "7"], "truncation_psi"),
        (["--class-index", "0"], "class"),
        (["--max-uncertainty-quantile", "0"], "max_uncertainty_quantile"),
        (["--max-uncertainty", "-1"], "max_uncertainty"),
        (["--min-class-area", "wings=0.1"], "wings"),
        (["--jpeg-quality", "101"], "jpeg_quality"),
        (["--max-message-bytes", "7"], "max_message_bytes"),
        (["--max-message-bytes", "1000000000"], "max_receive_bytes"),
        (["--shard-index", "4", "--num-shards", "4"], "shard_index"),
        (["--start-index", "6", "--end-index", "5"], "end_index"),
        (["--max-uncertainty", "0", "--max-scanned", "20"], "max_scanned"),
    ],
)
def test_refused_request_is_named_and_leaves_nothing(
    run: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    assert run("generate", "--seed", 1, "--count", 4, "--out", tmp_path / "set", *arguments) == 1
    assert run.err.splitlines()[-1].startswith("labelmint: ")  # after the bar of a filter that rejects everything
    assert message in run.err
    assert not (tmp_path / "set").exists()


def test_empty_range_gives_an_empty_data_set_and_says_so(run: Run, tmp_path: Path) -> None:
    arguments = ("generate", "--seed", 1, "--start-index", 5, "--end-index", 5, "--out", tmp_path / "set")
    assert run(*arguments) == 0
    assert "no address of the range gave a sample" in run.out
    assert json.loads((tmp_path / "set" / "dataset.json").read_bytes())["num_samples"] == 0


def test_existing_data_set_is_refused_before_anything_is_streamed(run: Run, tmp_path: Path) -> None:
    base = ("generate", "--seed", 1, "--count", 2, "--out", tmp_path / "set")
    assert run(*base) == 0
    before = contents(tmp_path / "set")
    assert run(*base) == 1
    assert "--resume" in run.err
    assert "--overwrite" in run.err
    assert contents(tmp_path / "set") == before
    assert run(*base, "--overwrite") == 0
    assert contents(tmp_path / "set") == before


def test_server_that_goes_away_leaves_a_set_that_can_be_resumed(
    server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(server.address, capsys)
    server.servicer.manifest.CopyFrom(scripted_manifest())
    fault = Fault(after_messages=2, code=grpc.StatusCode.INTERNAL, details="engine broke", detail=None)
    server.servicer.faults = [fault]
    arguments = ("generate", "--seed", 1, "--count", 8, "--no-progress", "--out", tmp_path / "set")
    assert run(*arguments) == 1
    assert "engine broke" in run.err
    assert "the same command with --resume goes on" in run.err
    assert len(list((tmp_path / "set" / "images").iterdir())) == 4
    assert run(*arguments, "--resume") == 0
    assert json.loads((tmp_path / "set" / "dataset.json").read_bytes())["num_samples"] == 8
    assert [request.start_index for request in server.servicer.requests] == [0, 4]
    assert server.servicer.requests[1].numerics_id == NUMERICS


def test_resuming_at_another_engine_needs_leave(
    server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(server.address, capsys)
    server.servicer.manifest.CopyFrom(scripted_manifest())
    server.servicer.faults = [Fault(after_messages=1, code=grpc.StatusCode.INTERNAL)]
    server.servicer.numerics_of_call = lambda call: NUMERICS if call == 0 else "numerics-b"
    arguments = ("generate", "--seed", 1, "--count", 8, "--no-progress", "--out", tmp_path / "set")
    assert run(*arguments) == 1
    assert run(*arguments, "--resume") == 1
    assert "another engine" in run.err
    assert run(*arguments, "--resume", "--no-pin-numerics") == 0


def test_several_models_ask_for_a_choice(
    server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(server.address, capsys)
    server.servicer.num_models = 2
    assert run("generate", "--seed", 1, "--count", 1, "--out", tmp_path / "set") == 1
    assert "has the models scripted, scripted; choose one with --model" in run.err


@pytest.mark.parametrize("module", ["PIL.Image", "tqdm"])
def test_missing_package_names_the_extra_and_leaves_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(vars(_optional), module.rpartition(".")[2], raising=False)
    assert run("generate", "--seed", 1, "--count", 1, "--out", tmp_path / "set") == 1
    assert "pip install 'labelmint[cli]'" in run.err
    assert not (tmp_path / "set").exists()
    assert run("models") == 0


def test_interruption_says_how_to_go_on(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = 0
    write = DatasetWriter.write

    def interrupted(self: DatasetWriter, sample: Sample, next_index: int) -> None:
        nonlocal written
        written += 1
        if written == 3:
            raise KeyboardInterrupt
        write(self, sample, next_index)

    monkeypatch.setattr(DatasetWriter, "write", interrupted)
    assert run("generate", "--seed", 1, "--count", 5, "--out", tmp_path / "set") == 130
    assert "interrupted" in run.err
    assert "--resume goes on" in run.err
    monkeypatch.undo()
    assert run("generate", "--seed", 1, "--count", 5, "--out", tmp_path / "set", "--resume") == 0


def test_search_that_gave_up_goes_on_where_it_stopped(run: Run, tmp_path: Path) -> None:
    """From 300 on the filter keeps 321, 376 and 512: between the last two lie more than may be scanned."""
    addresses = ("--seed", 1, "--start-index", 300, "--count", 3, "--max-uncertainty-quantile", 0.02)
    arguments = ("generate", *addresses, "--no-progress", "--out")
    assert run(*arguments, tmp_path / "whole") == 0
    assert [path.stem for path in sorted((tmp_path / "whole" / "images").iterdir())] == ["000321", "000376", "000512"]
    limited = (*arguments, tmp_path / "set", "--max-scanned", 80)
    assert run(*limited) == 1
    assert "the same command with --resume goes on" in run.err
    assert [run(*limited, "--resume") for _ in range(2)] == [1, 0]
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")


def test_search_that_found_nothing_leaves_nothing_and_says_where_to_go_on(run: Run, tmp_path: Path) -> None:
    arguments = ("generate", "--seed", 1, "--count", 1, "--max-uncertainty-quantile", 0.02, "--max-scanned", 80)
    assert run(*arguments, "--no-progress", "--out", tmp_path / "set") == 1
    assert "nothing was written; with --start-index 80" in run.err
    assert not (tmp_path / "set").exists()


def test_run_that_fails_while_it_searches_is_not_searched_anew(
    server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each message passes over four addresses, but for the first, which brings 0 and 1, and the last with 31."""
    run = Run(server.address, capsys)
    server.servicer.manifest.CopyFrom(scripted_manifest())
    server.servicer.rejects = lambda index: 1 < index < 31
    server.servicer.faults = [
        Fault(after_messages=number, code=grpc.StatusCode.INTERNAL, details="engine broke", detail=None)
        for number in (3, 2)
    ]
    arguments = ("generate", "--seed", 1, "--count", 3, "--max-uncertainty", 1, "--no-progress", "--out")
    statuses = [run(*arguments, tmp_path / "set", "--resume") for _ in range(3)]
    assert run(*arguments, tmp_path / "whole") == 0

    assert statuses == [1, 1, 0]
    assert [request.start_index for request in server.servicer.requests] == [0, 10, 18, 0]
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")
