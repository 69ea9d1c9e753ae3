"""Features of single pixels, which pixels are drawn, and which pictures are annotated."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from labelmint_export.generator import TapSpec
from labelmint_export.interpreter.diversity import pick_diverse
from labelmint_export.interpreter.features import TABLE_CHUNK, FeaturePool, StandardisedFeatures, fill_pool
from labelmint_export.interpreter.reference import concatenate_taps
from labelmint_export.interpreter.sampling import (
    PixelSampler,
    class_importance,
    class_weights,
    keypoint_importance,
    make_masses,
)
from tests.export.tiny_parts import make_taps

ORDERED = (TapSpec("a", 3, 4), TapSpec("b", 2, 8), TapSpec("c", 2, 8), TapSpec("d", 1, 16))
INTERLEAVED = (TapSpec("d", 1, 16), TapSpec("b", 2, 8), TapSpec("a", 3, 4), TapSpec("e", 2, 16), TapSpec("c", 2, 8))
CUBIC = (TapSpec("a", 3, 4), TapSpec("b", 2, 6))


@pytest.mark.parametrize("side", [16, 32, 24])
@pytest.mark.parametrize("taps_of", [ORDERED, INTERLEAVED, CUBIC])
def test_looked_up_pixels_equal_resizing_and_concatenation(taps_of: tuple[TapSpec, ...], side: int) -> None:
    taps = make_taps(taps_of, 3)
    pool = fill_pool(
        FeaturePool(taps_of, side, 3), ({name: tap[i : i + 1] for name, tap in taps.items()} for i in range(3))
    )
    rounded = {name: tap.half().double() for name, tap in taps.items()}
    whole = concatenate_taps(rounded, tuple(t.name for t in taps_of), side)  # [N, D, H, W]
    images, rows, columns = (g.flatten() for g in torch.meshgrid(*map(torch.arange, (3, side, side)), indexing="ij"))
    got = pool.look_up(images, rows, columns)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), whole.permute(0, 2, 3, 1).flatten(0, 2), rtol=0, atol=2e-6)
    shuffled = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:50]
    torch.testing.assert_close(pool.look_up(images[shuffled], rows[shuffled], columns[shuffled]), got[shuffled])


def test_rounding_to_half_precision_is_all_that_is_lost() -> None:
    taps = make_taps(ORDERED, 1)
    pool = fill_pool(FeaturePool(ORDERED, 16, 1), [taps])
    whole = concatenate_taps(taps, tuple(t.name for t in ORDERED), 16)
    rows, columns = (g.flatten() for g in torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij"))
    got = pool.look_up(torch.zeros_like(rows), rows, columns).double()
    bound = 2.0**-11 * float(whole.abs().max()) * 1.01
    torch.testing.assert_close(got, whole.permute(0, 2, 3, 1).flatten(0, 2), rtol=0, atol=bound)


def test_table_of_all_pixels_holds_what_is_interpolated_without_one() -> None:
    """Bit for bit, so that memory decides nothing but time."""
    side = 48
    taps = make_taps(INTERLEAVED, 3)
    pool = fill_pool(
        FeaturePool(INTERLEAVED, side, 3), ({name: tap[i : i + 1] for name, tap in taps.items()} for i in range(3))
    )
    pixels = torch.randint(3 * side * side, (2, 200), generator=torch.Generator().manual_seed(0))
    assert 3 * side * side > TABLE_CHUNK
    table, none = StandardisedFeatures(pool), StandardisedFeatures(pool, table_bytes=0)
    assert torch.equal(table.look_up(pixels), none.look_up(pixels))
    everything = none.look_up(torch.arange(3 * side * side)[None])[0].double()
    torch.testing.assert_close(everything.mean(dim=0), torch.zeros(everything.shape[1]).double(), rtol=0, atol=0.2)


def sampler_of(importance: torch.Tensor, keep: torch.Tensor, rows: torch.Tensor | None = None) -> PixelSampler:
    everywhere = torch.ones(keep.shape[:2], dtype=torch.bool)
    return PixelSampler(make_masses(importance, keep), everywhere if rows is None else rows)


def test_pixels_are_drawn_with_their_probability_and_weighted_back_to_the_uniform_mean() -> None:
    random = torch.Generator().manual_seed(0)
    importance = torch.rand(2, 6, 5, generator=random) + 0.01
    keep = torch.rand(2, 6, 5, generator=random) < 0.7
    rows = torch.rand(2, 6, generator=random) < 0.6
    allowed = (keep & rows[..., None]).flatten()
    assert 20 < int(allowed.sum()) < 40

    pixels, weights = sampler_of(importance, keep, rows).draw(200_000, random)
    probability = importance.flatten() * allowed
    probability /= probability.sum()
    counts = torch.bincount(pixels, minlength=60) / len(pixels)
    torch.testing.assert_close(counts, probability, rtol=0, atol=0.004)
    assert not bool(counts[~allowed].any())
    torch.testing.assert_close(weights, (1 / (allowed.sum() * probability))[pixels])
    loss = torch.randn(60, generator=random)
    assert float((weights * loss[pixels]).mean()) == pytest.approx(float(loss[allowed].mean()), abs=0.03)


def test_draws_follow_from_the_state_of_the_generator() -> None:
    sampler = sampler_of(torch.tensor([[[1.0, 2.0, 5.0, 12.0]]]), torch.ones(1, 1, 4, dtype=torch.bool))
    first, second = (sampler.draw(1000, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_pixels_that_are_not_kept_are_never_drawn() -> None:
    keep = torch.zeros(2, 4, 4, dtype=torch.bool)
    keep[1, 2, 3] = keep[0, 0, 1] = True
    pixels, weights = sampler_of(torch.ones(2, 4, 4), keep).draw(200, torch.Generator().manual_seed(0))
    assert set(pixels.tolist()) == {1, 16 + 8 + 3}
    assert set(weights.tolist()) == {1.0}


def test_rounding_at_the_end_of_a_row_does_not_leave_it() -> None:
    """Importances over many magnitudes: sums up to a row's end round in both directions."""
    random = torch.Generator().manual_seed(3)
    importance = torch.exp(8 * torch.randn(3, 40, 50, generator=random))
    keep = torch.rand(3, 40, 50, generator=random) < 0.5
    rows = torch.rand(3, 40, generator=random) < 0.5
    pixels, _ = sampler_of(importance, keep, rows).draw(300_000, random)
    assert bool((keep & rows[..., None]).flatten()[pixels].all())


def test_rare_classes_are_favoured_by_the_root_of_their_share() -> None:
    masks = torch.zeros(1, 10, 10, dtype=torch.uint8)
    masks[0, 0, :4] = 1
    masks[0, 0, 4:6] = 255
    importance = class_importance(masks, 3)
    common, rare = importance[0, 5, 5], importance[0, 0, 0]
    assert float(rare / common) == pytest.approx(((94 / 98) / (4 / 98)) ** 0.5, rel=1e-5)
    assert bool((importance > 0).all())


def test_rare_classes_count_more_and_the_mean_stays() -> None:
    masks = torch.full((1, 10, 10), 255, dtype=torch.uint8)
    masks[0, :8], masks[0, 8, :5] = 0, 1  # 80 and 5 of 85 pixels; class 2 is nowhere
    weights = class_weights(masks, 3)
    assert float(weights[1] / weights[0]) == pytest.approx(2.0)  # the fourth root of 80 / 5
    assert float((80 * weights[0] + 5 * weights[1]) / 85) == pytest.approx(1.0, abs=1e-4)
    assert bool(torch.isfinite(weights).all())


def test_surroundings_of_keypoints_are_favoured() -> None:
    heatmaps = torch.zeros(1, 2, 3, 3)
    heatmaps[0, 0, 1, 1], heatmaps[0, 1, 1, 1], heatmaps[0, 1, 2, 2] = 0.5, 0.9, 0.3
    importance = keypoint_importance(heatmaps, floor=0.1)
    assert importance[0, 1, 1] == pytest.approx(1.0)
    assert importance[0, 2, 2] == pytest.approx(0.4)
    assert importance[0, 0, 0] == pytest.approx(0.1)


def test_each_picked_point_brings_the_others_nearest() -> None:
    w = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 10.0, 0.1])
    chosen = pick_diverse(w, 12).tolist()
    x = w.double().numpy()
    distances = np.linalg.norm(x[:, None] - x[None], axis=2)
    for count in range(12):
        costs = [distances[:, [*chosen[:count], j]].min(axis=1).mean() for j in range(40)]
        assert costs[chosen[count]] == pytest.approx(min(costs))


def test_all_points_can_be_picked_once_each() -> None:
    w = torch.randn(9, 4, generator=torch.Generator().manual_seed(2))
    assert sorted(pick_diverse(w, 9).tolist()) == list(range(9))
