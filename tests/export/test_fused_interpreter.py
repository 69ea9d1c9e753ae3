"""The deployed interpreter against the plain one, over layouts, rules and ties."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from labelmint.graphs import VOTE_RULES
from labelmint_export.errors import BuildError, TrainingError
from labelmint_export.generator import TapSpec
from labelmint_export.interpreter import reference
from labelmint_export.interpreter.ensemble import Interpreter, InterpreterConfig, PixelEnsemble
from labelmint_export.interpreter.fused import FusedInterpreter
from labelmint_export.interpreter.knots import interpolate, knots_to_pixels, level_to_knots, refine_knots
from labelmint_export.interpreter.reference import concatenate_rows, concatenate_taps, interpret_reference
from tests.export.largest_tensor import LargestTensor
from tests.export.plain_interpreter import PlainLabels, plain_labels
from tests.export.tiny_parts import make_interpreter, make_taps, stack_taps


def specs(*taps: tuple[str, int, int]) -> tuple[TapSpec, ...]:
    return tuple(TapSpec(*tap) for tap in taps)


# Layout -> taps in the order of concatenation, and the label resolution.
LAYOUTS: dict[str, tuple[tuple[TapSpec, ...], int]] = {
    "one tap a level": (specs(("a", 3, 4), ("b", 5, 8), ("c", 2, 16)), 16),
    "two taps a level": (specs(("a", 3, 4), ("b", 5, 8), ("c", 2, 8), ("d", 4, 16), ("e", 1, 16), ("f", 3, 32)), 32),
    "levels interleaved": (specs(("f", 3, 16), ("a", 3, 4), ("e", 2, 16), ("c", 5, 8), ("b", 2, 4), ("d", 1, 8)), 16),
    "labels finer than every tap": (specs(("a", 3, 4), ("b", 5, 8), ("c", 2, 16)), 64),
    "coarse levels only": (specs(("a", 3, 4), ("b", 5, 8)), 32),
    "one coarse level": (specs(("a", 6, 4)), 16),
    "fine levels only": (specs(("a", 4, 16), ("b", 3, 32)), 32),
    "one fine level": (specs(("a", 6, 16)), 16),
    "half of the labels only": (specs(("a", 6, 8)), 16),
    "levels left out": (specs(("a", 3, 4), ("b", 5, 16), ("c", 2, 64)), 64),
    "a tap finer than the labels": (specs(("a", 3, 4), ("b", 5, 16), ("c", 2, 32)), 16),
    "many levels left out": (specs(("a", 3, 2), ("b", 5, 16)), 64),
}


def assert_keypoints_close(got: torch.Tensor, expected: PlainLabels, min_margin: float, atol: float) -> None:
    """Scores everywhere, places wherever one value is the largest: upsampling coarse levels makes plateaus at borders.

    Args:
        got: [N, K, 4].
        expected: Of the plain algorithm.
        min_margin: A peak that rises less above the second value is a plateau.
        atol: For places and scores.
    """
    settled = expected.peak_margin > min_margin
    assert bool(settled.any()), "the case is degenerate"
    torch.testing.assert_close(got.double()[settled], expected.keypoints[settled], rtol=0, atol=atol)
    torch.testing.assert_close(got.double()[..., 2:], expected.keypoints[..., 2:], rtol=0, atol=atol)


@pytest.mark.parametrize("rule", VOTE_RULES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_plain_interpreter_follows_the_definitions(layout: str, rule: str) -> None:
    taps_of, side = LAYOUTS[layout]
    interpreter = make_interpreter(taps_of, side).double()
    taps = make_taps(taps_of, 6)
    got, expected = interpret_reference(interpreter, taps, rule), plain_labels(interpreter, taps, rule)
    assert torch.equal(got.label, expected.label)
    torch.testing.assert_close(got.uncertainty_map, expected.uncertainty_map, rtol=0, atol=1e-12)
    assert got.keypoints is not None
    assert_keypoints_close(got.keypoints, expected, min_margin=1e-12, atol=1e-9)
    assert bool(got.finite.all())


@pytest.mark.parametrize("rule", VOTE_RULES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_fused_interpreter_equals_the_plain_one(layout: str, rule: str) -> None:
    taps_of, side = LAYOUTS[layout]
    interpreter = make_interpreter(taps_of, side)
    taps = make_taps(taps_of, 6)
    expected = interpret_reference(interpreter.double(), taps, rule)
    plain = plain_labels(interpreter, taps, rule)
    assert float(expected.label.flatten().bincount().max()) < 0.8 * expected.label.numel(), "the case is degenerate"

    exact = FusedInterpreter(interpreter, rule, torch.float64)(stack_taps(taps, taps_of))
    assert torch.equal(exact.label, expected.label)
    torch.testing.assert_close(exact.uncertainty_map, expected.uncertainty_map, rtol=0, atol=1e-12)
    assert_keypoints_close(exact.keypoints, plain, min_margin=1e-12, atol=1e-9)

    single = {name: stack.float() for name, stack in stack_taps(taps, taps_of).items()}
    got = FusedInterpreter(interpreter, rule, torch.float32)(single)
    assert float((got.label == expected.label).double().mean()) >= 0.9995
    torch.testing.assert_close(got.uncertainty_map.double(), expected.uncertainty_map, rtol=0, atol=1e-5)
    assert_keypoints_close(got.keypoints, plain, min_margin=1e-5, atol=1e-3)
    assert got.finite.tolist() == [True] * 6


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_are_those_of_the_concatenation(layout: str) -> None:
    taps_of, side = LAYOUTS[layout]
    taps, names = make_taps(taps_of, 2), tuple(tap.name for tap in taps_of)
    whole = concatenate_taps(taps, names, side)
    for rows in (slice(0, side), slice(0, 1), slice(3, 8), slice(side - 2, side + 5)):
        torch.testing.assert_close(concatenate_rows(taps, names, side, rows), whole[:, :, rows], rtol=0, atol=1e-12)


def test_plain_interpreter_never_holds_the_features_of_a_whole_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of 1024 x 1024 are 43 GB in float64: a bundle of such pictures could not be built."""
    taps_of, side = LAYOUTS["labels finer than every tap"]
    interpreter, taps = make_interpreter(taps_of, side).double(), make_taps(taps_of, 2)
    expected = interpret_reference(interpreter, taps)
    monkeypatch.setattr(reference, "STRIP_VALUES", 60 * 2 * 7 * side)
    with LargestTensor() as largest:
        got = interpret_reference(interpreter, taps)
    assert largest.num_values <= 60 * 2 * 7 * side
    assert largest.num_values < interpreter.config.num_features * 2 * side * side
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_uncertainty_is_zero_where_members_agree_and_below_log_of_the_members() -> None:
    taps_of, side = LAYOUTS["one tap a level"]
    interpreter = make_interpreter(taps_of, side, num_keypoints=0).double()
    taps = make_taps(taps_of, 2)
    spread = interpret_reference(interpreter, taps).uncertainty_map
    assert float(spread.max()) <= math.log(4) + 1e-12
    assert float(spread.mean()) > 0.01
    with torch.no_grad():
        for tensor in interpreter.classifiers.state_dict().values():
            tensor.copy_(tensor[:1].expand_as(tensor))
    for output in (
        interpret_reference(interpreter, taps),
        FusedInterpreter(interpreter, "majority", torch.float64)(stack_taps(taps, taps_of)),
    ):
        assert float(output.uncertainty_map.max()) < 1e-12
        assert float(output.uncertainty_map.min()) >= 0.0


def test_heatmap_that_is_not_finite_is_told_by_its_picture() -> None:
    taps_of, side = LAYOUTS["one tap a level"]
    interpreter, taps = make_interpreter(taps_of, side).double(), make_taps(taps_of, 3)
    assert interpreter.regressors is not None
    interpreter.regressors.linear3.weight.mul_(1e200)
    for tap in taps.values():
        tap[1] *= 1e150  # the logits stay below the largest number
    for output in (
        interpret_reference(interpreter, taps),
        FusedInterpreter(interpreter, "majority", torch.float64)(stack_taps(taps, taps_of)),
    ):
        assert output.finite.tolist() == [True, False, True]


def voting_interpreter(votes: list[int], num_classes: int) -> Interpreter:
    """Members that vote for a class whatever they see."""
    interpreter = make_interpreter(
        specs(("a", 2, 8)), 8, num_classes=num_classes, num_members=len(votes), num_keypoints=0
    )
    with torch.no_grad():
        interpreter.classifiers.linear3.weight.mul_(1e-3)
        interpreter.classifiers.linear3.bias.zero_()
        for member, vote in enumerate(votes):
            interpreter.classifiers.linear3.bias[member, vote] = 5.0
    return interpreter


@pytest.mark.parametrize(
    ("votes", "winner"),
    [
        ([3, 1], 1),
        ([1, 3], 1),
        ([2, 2, 0, 0], 0),
        ([0, 0, 2, 2], 0),
        ([3, 3, 1, 1, 2], 1),
        ([3, 2, 1, 0], 0),
        ([3, 3, 3, 0, 0], 3),
        ([2, 2, 1, 3, 3], 2),
    ],
)
def test_lowest_class_wins_a_tie(votes: list[int], winner: int) -> None:
    interpreter = voting_interpreter(votes, 4)
    taps_of = interpreter.config.taps
    taps = make_taps(taps_of, 1)
    plain = interpret_reference(interpreter.double(), taps)
    assert set(plain.label.flatten().tolist()) == {winner}
    for dtype in (torch.float64, torch.float32):
        stacks = {name: stack.to(dtype) for name, stack in stack_taps(taps, taps_of).items()}
        fused = FusedInterpreter(interpreter, "majority", dtype)(stacks)
        assert set(fused.label.flatten().tolist()) == {winner}


def test_many_members_and_classes_tie_exactly_too() -> None:
    """The order of votes * C + (C - 1 - class) holds in float32 at the largest sizes."""
    interpreter = voting_interpreter([254] * 25 + [3] * 25 + [253] * 24, 255)
    taps = {name: t.float() for name, t in make_taps(interpreter.config.taps, 1).items()}
    label = FusedInterpreter(interpreter)(stack_taps(taps, interpreter.config.taps)).label
    assert label.unique().tolist() == [3]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_row_is_reported_and_leaves_its_neighbours_alone(bad: float) -> None:
    taps_of, side = LAYOUTS["one tap a level"]
    fused = FusedInterpreter(make_interpreter(taps_of, side))
    taps = {name: tap.float() for name, tap in make_taps(taps_of, 3).items()}
    clean = fused(stack_taps(taps, taps_of))
    taps["b"][1, 0, 0, 0] = bad
    got = fused(stack_taps(taps, taps_of))
    assert got.finite.tolist() == [True, False, True]
    for before, after in zip(clean, got, strict=True):
        torch.testing.assert_close(before[[0, 2]], after[[0, 2]], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("taps_of", "side"), [(specs(("a", 2, 8)), 24), (specs(("a", 2, 24)), 8), (specs(("a", 2, 6)), 16)]
)
def test_label_resolution_that_no_doubling_reaches_is_refused(taps_of: tuple[TapSpec, ...], side: int) -> None:
    with pytest.raises(BuildError, match="no power of two times or part of") as caught:
        FusedInterpreter(make_interpreter(taps_of, side))
    assert caught.value.field == "label_resolution"


def test_unknown_vote_rule_is_refused() -> None:
    with pytest.raises(BuildError, match="vote_rule is 'loudest'") as caught:
        FusedInterpreter(make_interpreter(specs(("a", 2, 8)), 8), "loudest")
    assert caught.value.field == "vote_rule"


# --- the parts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("levels", "side"), [((4,), 16), ((4, 8), 32), ((4, 8, 16), 64), ((4, 16), 128), ((1, 2, 32), 128)]
)
def test_knot_grids_compose_to_direct_bilinear_resizing(levels: tuple[int, ...], side: int) -> None:
    tensors = [torch.randn(2, 3, r, r, dtype=torch.float64) for r in levels]
    expected = sum(
        (functional.interpolate(x, size=[side, side], mode="bilinear", align_corners=False) for x in tensors),
        torch.zeros((), dtype=torch.float64),
    )
    knots = interpolate(tensors[0], level_to_knots(levels[0]))
    for low, high, x in zip(levels[:-1], levels[1:], tensors[1:], strict=True):
        knots = interpolate(knots, refine_knots(low, high)) + interpolate(x, level_to_knots(high))
    torch.testing.assert_close(interpolate(knots, knots_to_pixels(levels[-1], side)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("matrix", [level_to_knots(8), refine_knots(4, 8), refine_knots(4, 32), knots_to_pixels(8, 64)])
def test_every_interpolation_averages(matrix: torch.Tensor) -> None:
    torch.testing.assert_close(matrix.sum(dim=1), torch.ones(len(matrix), dtype=torch.float64))
    assert float(matrix.min()) >= 0.0


def test_folded_normalisation_equals_evaluation_mode() -> None:
    interpreter = make_interpreter(specs(("a", 6, 8)), 8).double()
    x = torch.randn(5, 20, 6, dtype=torch.float64)
    folded = interpreter.classifiers.fold()
    hidden = functional.relu(torch.einsum("mpd,mhd->mph", x, folded.weight1) + folded.bias1[:, None])
    hidden = functional.relu(torch.einsum("mph,mgh->mpg", hidden, folded.weight2) + folded.bias2[:, None])
    got = torch.einsum("mpg,mog->mpo", hidden, folded.weight3) + folded.bias3[:, None]
    torch.testing.assert_close(got, interpreter.classifiers(x), rtol=0, atol=1e-12)


def test_member_is_the_reference_classifier_of_torch_layers_in_training_and_evaluation() -> None:
    """Linear, ReLU, BatchNorm1d, Linear, ReLU, BatchNorm1d, Linear, on each member's own pixels."""
    torch.manual_seed(0)
    ensemble = PixelEnsemble(2, 6, (12, 5), 4)
    members = []
    for m in range(2):
        layers = nn.Sequential(
            nn.Linear(6, 12),
            nn.ReLU(),
            nn.BatchNorm1d(12),
            nn.Linear(12, 5),
            nn.ReLU(),
            nn.BatchNorm1d(5),
            nn.Linear(5, 4),
        )
        for index, linear in ((0, ensemble.linear1), (3, ensemble.linear2), (6, ensemble.linear3)):
            layer = layers[index]
            assert isinstance(layer, nn.Linear)
            with torch.no_grad():
                layer.weight.copy_(linear.weight[m])
                layer.bias.copy_(linear.bias[m])
        members.append(layers)
    for _ in range(3):
        x = torch.randn(2, 30, 6)
        outputs = ensemble(x)
        for m, layers in enumerate(members):
            torch.testing.assert_close(outputs[m], layers(x[m]), rtol=1e-4, atol=1e-5)
    ensemble.eval()
    x = torch.randn(2, 30, 6)
    for m, layers in enumerate(members):
        torch.testing.assert_close(ensemble(x)[m], layers.eval()(x[m]), rtol=1e-4, atol=1e-5)


def test_concatenation_keeps_the_order_of_the_taps() -> None:
    taps_of, side = LAYOUTS["levels interleaved"]
    taps = make_taps(taps_of, 1)
    features = concatenate_taps(taps, tuple(t.name for t in taps_of), side)
    start = 0
    for tap in taps_of:
        part = features[:, start : start + tap.channels]
        torch.testing.assert_close(
            part, functional.interpolate(taps[tap.name], size=[side, side], mode="bilinear", align_corners=False)
        )
        start += tap.channels
    assert start == features.shape[1]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("taps", ()),
        ("taps", (TapSpec("a", 0, 8),)),
        ("num_classes", 1),
        ("num_classes", 256),
        ("label_resolution", 0),
        ("num_members", 0),
        ("num_keypoint_members", 0),
        ("num_keypoints", -1),
        ("hidden_widths", (8, 0)),
        ("keypoint_hidden_widths", (0, 8)),
        ("sigma_pixels", 0.0),
    ],
)
def test_shape_out_of_range_is_refused(field: str, value: object) -> None:
    fields: dict[str, object] = {"taps": specs(("a", 2, 8)), "label_resolution": 8, "num_classes": 3} | {field: value}
    with pytest.raises(TrainingError, match=field.removesuffix("s")) as caught:
        InterpreterConfig(**fields)  # type: ignore[arg-type]  # fields of every type
    assert caught.value.field == field
