"""Which pictures are chosen to be annotated, on random generators and on the embedded one."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import torch

from labelmint.addresses import latents
from labelmint_export.annotations import AnnotatedSet, read_annotations, read_pictures
from labelmint_export.cli import main
from labelmint_export.errors import AnnotationError, GeneratorError
from labelmint_export.generator import Generator
from labelmint_export.generator.snapshots import load_generator, save_generator
from labelmint_export.interpreter.choosing import choose, look_at, score_latents, shrink_pictures
from labelmint_export.interpreter.diversity import pick_diverse, pick_farthest, pick_uncertain
from labelmint_export.interpreter.ensemble import Interpreter, InterpreterConfig
from labelmint_export.interpreter.storage import load_interpreter, save_interpreter
from labelmint_export.interpreter.training import InterpreterTraining, train_interpreter
from tests.export.plain_interpreter import plain_labels
from tests.export.tiny_parts import make_annotated, make_generator, make_interpreter

EMBEDDED = Path(__file__).parents[2] / "export" / "toonhead"


def draw(generator: Generator, seed: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    z = torch.from_numpy(latents(seed, np.arange(count, dtype=np.uint64), generator.config.z_dim))
    return z, generator.mapping(z)


def plain_scores(generator: Generator, interpreter: Interpreter, ws: torch.Tensor) -> torch.Tensor:
    """Mean of the largest tenth of the divergences of the plain algorithm, in float64."""
    scores = []
    for one in ws:
        divergence = plain_labels(interpreter, generator.synthesis(one[None]).taps, "majority").uncertainty_map
        ordered = np.sort(divergence.numpy().ravel())
        scores.append(ordered[-(ordered.size // 10) :].mean())
    return torch.tensor(np.array(scores))


# --- picking points ---------------------------------------------------------------------------------------------------


def test_heavy_points_are_served_first() -> None:
    w = torch.tensor([[0.0], [0.1], [0.2], [0.3], [9.0]])
    assert pick_diverse(w, 1).tolist() == [2]
    assert pick_diverse(w, 1, weights=torch.tensor([1.0, 1.0, 1.0, 1.0, 99.0])).tolist() == [4]


def test_what_is_covered_is_not_picked_again() -> None:
    w = torch.tensor([[0.0], [0.1], [0.2], [0.3], [0.4], [9.0]])
    assert pick_diverse(w, 1, covered=torch.tensor([[0.2]])).tolist() == [5]
    assert pick_diverse(w, 1, covered=torch.tensor([[9.1]])).tolist() == [2]


def test_uncertain_points_are_picked_apart_from_each_other() -> None:
    """Two clusters score high, one of them highest: one point of each is picked, and none of the quiet ones."""
    random = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0]] * 10 + [[9.0, 0.0]] * 10 + [[0.0, 9.0]] * 60)
    w = centres + 0.1 * torch.randn(80, 2, generator=random)
    scores = torch.tensor([1.0] * 10 + [0.6] * 10 + [0.2] * 60)
    picked = pick_uncertain(w, scores, 2).tolist()
    assert sorted(index // 10 for index in picked) == [0, 1]
    assert pick_uncertain(w, scores, 1, covered=w[:1]).item() // 10 == 1
    assert len(set(pick_uncertain(w, scores, 40).tolist())) == 40
    assert len(set(pick_uncertain(w, torch.zeros(80), 5).tolist())) == 5


def test_farthest_points_are_the_corners_and_what_is_covered_is_left_out() -> None:
    w = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 4.0], [1.0, 1.0], [0.9, 1.1], [5.0, 4.0]])
    assert pick_farthest(w, 4).tolist() == [3, 5, 1, 2]  # the middle, then 5, 4 and 3.2 away from the nearest
    assert pick_farthest(w, 2, covered=torch.tensor([[5.0, 0.0], [0.0, 3.5]])).tolist() == [5, 0]
    assert sorted(pick_farthest(torch.zeros(5, 2), 5).tolist()) == list(range(5))


def test_small_copies_are_means_of_fields() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (2, 64, 32, 3)).astype(np.uint8)
    got = shrink_pictures(pictures).reshape(2, 3, 16, 16)
    np.testing.assert_allclose(got[1, 2, 5, 3], pictures[1, 20:24, 6:8, 2].mean(), rtol=1e-6)


# --- scores and choice ------------------------------------------------------------------------------------------------


def test_score_is_that_of_the_definition(generator: Generator, interpreter: Interpreter) -> None:
    _, ws = draw(generator, 3, 6)
    scores = score_latents(generator, interpreter, ws)
    torch.testing.assert_close(scores.double(), plain_scores(generator, interpreter, ws), rtol=1e-3, atol=1e-5)


def test_annotated_pictures_are_not_chosen(generator: Generator, interpreter: Interpreter) -> None:
    """The same address at another truncation is the same picture for a person."""
    z, ws = draw(generator, 4, 8)
    annotated = make_annotated(generator, 3, seed=4)
    truncated = generator.mapping(z, None, 0.7)
    for candidates in (ws, truncated):
        for chosen in (
            choose(generator, z, candidates, 5, [annotated]),
            choose(generator, z, candidates, 5, [annotated], interpreter),
            choose(generator, z, candidates, 5, [annotated], diverse=True),
        ):
            assert sorted(chosen.z[:, 0].tolist()) == sorted(z[3:, 0].tolist())
    elsewhere = dataclasses.replace(annotated, z=annotated.z + 1)
    assert sorted(choose(generator, z, ws, 5, [elsewhere]).z[:, 0].tolist()) == sorted(z[3:, 0].tolist())
    with pytest.raises(AnnotationError, match="5 of 8 candidates are not annotated yet, expected at least 6") as caught:
        choose(generator, z, ws, 6, [annotated])
    assert caught.value.field == "candidates"


def test_latents_stay_with_their_scores(generator: Generator, interpreter: Interpreter) -> None:
    z, ws = draw(generator, 5, 20)
    chosen = choose(generator, z, ws, 4, interpreter=interpreter)
    assert chosen.scores is not None
    assert chosen.pool_scores is not None
    torch.testing.assert_close(chosen.ws, generator.mapping(chosen.z))
    torch.testing.assert_close(score_latents(generator, interpreter, chosen.ws), chosen.scores, rtol=1e-3, atol=1e-5)
    assert float(chosen.scores.min()) >= float(chosen.pool_scores.quantile(0.7))


def test_sets_and_interpreters_of_other_generators_are_refused(generator: Generator) -> None:
    z, ws = draw(generator, 5, 4)
    other = make_generator(32)
    with pytest.raises(AnnotationError, match="they belong to another generator"):
        choose(generator, z, ws, 2, [make_annotated(other)])
    stranger = make_interpreter(other.tap_specs, 32)
    with pytest.raises(GeneratorError, match=r"reads b32\.conv0 with 5 channels at 32") as caught:
        choose(generator, z, ws, 2, interpreter=stranger)
    assert caught.value.field == "taps"


def test_command_leaves_out_what_is_annotated(
    generator: Generator, interpreter: Interpreter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_generator(generator, tmp_path / "g.safetensors")
    save_interpreter(interpreter, tmp_path / "i.safetensors", {})

    def sample(out: str, *options: object) -> AnnotatedSet:
        arguments = [
            "sample",
            "--generator",
            tmp_path / "g.safetensors",
            "--classes",
            "a",
            "b",
            "--out",
            tmp_path / out,
        ]
        assert main([str(argument) for argument in [*arguments, *options]]) == 0
        return read_pictures(tmp_path / out)

    first = sample("first", "--count", 3)
    more = ["--count", 4, "--candidates", 12, "--annotated", tmp_path / "first"]
    second = sample("second", "--uncertain", tmp_path / "i.safetensors", *more)
    printed = capsys.readouterr().out
    assert "the median of the 9 candidates is" in printed
    assert not {*first.z[:, 0].tolist()} & {*second.z[:, 0].tolist()}
    third = sample("third", *more, "--annotated", tmp_path / "first", tmp_path / "second")
    assert not {*first.z[:, 0].tolist(), *second.z[:, 0].tolist()} & {*third.z[:, 0].tolist()}
    with contextlib.redirect_stderr(io.StringIO()), pytest.raises(SystemExit):
        sample("fourth", "--diverse", "--uncertain", tmp_path / "i.safetensors")


def test_picked_pictures_are_those_with_the_numbers(generator: Generator, tmp_path: Path) -> None:
    save_generator(generator, tmp_path / "g.safetensors")
    sample = ["sample", "--generator", str(tmp_path / "g.safetensors"), "--classes", "a", "b", "--seed", "3"]
    assert main([*sample, "--out", str(tmp_path / "all"), "--count", "6"]) == 0
    assert main([*sample, "--out", str(tmp_path / "picked"), "--pick", "4", "0", "5"]) == 0

    everything, picked = read_pictures(tmp_path / "all"), read_pictures(tmp_path / "picked")
    assert torch.equal(picked.z, everything.z[[4, 0, 5]])
    np.testing.assert_array_equal(picked.pictures, everything.pictures[[4, 0, 5]])
    assert (tmp_path / "all" / "04.png").read_bytes() == (tmp_path / "picked" / "00.png").read_bytes()


# --- the embedded model -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def embedded() -> Generator:
    return load_generator(EMBEDDED / "generator.safetensors")


def test_diverse_pictures_of_the_embedded_model_lie_apart(embedded: Generator) -> None:
    """Less room is left around any other picture than by the first sixteen, and they are farther from each other."""
    z, ws = draw(embedded, 7, 80)
    looks = look_at(embedded, ws)
    chosen = choose(embedded, z, ws, 16, diverse=True)
    picked = [int((z == one).all(dim=1).nonzero()) for one in chosen.z]
    reach = [float(torch.cdist(looks, looks[some]).amin(dim=1).max()) for some in (picked, list(range(16)))]
    apart = [float(torch.cdist(looks[some], looks[some]).fill_diagonal_(9e9).min()) for some in (picked, range(16))]
    assert reach[0] < reach[1]
    assert apart[0] > 1.5 * apart[1]


def train_on(generator: Generator, annotated: AnnotatedSet, keep: slice) -> Interpreter:
    """A small interpreter that learns from some of the pictures."""
    part = dataclasses.replace(
        annotated,
        **{name: getattr(annotated, name)[keep] for name in ("pictures", "masks", "keypoints", "z", "ws", "names")},
    )
    config = InterpreterConfig(
        taps=generator.tap_specs,
        label_resolution=128,
        num_classes=len(annotated.schema.class_names),
        num_members=4,
        hidden_widths=(32, 16),
        num_keypoints=0,
    )
    return train_interpreter(generator, part, config, InterpreterTraining(max_steps=150, pixels_per_member=128))


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.parametrize(("keep", "held"), [(slice(0, 8), slice(8, 16)), (slice(8, 16), slice(0, 8))])
def test_uncertain_pixels_of_the_embedded_model_are_those_it_labels_wrong(
    embedded: Generator, keep: slice, held: slice
) -> None:
    """An interpreter of eight pictures is judged on the other eight; the oracle's masks are the truth.

    The score of a picture is the mean of its most uncertain tenth: most errors have to lie there.
    """
    annotated = read_annotations(EMBEDDED / "annotations")
    caught, wrong_pixels = 0, 0
    interpreter = train_on(embedded, annotated, keep)
    for one, mask in zip(annotated.ws[held], annotated.masks[held], strict=True):
        output = plain_labels(interpreter, embedded.synthesis(one[None]).taps, "majority")
        uncertainty = output.uncertainty_map.numpy()[0]
        wrong = output.label.numpy()[0] != mask
        caught += int((wrong & (uncertainty >= np.quantile(uncertainty, 0.9))).sum())
        wrong_pixels += int(wrong.sum())
    z, ws = draw(embedded, 11, 24)
    known = [dataclasses.replace(annotated, z=z[:2], ws=ws[:2])]
    chosen = choose(embedded, z, ws, 4, known, interpreter)
    assert chosen.scores is not None
    torch.testing.assert_close(
        chosen.scores[:2].double(), plain_scores(embedded, interpreter, chosen.ws[:2]), rtol=5e-3, atol=1e-5
    )
    again = score_latents(embedded, interpreter, ws[2:])
    assert float(chosen.scores.min()) >= float(again.sort(descending=True).values[5]) - 1e-6
    assert not {*chosen.z[:, 0].tolist()} & {*z[:2, 0].tolist()}
    assert caught > 0.5 * wrong_pixels > 0


def test_oracle_labels_the_pictures_that_an_interpreter_is_unsure_of(embedded: Generator, tmp_path: Path) -> None:
    options = ["--count", 2, "--candidates", 4, "--seed", 6, "--annotated", EMBEDDED / "annotations"]
    options += ["--uncertain", EMBEDDED / "interpreter.safetensors", "--oracle", EMBEDDED / "oracle.safetensors"]
    arguments = ["label", "--generator", EMBEDDED / "generator.safetensors", "--out", tmp_path / "out", *options]
    assert main([str(argument) for argument in arguments]) == 0

    labelled = read_annotations(tmp_path / "out")
    known = read_annotations(EMBEDDED / "annotations")
    z, ws = draw(embedded, 6, 4)
    interpreter = load_interpreter(EMBEDDED / "interpreter.safetensors")
    chosen = choose(embedded, z, ws, 2, [known], interpreter)
    assert torch.equal(labelled.z, chosen.z)
    assert set(np.unique(labelled.masks)) > {0, 1}
