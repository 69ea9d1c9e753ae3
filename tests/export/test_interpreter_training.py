"""Training of an interpreter: what it learns, that it is repeatable, and what it refuses."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from labelmint_export.errors import AnnotationError, TrainingError
from labelmint_export.generator import Generator, SynthesisOutput
from labelmint_export.interpreter.calibration import calibrate_visibility, peak_scores
from labelmint_export.interpreter.ensemble import Interpreter, InterpreterConfig
from labelmint_export.interpreter.features import FeaturePool, fill_pool
from labelmint_export.interpreter.fused import FusedInterpreter
from labelmint_export.interpreter.reference import interpret_reference
from labelmint_export.interpreter.training import InterpreterTraining, train_interpreter
from labelmint_export.metrics import confusion, iou_per_class, keypoint_scores, miou
from tests.export.painted_generator import (
    SCHEMA,
    SIDE,
    TAPS,
    PaintedGenerator,
    as_generator,
    draw_annotated,
    draw_ws,
    truth_of,
)
from tests.export.tiny_parts import make_annotated, make_generator, make_interpreter, make_taps, stack_taps

PAINTED = as_generator(PaintedGenerator())
CONFIG = InterpreterConfig(
    taps=TAPS,
    label_resolution=SIDE,
    num_classes=3,
    num_members=3,
    hidden_widths=(24, 12),
    num_keypoints=2,
    num_keypoint_members=2,
    keypoint_hidden_widths=(24, 12),
    sigma_pixels=2.0,
)
BRIEF = InterpreterTraining(max_steps=12, pixels_per_member=64, evaluate_steps=5, validation_pixels=128)


@pytest.fixture(scope="module")
def learned() -> Interpreter:
    settings = InterpreterTraining(max_steps=400, pixels_per_member=128, evaluate_steps=50, validation_pixels=512)
    return train_interpreter(PAINTED, draw_annotated(16, seed=0), CONFIG, settings)


def test_parts_and_points_of_unseen_pictures_are_found(learned: Interpreter) -> None:
    ws = draw_ws(30, seed=99)
    truth = truth_of(ws)
    output = FusedInterpreter(learned)(stack_taps(PAINTED.synthesis(ws).taps, TAPS))
    counts = confusion(output.label.numpy(), truth.masks, 3)
    assert miou(counts) > 0.9
    assert iou_per_class(counts).min() > 0.85
    assert output.keypoints is not None
    points = output.keypoints.numpy()
    scores = keypoint_scores(points[..., :2], points[..., 3] > 0.5, truth.keypoints, np.full(30, 15.0))
    assert scores.pck_at_0_1 > 0.95, "points lie within a pixel and a half"
    assert scores.visibility_accuracy > 0.95


def test_uncertainty_is_largest_along_the_edges(learned: Interpreter) -> None:
    ws = draw_ws(8, seed=7)
    masks = torch.from_numpy(truth_of(ws).masks).float()[:, None]
    spread = torch.nn.functional.max_pool2d(masks, 3, 1, 1) + torch.nn.functional.max_pool2d(-masks, 3, 1, 1)
    edge = spread[:, 0] > 0
    uncertainty = FusedInterpreter(learned)(stack_taps(PAINTED.synthesis(ws).taps, TAPS)).uncertainty_map
    assert float(uncertainty[edge].mean()) > 4 * float(uncertainty[~edge].mean())


def test_members_differ_from_each_other(learned: Interpreter) -> None:
    weight = learned.classifiers.linear1.weight
    assert all(not torch.allclose(weight[0], weight[m], atol=1e-3) for m in range(1, 3))


def test_trained_interpreter_is_in_evaluation_mode_without_gradients(learned: Interpreter) -> None:
    assert not learned.training
    assert not any(parameter.requires_grad for parameter in learned.parameters())


def test_same_seed_gives_the_same_interpreter_and_another_one_another() -> None:
    annotated = draw_annotated(5, seed=1)
    torch.manual_seed(5)
    first = train_interpreter(PAINTED, annotated, CONFIG, BRIEF)
    torch.manual_seed(6)
    second = train_interpreter(PAINTED, annotated, CONFIG, BRIEF)
    other = train_interpreter(PAINTED, annotated, CONFIG, dataclasses.replace(BRIEF, seed=1))
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
    assert not torch.equal(first.classifiers.linear1.weight, other.classifiers.linear1.weight)


def test_pixels_that_are_not_labelled_teach_nothing() -> None:
    """Wrong labels under 255 would change the result if they were read."""
    annotated = draw_annotated(5, seed=1)
    masks = annotated.masks.copy()
    masks[:, :, ::2] = 255
    half = train_interpreter(PAINTED, dataclasses.replace(annotated, masks=masks), CONFIG, BRIEF)
    whole = train_interpreter(PAINTED, annotated, CONFIG, BRIEF)
    assert not torch.equal(half.classifiers.linear3.bias, whole.classifiers.linear3.bias)
    one_class = np.where(masks == 255, 255, 1).astype(np.uint8)
    sure = train_interpreter(
        PAINTED,
        dataclasses.replace(annotated, masks=one_class),
        CONFIG,
        dataclasses.replace(BRIEF, max_steps=60, learning_rate=0.02),
    )
    output = FusedInterpreter(sure)(stack_taps(PAINTED.synthesis(draw_ws(2, 3)).taps, TAPS))
    assert output.label.unique().tolist() == [1]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_few_pictures_are_enough_to_train(count: int) -> None:
    interpreter = train_interpreter(PAINTED, draw_annotated(count, seed=2), CONFIG, BRIEF)
    assert all(bool(torch.isfinite(t).all()) for t in interpreter.state_dict().values())


@pytest.mark.parametrize("count", [1, 5])
def test_few_labelled_pixels_are_enough_to_train(count: int) -> None:
    annotated = draw_annotated(count, seed=2)
    masks = np.full_like(annotated.masks, 255)
    masks[0, 0, :3] = annotated.masks[0, 0, :3]
    interpreter = train_interpreter(PAINTED, dataclasses.replace(annotated, masks=masks), CONFIG, BRIEF)
    assert all(bool(torch.isfinite(t).all()) for t in interpreter.state_dict().values())


def test_interpreter_without_keypoints_is_trained() -> None:
    annotated = draw_annotated(4, seed=2)
    bare = dataclasses.replace(
        annotated, schema=dataclasses.replace(SCHEMA, keypoint_names=()), keypoints=annotated.keypoints[:, :0]
    )
    interpreter = train_interpreter(PAINTED, bare, dataclasses.replace(CONFIG, num_keypoints=0), BRIEF)
    assert interpreter.regressors is None


def test_diverging_training_is_reported() -> None:
    annotated = draw_annotated(4, seed=2)
    with pytest.raises(TrainingError, match="the loss of the classifiers is not finite") as caught:
        train_interpreter(PAINTED, annotated, CONFIG, dataclasses.replace(BRIEF, learning_rate=1e30))
    assert caught.value.field == "learning_rate"


# --- annotations that do not fit --------------------------------------------------------------------------------------


def config_for(generator: Generator, **changes: Any) -> InterpreterConfig:  # Any: fields of every type
    fields: dict[str, Any] = {
        "taps": generator.tap_specs,
        "label_resolution": 16,
        "num_classes": 4,
        "num_members": 2,
        "hidden_widths": (6, 4),
        "num_keypoints": 3,
    }
    return InterpreterConfig(**(fields | changes))


def test_annotations_of_another_generator_of_the_same_shape_are_refused(generator: Generator) -> None:
    other = make_generator(seed=1)
    with pytest.raises(AnnotationError, match=r"picture 0 differs by \d+\.\d levels") as caught:
        train_interpreter(other, make_annotated(generator), config_for(other), BRIEF)
    assert caught.value.field == "pictures"


def test_annotations_of_a_generator_of_another_shape_are_refused(generator: Generator) -> None:
    other = make_generator(32)
    with pytest.raises(AnnotationError, match="belong to another generator") as caught:
        train_interpreter(other, make_annotated(generator), config_for(other), BRIEF)
    assert caught.value.field == "ws"


def test_pictures_of_another_size_are_refused(generator: Generator) -> None:
    annotated = make_annotated(generator)
    halved = dataclasses.replace(annotated, pictures=annotated.pictures[:, ::2, ::2])
    with pytest.raises(
        AnnotationError, match=r"picture 0 is \[8, 8, 3\], the generator paints \[16, 16, 3\]"
    ) as caught:
        train_interpreter(generator, halved, config_for(generator), BRIEF)
    assert caught.value.field == "pictures"


def test_masks_of_another_size_are_refused(generator: Generator) -> None:
    annotated = make_annotated(generator)
    with pytest.raises(AnnotationError, match=r"masks are \[16, 16\], expected \[32, 32\]") as caught:
        train_interpreter(generator, annotated, config_for(generator, label_resolution=32), BRIEF)
    assert caught.value.field == "masks"


def test_swapped_pictures_are_refused(generator: Generator) -> None:
    """Mask i paired with latent i - 1 is a classic."""
    annotated = make_annotated(generator, 3)
    rolled = dataclasses.replace(annotated, ws=annotated.ws.roll(1, 0))
    with pytest.raises(AnnotationError, match="picture 0 differs"):
        train_interpreter(generator, rolled, config_for(generator), BRIEF)


# --- features of all scales -------------------------------------------------------------------------------------------


def test_moments_are_those_of_all_pixels_of_all_pictures() -> None:
    taps = {name: 3.0 * tap + 2.0 for name, tap in make_taps(TAPS, 5).items()}
    taps["b16.conv1"][:, 1] = 0.25  # says nothing on these pictures
    pool = fill_pool(
        FeaturePool(TAPS, SIDE, 5), ({name: tap[i : i + 1] for name, tap in taps.items()} for i in range(5))
    )
    values = [channel.flatten().double() for tap in TAPS for channel in taps[tap.name].unbind(dim=1)]
    deviation = torch.stack([channel.std(correction=0) for channel in values])
    mean, given = pool.moments()
    torch.testing.assert_close(mean, torch.stack([channel.mean() for channel in values]), rtol=0, atol=1e-5)
    told = torch.arange(len(values)) != 4
    torch.testing.assert_close(given[told], deviation[told], rtol=1e-5, atol=0)
    assert float(given[4]) == pytest.approx(0.05 * float(deviation.median()), rel=1e-4)


def test_raw_features_give_what_standardised_ones_gave() -> None:
    ensemble = make_interpreter(TAPS, SIDE).classifiers.eval()
    x, mean, deviation = torch.randn(5, 30, 10), torch.randn(10, dtype=torch.float64), torch.rand(10).double() + 0.1
    before = ensemble((x - mean.float()) / deviation.float())
    ensemble.take_raw(mean, deviation)
    torch.testing.assert_close(ensemble(x), before, rtol=1e-4, atol=1e-4)


class ScaledGenerator(PaintedGenerator):
    """Its taps differ in scale by a factor of a thousand."""

    def synthesis(self, ws: torch.Tensor, noise_mode: str = "const") -> SynthesisOutput:
        plain = super().synthesis(ws, noise_mode)
        scales = {"b8.conv1": 30.0, "b16.conv1": 1.0, "b32.conv1": 0.03}
        return SynthesisOutput(image=plain.image, taps={name: scales[name] * t for name, t in plain.taps.items()})


def test_scale_of_a_tap_does_not_matter() -> None:
    settings = InterpreterTraining(max_steps=200, pixels_per_member=128, evaluate_steps=50, validation_pixels=512)
    unseen = draw_ws(10, seed=98)
    labels = []
    for painted in (PAINTED, as_generator(ScaledGenerator())):
        learned = train_interpreter(painted, draw_annotated(16, seed=0), CONFIG, settings)
        labels.append(FusedInterpreter(learned)(stack_taps(painted.synthesis(unseen).taps, TAPS)).label)
    assert float((labels[0] == labels[1]).float().mean()) > 0.97


# --- visibility -------------------------------------------------------------------------------------------------------


@pytest.fixture
def pool_and_interpreter() -> tuple[FeaturePool, Interpreter, torch.Tensor]:
    """A pool of nine pictures, an interpreter on it, and the scores of its keypoints by the plain way."""
    taps = make_taps(TAPS, 9)
    interpreter = make_interpreter(TAPS, SIDE)
    pool = fill_pool(
        FeaturePool(TAPS, SIDE, 9), ({name: tap[i : i + 1] for name, tap in taps.items()} for i in range(9))
    )
    rounded = {name: tap.half().float() for name, tap in taps.items()}
    keypoints = interpret_reference(interpreter, rounded).keypoints
    assert keypoints is not None
    return pool, interpreter, keypoints[..., 2]


def test_peak_scores_are_those_of_the_plain_interpreter(
    pool_and_interpreter: tuple[FeaturePool, Interpreter, torch.Tensor],
) -> None:
    pool, interpreter, scores = pool_and_interpreter
    torch.testing.assert_close(peak_scores(interpreter, pool, 9), scores, rtol=0, atol=1e-4)


def test_thresholds_separate_what_was_seen_from_what_was_not(
    pool_and_interpreter: tuple[FeaturePool, Interpreter, torch.Tensor],
) -> None:
    pool, interpreter, scores = pool_and_interpreter
    visible = scores > scores.median(dim=0).values
    visible[:, 2] = scores[:, 2] < scores[:, 2].max()  # an outlier: eight of nine can be right
    calibrate_visibility(interpreter, pool, visible)
    predicted = scores >= interpreter.visibility_thresholds
    assert (predicted == visible)[:, :2].all()
    assert int((predicted == visible)[:, 2].sum()) == 8


def test_keypoint_that_is_always_or_never_visible_gets_a_threshold_out_of_the_way(
    pool_and_interpreter: tuple[FeaturePool, Interpreter, torch.Tensor],
) -> None:
    pool, interpreter, scores = pool_and_interpreter
    visible = torch.zeros(9, 3, dtype=torch.bool)
    visible[:, 0] = True
    calibrate_visibility(interpreter, pool, visible)
    thresholds = interpreter.visibility_thresholds
    assert bool((scores[:, 0] >= thresholds[0]).all())
    assert not bool((scores[:, 1:] >= thresholds[1:]).any())
    if float(scores[:, 0].min()) > float(scores[:, 0].median()) / 2:
        assert float(thresholds[0]) == pytest.approx(float(scores[:, 0].median()) / 2, abs=1e-3)
