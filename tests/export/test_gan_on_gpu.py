"""What a training does on a GPU, as far as a processor can show it: batches, and that no step waits for a number.

The device `meta` has shapes and no numbers, so that reading one from it is an error, as is mixing it with others.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from labelmint_export.errors import DatasetError, TrainingError
from labelmint_export.gan.codes import make_codes
from labelmint_export.gan.config import TrainConfig
from labelmint_export.gan.curve import read_log
from labelmint_export.gan.feeding import Feed
from labelmint_export.gan.frechet import features_of
from labelmint_export.gan.stages import Averages, Course
from labelmint_export.gan.state import TrainState, load_state, make_state
from labelmint_export.oracle.network import Segmenter, SegmenterConfig
from labelmint_export.pictures import to_range
from tests.export.tiny_parts import make_pictures
from tests.export.trainings import make_decoding_config, read_fitted, run_until

CPU, META = torch.device("cpu"), torch.device("meta")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")


def make_staged_config() -> TrainConfig:
    """Two steps of an autoencoder, five of codes, then a discriminator's."""
    return dataclasses.replace(make_decoding_config(), autoencoder_images=8, code_images=20, coded_pictures=10)


@pytest.mark.parametrize("side", [16, 32])
def test_set_that_moved_gives_the_batches_of_one_that_stayed(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelmint_export.gan.feeding._CHUNK", 3)
    pictures, chosen = make_pictures(11, side), [7, 0, 10]
    for resident in (False, True):
        feed = Feed(pictures, 16, CPU, resident=resident)
        got = feed.take(chosen, feed.place(chosen))
        assert torch.equal(got, to_range(pictures[chosen], 16, CPU))
        assert got.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("resident", [False, True])
def test_set_of_an_odd_size_is_refused_before_it_moves(resident: bool) -> None:
    with pytest.raises(DatasetError, match="24 pixels wide, expected a multiple of 16") as caught:
        Feed(make_pictures(3, 24), 16, META, resident=resident)
    assert caught.value.field == "pictures"


@pytest.mark.parametrize(("free", "moves"), [(4, True), (3, False)])
def test_set_moves_where_it_takes_a_quarter_of_the_free_memory(
    free: int, moves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = make_pictures(2, 16)
    moved = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free * pictures.nbytes, 0))
    monkeypatch.setattr("labelmint_export.gan.feeding._move", lambda *arguments: moved.append(arguments))
    Feed(pictures, 16, torch.device("cuda"))
    Feed(pictures, 16, CPU)
    assert len(moved) == moves


def test_no_step_waits_for_a_number() -> None:
    state = make_state(make_staged_config(), META)
    course = Course(state, make_pictures(11, 32))
    for _ in range(6):  # all but the last of the codes
        course.step()
    assert state.codes is not None
    assert {name: total.device for name, total in course.averages.sums.items()} == {
        "reconstruction": META,
        "divergence": META,
    }


def make_adversarial_course(**changes: Any) -> tuple[TrainState, Course]:  # Any: settings of every type
    """One whose every step does all that a step may do; its augmentation happens already."""
    config = dataclasses.replace(
        make_staged_config(), autoencoder_images=0, code_images=0, reconstruction_rate=0.5, path_length_interval=1
    )
    state = make_state(dataclasses.replace(config, **changes), META)
    state.adaptive.p = 0.5
    return state, Course(state, make_pictures(11, 32))


def test_adversarial_step_reads_nothing_but_what_adapts_the_augmentation() -> None:
    state, course = make_adversarial_course(ada_interval=3)
    for _ in range(2):
        course.step()
    assert course.averages.sums.keys() >= {"generator_loss", "discriminator_loss", "path_length", "r1"}
    assert state.adaptive.sign_count == 2 * 4
    assert isinstance(state.adaptive.sign_sum, torch.Tensor)
    assert state.adaptive.sign_sum.device == META
    with pytest.raises(RuntimeError, match=r"item\(\) cannot be called on meta tensors"):
        course.step()


def test_adversarial_step_reads_nothing_where_the_augmentation_is_off() -> None:
    _, course = make_adversarial_course(ada_interval=1, ada_target=0.0)
    for _ in range(3):
        course.step()
    assert course.averages.sums["sign_real"].device == META
    assert course.averages.counts["sign_real"] == 3


def test_values_that_were_not_looked_at_are_checked_before_anything_is_written() -> None:
    averages = Averages()
    with pytest.raises(TrainingError, match="r1 is inf, expected a finite number"):
        averages.add("r1", torch.tensor(math.inf))
    averages.add("r1", torch.tensor(1.0))
    averages.check()
    averages.sums["r1"] += math.nan  # as a GPU adds it
    with pytest.raises(TrainingError, match="r1 is nan, expected a finite number: the training has diverged"):
        averages.check()


def test_unchecked_values_keep_a_training_from_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(course: Course) -> None:
        course.averages.sums["reconstruction"] = torch.tensor(math.nan)
        course._state.step += 1

    monkeypatch.setattr(Course, "step", step)
    with pytest.raises(TrainingError, match="reconstruction is nan"):
        run_until(make_state(make_staged_config(), CPU), 8, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.gpu
@needs_gpu
def test_training_goes_through_its_stages_and_goes_on(tmp_path: Path) -> None:
    cuda = torch.device("cuda")
    run_until(make_state(make_staged_config(), cuda), 20, tmp_path)
    state = load_state(tmp_path, cuda)
    run_until(state, 40, tmp_path)
    assert read_fitted(state) is True
    assert (tmp_path / "generator.safetensors").exists()
    assert [record["images"] for record in read_log(tmp_path / "log.jsonl")] == list(range(4, 44, 4))


@pytest.mark.gpu
@needs_gpu
def test_codes_descend_as_on_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelmint_export.gan.codes.DEVIATION", 0.0)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    config = dataclasses.replace(make_staged_config(), autoencoder_images=0, compute_dtype="float32")
    start = torch.randn([8, 10], generator=torch.Generator().manual_seed(1))
    ends = []
    for device in (CPU, torch.device("cuda")):
        state = make_state(config, device)
        state.codes = make_codes(start.to(device), state.generator, config)
        course = Course(state, make_pictures(11, 32))
        for _ in range(4):
            course.step()
        ends.append((state.codes.w.cpu(), course.averages.take()["reconstruction"]))
    torch.testing.assert_close(ends[1][0], ends[0][0], rtol=0, atol=2e-2)
    assert ends[1][1] == pytest.approx(ends[0][1], rel=1e-2)


@pytest.mark.gpu
@needs_gpu
def test_features_are_those_of_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    network = Segmenter(SegmenterConfig(num_classes=3, num_keypoints=2, widths=(4, 8))).eval().requires_grad_(False)
    pictures = make_pictures(3, 32)
    expected = features_of(network, pictures, 32)
    np.testing.assert_allclose(features_of(network.to("cuda"), pictures, 32), expected, rtol=1e-3, atol=1e-4)
