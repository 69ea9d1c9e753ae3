import numpy as np
import pytest

from labelmint_export.datasets.toonhead import CLASS_NAMES, PALETTE, Split, ToonHeadSet
from labelmint_export.datasets.toonhead.avatar import render_svg
from labelmint_export.datasets.toonhead.masks import labels_from_colors, paint_flat
from labelmint_export.datasets.toonhead.rasterizing import rasterize
from labelmint_export.errors import DatasetError
from tests.export.datasets.reference_masks import draw_reference_mask, neighbourhoods

RESOLUTION = 128
NUM_COMPARED = 24


@pytest.fixture(scope="module")
def mask_pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of (our mask, reference mask)."""
    pictures = ToonHeadSet(resolution=RESOLUTION, seed=5, split=Split.TEST)
    return [
        (pictures.render(i).mask, draw_reference_mask(render_svg(pictures.describe(i)), RESOLUTION))
        for i in range(NUM_COMPARED)
    ]


def test_interior_pixels_equal_an_independent_renderers(mask_pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    num_interior = num_equal = 0
    for ours, reference in mask_pairs:
        interior = (neighbourhoods(reference) == reference).all(axis=0)
        num_interior += int(np.count_nonzero(interior))
        num_equal += int(np.count_nonzero(interior & (ours == reference)))
    assert num_interior > 0.8 * NUM_COMPARED * RESOLUTION**2
    assert num_equal >= 0.999 * num_interior


def test_edges_lie_within_a_pixel_of_an_independent_renderers(mask_pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    for ours, reference in mask_pairs:
        reference_has_ours_nearby = (neighbourhoods(reference) == ours).any(axis=0)
        ours_has_reference_nearby = (neighbourhoods(ours) == reference).any(axis=0)
        # Hairs and lids thinner than a pixel may lose the vote on one side only: a few pixels of 16,384.
        assert np.count_nonzero(~reference_has_ours_nearby) <= 8
        assert np.count_nonzero(~ours_has_reference_nearby) <= 8


def test_small_classes_overlap_with_an_independent_renderers(mask_pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    ours = np.stack([pair[0] for pair in mask_pairs])
    reference = np.stack([pair[1] for pair in mask_pairs])
    for label, name in enumerate(CLASS_NAMES):
        intersection = np.count_nonzero((ours == label) & (reference == label))
        union = np.count_nonzero((ours == label) | (reference == label))
        assert intersection > 0.95 * union, name


def test_every_class_occurs_often_enough() -> None:
    pictures = ToonHeadSet(resolution=64, seed=1)
    masks = pictures.render_labelled(range(60))[1]
    pictures_with_class = [np.mean([(mask == label).any() for mask in masks]) for label in range(len(CLASS_NAMES))]
    assert min(pictures_with_class) > 0.2
    assert np.array(pictures_with_class)[[0, 2, 3, 8]].min() == 1.0
    assert masks.max() < len(CLASS_NAMES)


def test_flat_picture_has_no_colour_outside_the_palette() -> None:
    pictures = ToonHeadSet(resolution=RESOLUTION, seed=2)
    for i in range(10):
        colors = rasterize(paint_flat(render_svg(pictures.describe(i))), RESOLUTION)
        assert {tuple(color) for color in colors.reshape(-1, 3).tolist()} <= set(PALETTE)


def test_colour_outside_the_palette_is_refused() -> None:
    colors = np.zeros((2, 2, 3), dtype=np.uint8)
    colors[1, 0] = (1, 2, 3)
    with pytest.raises(DatasetError, match=r"1 mask pixels .* \[1, 2, 3\]"):
        labels_from_colors(colors)


def test_neck_shade_is_skin_and_closed_mouth_is_mouth() -> None:
    pictures = ToonHeadSet(resolution=256, seed=0)
    index = next(
        i
        for i in range(1000)
        if pictures.describe(i).combination.mouth == "sad"
        and pictures.describe(i).combination.clothes == "tShirt"
        and pictures.describe(i).combination.beard == "none"
    )
    sample = pictures.render(index)
    mouth, chin, neck = sample.keypoints[[4, 5, 8], :2]
    below_chin = chin + 0.3 * (neck - chin)
    assert CLASS_NAMES[sample.mask[int(below_chin[1]), int(below_chin[0])]] == "skin"
    around_mouth = sample.mask[int(mouth[1]) - 3 : int(mouth[1]) + 4, int(mouth[0])]
    assert CLASS_NAMES.index("mouth") in around_mouth
