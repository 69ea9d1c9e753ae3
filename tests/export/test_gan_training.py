"""Training: what a resumed one computes, what a saved one refuses, what a grown one starts with."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from labelmint_export.errors import CheckpointError, DatasetError, TrainingError
from labelmint_export.gan.curve import read_log, save_curve
from labelmint_export.gan.discriminator import Discriminator
from labelmint_export.gan.growing import load_networks, save_networks, start_from
from labelmint_export.gan.stages import picture_order
from labelmint_export.gan.state import TrainState, load_state, make_state, save_state
from labelmint_export.gan.trainer import Schedule, paint_many, train
from labelmint_export.generator import Generator
from labelmint_export.generator.snapshots import load_generator
from labelmint_export.pictures import open_pictures, paint, save_grid, to_range, to_uint8
from labelmint_export.stored import read_metadata, write_tensors
from tests.export.tiny_parts import (
    CHANNELS,
    make_config,
    make_generator,
    make_pictures,
    make_train_config,
    write_pictures,
)

CPU = torch.device("cpu")


def everything_of(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "state.safetensors")


def record_of(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(read_metadata(folder / "state.safetensors")["record"])
    return record


def write_state(folder: Path, tensors: dict[str, torch.Tensor], record: dict[str, Any]) -> None:
    write_tensors(folder / "state.safetensors", tensors, {"record": json.dumps(record)})


def fresh_state(compute_dtype: str = "float32", seed: int = 0) -> TrainState:
    """A state whose augmentation already happens, as it does later in a real training."""
    state = make_state(make_train_config(compute_dtype=compute_dtype, seed=seed), CPU)
    state.adaptive.p = 0.5
    return state


def run_until(state: TrainState, total: int, folder: Path, *, snapshot_images: int = 10_000) -> None:
    folder.mkdir(exist_ok=True)
    schedule = Schedule(total_images=total, snapshot_images=snapshot_images, state_images=12)
    train(state, make_pictures(11, 32), schedule, folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps of four pictures."""
    folder = tmp_path_factory.mktemp("trained")
    run_until(fresh_state(), 24, folder)
    return folder


def test_training_changes_every_weight_and_its_average(trained: Path) -> None:
    start = make_state(make_train_config(), CPU)
    tensors = everything_of(trained)
    for part, module in (("generator", start.generator), ("discriminator", start.discriminator), ("ema", start.ema)):
        for name, parameter in module.named_parameters():
            assert not torch.equal(tensors[f"{part}.{name}"], parameter), f"{part}.{name} did not move"
    assert int(tensors["step"]) == 6
    assert record_of(trained)["adaptive"]["p"] not in (0.0, 0.5)


@pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
def test_resumed_training_is_bit_identical_to_an_uninterrupted_one(tmp_path: Path, compute_dtype: str) -> None:
    """Interrupted at every third step, with a measurement in between that draws random numbers."""
    run_until(fresh_state(compute_dtype), 36, tmp_path / "whole")

    run_until(fresh_state(compute_dtype), 12, tmp_path / "parts")
    for total in (24, 36):
        torch.manual_seed(999)
        torch.randn(17)
        state = load_state(tmp_path / "parts", CPU)
        run_until(state, total, tmp_path / "parts", snapshot_images=4)

    whole, parts = everything_of(tmp_path / "whole"), everything_of(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert {name.split(".")[0] for name in whole} == {
        "generator", "discriminator", "ema", "generator_optimizer", "discriminator_optimizer", "path_length_mean",
        "random", "step",
    }  # fmt: skip
    for name, tensor in whole.items():
        assert torch.equal(tensor, parts[name]), name
    assert record_of(tmp_path / "whole") == record_of(tmp_path / "parts")


def test_training_goes_on_bit_for_bit_in_another_process(trained: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path, 11, 32)
    shutil.copytree(trained, tmp_path / "run")
    script = (
        "import sys, torch; from pathlib import Path\n"
        "from labelmint_export.pictures import open_pictures\n"
        "from labelmint_export.gan.state import load_state\n"
        "from labelmint_export.gan.trainer import Schedule, train\n"
        "torch.set_num_threads(1)\n"
        "folder = Path(sys.argv[1])\n"
        "state = load_state(folder / 'run', torch.device('cpu'))\n"
        "train(state, open_pictures(folder / 'pictures.npy'), Schedule(total_images=36), folder / 'run')\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=300, capture_output=True)
    run_until(fresh_state(), 36, tmp_path / "whole")
    whole, run = everything_of(tmp_path / "whole"), everything_of(tmp_path / "run")
    assert [name for name, tensor in whole.items() if not torch.equal(tensor, run[name])] == []


def test_finished_training_does_nothing_more(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    before = (tmp_path / "run" / "state.safetensors").read_bytes()
    run_until(load_state(tmp_path / "run", CPU), 24, tmp_path / "run")
    assert (tmp_path / "run" / "state.safetensors").read_bytes() == before


def test_other_seed_gives_another_training(tmp_path: Path, trained: Path) -> None:
    run_until(fresh_state(seed=1), 24, tmp_path / "other")
    assert not torch.equal(
        everything_of(tmp_path / "other")["ema.mapping.layers.0.weight"],
        everything_of(trained)["ema.mapping.layers.0.weight"],
    )


def test_training_leaves_snapshot_log_and_grid(trained: Path) -> None:
    generator = load_generator(trained / "generator.safetensors")
    averaged = {k.removeprefix("ema."): v for k, v in everything_of(trained).items() if k.startswith("ema.")}
    for name, tensor in generator.state_dict().items():
        assert torch.equal(tensor, averaged[name]), name
    (line,) = (trained / "log.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert record["images"] == 24
    assert {"generator_loss", "discriminator_loss", "path_length", "r1", "sign_real", "ada_p"} <= record.keys()
    assert (trained / "grid-00000024.png").is_file()


def test_time_limit_ends_the_training_with_its_state_written(tmp_path: Path) -> None:
    state = make_state(make_train_config(), CPU)
    train(state, make_pictures(11, 32), Schedule(total_images=10**6, max_seconds=0.0), tmp_path)
    assert load_state(tmp_path, CPU).images_seen == 4


def test_evaluation_is_logged_and_does_not_change_the_numbers(trained: Path, tmp_path: Path) -> None:
    def evaluate(generator: Generator) -> dict[str, float]:
        return {"frechet": float(torch.rand(100).sum())}

    state = fresh_state()
    train(state, make_pictures(11, 32), Schedule(total_images=24, snapshot_images=8), tmp_path, evaluate)
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [record["images"] for record in records] == [8, 16, 24]
    assert all(record["frechet"] > 0 for record in records)
    expected, got = everything_of(trained), everything_of(tmp_path)
    assert [name for name, tensor in expected.items() if not torch.equal(tensor, got[name])] == []


def first_weight(generator: Generator) -> torch.Tensor:
    weights: dict[str, torch.Tensor] = generator.mapping.state_dict()
    return weights["layers.0.weight"]


def test_averaged_generator_follows_with_its_half_life(tmp_path: Path) -> None:
    config = dataclasses.replace(make_train_config(), ema_images=8, ema_rampup=1e9)
    state = make_state(config, CPU)
    first = first_weight(state.ema).clone()
    train(state, make_pictures(4, 16), Schedule(total_images=4), tmp_path)
    current = first_weight(state.generator)
    # Four pictures are half of the half-life: what was keeps the share 0.5 ** 0.5.
    expected = current + (first - current) * 0.5**0.5
    torch.testing.assert_close(first_weight(state.ema), expected)


# --- states that do not fit -------------------------------------------------------------------------------------------


def edit_record(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    record = record_of(folder)
    change(record)
    write_state(folder, everything_of(folder), record)


def move_record_out(folder: Path) -> None:
    """Lay the state out as earlier versions did: settings and counters in a file of their own."""
    (folder / "state.json").write_text(json.dumps(record_of(folder)))
    safetensors.torch.save_file(everything_of(folder), folder / "state.safetensors")


def test_interruption_between_any_two_writes_leaves_a_state(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of the renames is the last one, the training goes on from before or after it."""
    shutil.copytree(trained, tmp_path / "run")
    renamed = Path.replace
    for writes in itertools.count():
        state = load_state(tmp_path / "run", CPU)
        state.step += 1
        left = iter(range(writes))

        def replace(path: Path, target: Path, left: Iterator[int] = left) -> Path:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return renamed(path, target)

        with monkeypatch.context() as patched, contextlib.suppress(KeyboardInterrupt):
            patched.setattr(Path, "replace", replace)
            save_state(state, tmp_path / "run")
        found = load_state(tmp_path / "run", CPU).step
        assert found in (state.step - 1, state.step)
        if found == state.step:
            break


def test_state_of_two_files_goes_on(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    move_record_out(tmp_path / "run")
    run_until(load_state(tmp_path / "run", CPU), 36, tmp_path / "run")
    run_until(load_state(trained, CPU), 36, tmp_path / "whole")
    whole, run = everything_of(tmp_path / "whole"), everything_of(tmp_path / "run")
    assert [name for name, tensor in whole.items() if not torch.equal(tensor, run[name])] == []
    assert not (tmp_path / "run" / "state.json").exists()


def test_two_files_of_different_steps_are_noticed(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    edit_record(tmp_path / "run", lambda record: record.update(step=3))
    move_record_out(tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"tensors of step 6 and settings of step 3.*cut off") as caught:
        load_state(tmp_path / "run", CPU)
    assert caught.value.field == "step"


def test_truncated_or_missing_state_is_refused(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    path = tmp_path / "run" / "state.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match=r"state\.safetensors"):
        load_state(tmp_path / "run", CPU)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"run holds no state\.safetensors"):
        load_state(tmp_path / "run", CPU)


def test_training_with_another_set_is_refused(trained: Path, tmp_path: Path) -> None:
    for others in (make_pictures(12, 32), make_pictures(11, 16), 255 - make_pictures(11, 32)):
        state = load_state(trained, CPU)
        with pytest.raises(DatasetError, match="the training began with another set") as caught:
            train(state, others, Schedule(total_images=36), tmp_path)
        assert caught.value.field == "pictures"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_diverged_training_leaves_what_was_written(trained: Path, tmp_path: Path, network: str) -> None:
    shutil.copytree(trained, tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    state = load_state(tmp_path / "run", CPU)
    with torch.no_grad():
        next(getattr(state, network).parameters()).fill_(torch.nan)
    with pytest.raises(TrainingError, match="is nan, expected a finite number: the training has diverged"):
        run_until(state, 28, tmp_path / "run")
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_weights_that_diverge_in_the_last_step_are_not_written(tmp_path: Path) -> None:
    """The losses of that step are still finite."""
    state = make_state(dataclasses.replace(make_train_config(), r1_gamma=0.0, path_length_weight=0.0), CPU)
    run_until(state, 4, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for group in state.discriminator_optimizer.param_groups:
        group["lr"] = math.inf
    with pytest.raises(TrainingError, match=r"b16\.\S+ is nan, expected a finite number: the training has diverged"):
        run_until(state, 8, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_resumed_training_mends_its_log(tmp_path: Path) -> None:
    """Killed behind a line that its state does not know, in the middle of another."""
    run_until(fresh_state(), 24, tmp_path / "run", snapshot_images=12)
    log = tmp_path / "run" / "log.jsonl"
    whole = log.read_text()
    log.write_text(f'{whole}{json.dumps({"images": 28.0, "resolution": 16.0})}\n{{"images": 32.0, "resol')
    run_until(load_state(tmp_path / "run", CPU), 36, tmp_path / "run", snapshot_images=12)
    assert [record["images"] for record in read_log(log)] == [12, 24, 36]
    assert log.read_text().startswith(whole)


def test_line_under_way_is_left_out_of_a_curve(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"images": 8, "resolution": 16}\n{"images": 16, "res')
    assert [record["images"] for record in read_log(path)] == [8]


def test_single_distance_is_no_course(tmp_path: Path) -> None:
    bare = [{"images": 1000.0 * n, "resolution": 16.0, "reconstruction": 1.0 / n} for n in range(1, 4)]
    drawn = []
    for distances in (0, 1, 2):
        records = [record | ({"frechet": 0.5} if n < distances else {}) for n, record in enumerate(bare)]
        save_curve([records], tmp_path / "curve.png")
        drawn.append((tmp_path / "curve.png").read_bytes())
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.pop("path_length_mean"),
        lambda t: t.pop("random.cpu"),
        lambda t: t.update({"random.cpu": torch.zeros(3)}),
        lambda t: t.pop("generator_optimizer.0.exp_avg"),
        lambda t: t.pop("discriminator_optimizer.2.step"),
        lambda t: t.update({"generator_optimizer.0.exp_avg_sq": torch.zeros(2)}),
        lambda t: t.update({"generator_optimizer.999.exp_avg": torch.zeros(2)}),
        lambda t: t["discriminator_optimizer.0.exp_avg_sq"].fill_(torch.nan),
        lambda t: t.pop("ema.mapping.w_avg"),
        lambda t: t.update({"step": torch.zeros(2)}),
    ],
)
def test_altered_tensors_of_a_state_are_refused(
    trained: Path, tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], None]
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    tensors = everything_of(tmp_path / "run")
    change(tensors)
    write_state(tmp_path / "run", tensors, record_of(tmp_path / "run"))
    with pytest.raises(CheckpointError) as caught:
        load_state(tmp_path / "run", CPU)
    assert caught.value.field


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.update(format="?"),
        lambda r: r.pop("config"),
        lambda r: r["config"].pop("generator"),
        lambda r: r["config"].update(batch_size=0),
        lambda r: r["config"].update(compute_dtype="int8"),
        lambda r: r["config"].update(surprise=1),
        lambda r: r["config"]["generator"].update(w_dim=11),
        lambda r: r.pop("adaptive"),
        lambda r: r["adaptive"].update(p="high"),
        lambda r: r.pop("images_before"),
    ],
)
def test_altered_record_of_a_state_is_refused(
    trained: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    edit_record(tmp_path / "run", change)
    with pytest.raises(CheckpointError) as caught:
        load_state(tmp_path / "run", CPU)
    assert caught.value.field


def test_settings_are_read_back_exactly(trained: Path) -> None:
    assert load_state(trained, CPU).config == make_train_config()


def test_state_of_step_zero_is_read_back(tmp_path: Path) -> None:
    state = make_state(make_train_config(), CPU)
    expected = torch.get_rng_state()
    save_state(state, tmp_path)
    torch.randn(5)
    loaded = load_state(tmp_path, CPU)
    assert loaded.step == 0
    assert torch.equal(torch.get_rng_state(), expected)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_size", 0),
        ("r1_interval", 0),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("r1_gamma", -1.0),
        ("style_mixing", float("nan")),
        ("style_mixing", 1.5),
        ("w_avg_beta", -0.1),
        ("w_avg_beta", float("nan")),
        ("ada_target", 1.1),
        ("seed", -1),
        ("seed", 2**64),
        ("compute_dtype", "float64"),
        ("discriminator_channels", {4: 8, 16: 8}),
    ],
)
def test_settings_out_of_range_are_refused(field: str, value: object) -> None:
    changes: dict[str, Any] = {field: value}  # Any: fields of every type
    with pytest.raises(TrainingError, match=field) as caught:
        dataclasses.replace(make_train_config(), **changes)
    assert caught.value.field == field


@pytest.mark.parametrize("change", [{"c_dim": 3}, {"image_channels": 1}])
def test_generator_that_pictures_cannot_teach_is_refused(change: dict[str, Any]) -> None:
    config = make_train_config()
    with pytest.raises(TrainingError, match=r"; the pictures|: pictures come") as caught:
        dataclasses.replace(config, generator=dataclasses.replace(config.generator, **change))
    assert [caught.value.field] == list(change)


@pytest.mark.parametrize(
    "change", [{"total_images": 0}, {"snapshot_images": 0}, {"state_images": -1}, {"max_seconds": -1}]
)
def test_schedule_out_of_range_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(TrainingError) as caught:
        Schedule(**({"total_images": 8} | change))
    assert [caught.value.field] == list(change)


# --- growing ----------------------------------------------------------------------------------------------------------


def grown_from(trained: Path) -> tuple[TrainState, TrainState]:
    grown = start_from(trained, make_train_config(32, seed=3), CPU)
    return load_state(trained, CPU), grown


@pytest.mark.parametrize("part", ["generator", "ema"])
def test_grown_generator_paints_the_old_picture_upsampled(trained: Path, part: str) -> None:
    old, grown = grown_from(trained)
    before: Generator = getattr(old, part)
    after: Generator = getattr(grown, part)
    z = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        small, large = before(z).image, after(z).image
        line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
        kernel = torch.outer(line, line).expand(3, 1, 4, 4)
        spread = torch.nn.functional.conv_transpose2d(small, kernel, stride=2, padding=1, groups=3)
    assert large.shape == (3, 3, 32, 32)
    torch.testing.assert_close(large, spread, rtol=0, atol=1e-5)
    for name, tap in before(z).taps.items():
        torch.testing.assert_close(after(z).taps[name], tap, rtol=0, atol=1e-6)


def test_grown_discriminator_judges_as_the_old_one_judged_the_halved_picture(trained: Path) -> None:
    old, grown = grown_from(trained)
    image = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    kernel = torch.outer(line, line).expand(3, 1, 4, 4)
    halved = torch.nn.functional.conv2d(image, kernel, stride=2, padding=1, groups=3)
    with torch.no_grad():
        torch.testing.assert_close(grown.discriminator(image), old.discriminator(halved), rtol=0, atol=1e-5)


def test_grown_training_counts_on_and_trains_its_new_layers(trained: Path, tmp_path: Path) -> None:
    _, grown = grown_from(trained)
    assert (grown.step, grown.images_before) == (0, 24)
    start = {name: p.detach().clone() for name, p in grown.generator.named_parameters()}
    # Two steps: at first the new colours alone have a gradient, everything behind them follows.
    run_until(grown, 12, tmp_path)
    moved = {name for name, p in grown.generator.named_parameters() if not torch.equal(p, start[name])}
    assert moved == start.keys()
    assert json.loads((tmp_path / "log.jsonl").read_text())["images"] == 36


def test_grown_training_is_reproducible(trained: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        torch.randn(3)
        run_until(start_from(trained, make_train_config(32), CPU), 8, tmp_path / name)
    a, b = everything_of(tmp_path / "a"), everything_of(tmp_path / "b")
    assert [name for name, tensor in a.items() if not torch.equal(tensor, b[name])] == []


def test_training_does_not_shrink(trained: Path, tmp_path: Path) -> None:
    run_until(start_from(trained, make_train_config(32), CPU), 4, tmp_path)
    with pytest.raises(CheckpointError, match="resolution 32, expected at most 16") as caught:
        start_from(tmp_path, make_train_config(16), CPU)
    assert caught.value.field == "resolution"


def test_kept_networks_start_a_training_where_the_other_stood(trained: Path, tmp_path: Path) -> None:
    save_networks(load_networks(trained), tmp_path / "kept")
    sizes = [
        sum(path.stat().st_size for path in folder.glob("*.safetensors")) for folder in (tmp_path / "kept", trained)
    ]
    assert sizes[0] < sizes[1] / 4
    state, old = start_from(tmp_path / "kept", make_train_config(16), CPU), load_state(trained, CPU)
    assert (state.step, state.images_before) == (0, old.images_before + old.images_seen)
    assert float(state.path_length_mean) == float(old.path_length_mean)
    for name in ("generator", "ema", "discriminator"):
        expected = getattr(old, name).state_dict()
        for key, tensor in getattr(state, name).state_dict().items():
            torch.testing.assert_close(tensor, expected[key].half().float(), rtol=0, atol=0)
    (tmp_path / "on").mkdir(exist_ok=True)
    run_until(state, 4, tmp_path / "on")
    assert json.loads((tmp_path / "on" / "log.jsonl").read_text())["images"] == old.images_before + old.images_seen + 4


def test_kept_networks_that_were_altered_are_refused(trained: Path, tmp_path: Path) -> None:
    save_networks(load_networks(trained), tmp_path)
    record = json.loads((tmp_path / "networks.json").read_text())
    del record["images"]
    (tmp_path / "networks.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="lacks a number") as caught:
        load_networks(tmp_path)
    assert caught.value.field == "images"


def test_training_of_other_widths_does_not_grow(trained: Path) -> None:
    config = make_train_config(32)
    wider = dataclasses.replace(config.generator, channels=CHANNELS | {8: 9})
    with pytest.raises(CheckpointError, match="does not fit the new settings"):
        start_from(trained, dataclasses.replace(config, generator=wider), CPU)


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_every_epoch_is_another_permutation() -> None:
    order = list(itertools.islice(picture_order(7, 13, 0), 39))
    epochs = [order[start : start + 13] for start in (0, 13, 26)]
    assert all(sorted(epoch) == list(range(13)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert list(itertools.islice(picture_order(8, 13, 0), 13)) != epochs[0]


@pytest.mark.parametrize("start", [0, 1, 12, 13, 14, 30])
def test_order_goes_on_from_any_start(start: int) -> None:
    whole = list(itertools.islice(picture_order(7, 13, 0), 60))
    assert list(itertools.islice(picture_order(7, 13, start), 20)) == whole[start : start + 20]


def test_pixels_to_range_and_back() -> None:
    pictures = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    x = to_range(pictures, 16, CPU)
    assert (float(x.min()), float(x.max())) == (-1.0, 1.0)
    assert np.array_equal(to_uint8(x), pictures)


def test_larger_pictures_are_averaged_down() -> None:
    pictures = np.zeros((1, 4, 4, 3), np.uint8)
    pictures[0, :2, :2] = [[[255] * 3, [0] * 3], [[0] * 3, [255] * 3]]
    x = to_range(pictures, 2, CPU)
    assert x[0, 0].tolist() == [[0.0, -1.0], [-1.0, -1.0]]


def test_colours_out_of_range_are_clamped_and_rounded_down() -> None:
    image = torch.tensor([-9.0, -1.0, -0.001, 0.0, 0.9999, 9.0]).view(1, 1, 1, 6)
    assert to_uint8(image)[0, 0, :, 0].tolist() == [0, 0, 127, 128, 255, 255]
    assert to_uint8(image).shape == (1, 1, 6, 3)


def test_pictures_are_painted_one_at_a_time() -> None:
    """Whoever asks for hundreds has not the memory for all of their feature maps."""
    generator = make_generator()
    counts: list[int] = []
    generator.synthesis.register_forward_pre_hook(lambda _, given: counts.append(len(given[0])))
    ws = generator.mapping(torch.randn(5, 8, generator=torch.Generator().manual_seed(0)))
    painted = paint(generator, ws)
    assert counts == [1] * 5
    together = to_uint8(generator.synthesis(ws).image)
    assert np.abs(painted.astype(int) - together).max() <= 1


def test_grid_lays_pictures_out_row_by_row(tmp_path: Path) -> None:
    pictures = np.stack([np.full((2, 2, 3), i * 10, np.uint8) for i in range(6)])
    save_grid(pictures, 3, tmp_path / "grid.png")
    sheet = np.asarray(Image.open(tmp_path / "grid.png"))
    assert sheet.shape == (4, 6, 3)
    assert sheet[::2, ::2, 0].tolist() == [[0, 10, 20], [30, 40, 50]]


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((2, 8, 4, 3), np.uint8),
        np.zeros((2, 8, 8, 1), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
        np.zeros(8, np.uint8),
        np.array([{}], dtype=object),
    ],
)
def test_file_of_other_arrays_is_refused(tmp_path: Path, array: np.ndarray[Any, Any]) -> None:
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    with pytest.raises(DatasetError, match=r"x\.npy") as caught:
        open_pictures(tmp_path / "x.npy")
    assert caught.value.field == "pictures"


@pytest.mark.parametrize("content", [None, b"", b"no array", b"\x93NUMPY\x01\x00"])
def test_file_that_is_no_array_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(DatasetError) as caught:
        open_pictures(tmp_path / "x.npy")
    assert caught.value.field == "pictures"


def test_pictures_of_an_odd_size_are_refused(tmp_path: Path) -> None:
    state = make_state(make_train_config(), CPU)
    with pytest.raises(DatasetError, match="24 pixels wide, expected a multiple of 16"):
        train(state, make_pictures(3, 24), Schedule(total_images=8), tmp_path)


def test_fixed_latents_do_not_depend_on_the_count() -> None:
    generator = Generator(make_config(c_dim=2)).eval()
    assert np.array_equal(paint_many(generator, 25)[:7], paint_many(generator, 7))


def test_discriminator_of_a_lower_resolution_is_a_part_of_a_higher_one() -> None:
    low, high = make_config(16), make_config(32)
    names = Discriminator(low, low.channels).state_dict().keys()
    assert names < Discriminator(high, high.channels).state_dict().keys()
