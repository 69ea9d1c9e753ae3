"""Calibration of the interpreter's decisions that need a threshold.

Legend: N images, M members, K keypoints, P pixels of a picture.
"""

import torch

from labelmint_export.interpreter.ensemble import Interpreter
from labelmint_export.interpreter.features import FeaturePool

PIXELS_PER_CHUNK = 1024
"""Pixels whose features exist at once: 20 MB of them with 5,056 features, and a few copies."""
OUTSIDE = 0.02
"""How far beyond the smallest or largest annotated score a threshold lies that all of them reach, or none."""


@torch.no_grad()
def peak_scores(interpreter: Interpreter, pool: FeaturePool, count: int) -> torch.Tensor:
    """Largest value of each averaged heatmap on each of the first `count` pictures of a pool: float32 [count, K]."""
    assert interpreter.regressors is not None
    side = pool.label_resolution
    members = interpreter.config.num_keypoint_members
    columns = torch.arange(side)
    num_rows = max(1, PIXELS_PER_CHUNK // side)
    scores = torch.full([count, interpreter.config.num_keypoints], -torch.inf)
    for image in range(count):
        for top in range(0, side, num_rows):
            rows = torch.arange(top, min(top + num_rows, side))
            grid = torch.cartesian_prod(rows, columns)
            features = pool.look_up(torch.full([len(grid)], image), grid[:, 0], grid[:, 1])
            heatmaps = interpreter.regressors(features.expand(members, -1, -1)).mean(dim=0)  # [P, K]
            scores[image] = torch.maximum(scores[image], heatmaps.amax(dim=0))
    return scores


def calibrate_visibility(interpreter: Interpreter, pool: FeaturePool, visible: torch.Tensor) -> None:
    """Set each keypoint's threshold to the one that separates the annotated pictures best.

    Of equally good thresholds the one nearest to half of the median score of the visible ones is taken, which is also
    the answer where a keypoint is always visible.

    Args:
        interpreter: Its `visibility_thresholds` are changed.
        pool: Features of the annotated pictures, and perhaps of others behind them.
        visible: bool [N, K], as annotated.
    """
    scores = peak_scores(interpreter, pool, len(visible))
    thresholds = []
    for keypoint in range(scores.shape[1]):
        score, seen = scores[:, keypoint], visible[:, keypoint]
        if not bool(seen.any()):
            thresholds.append(float(score.max()) + 1.0)
            continue
        wanted = float(score[seen].median()) / 2
        ordered = score.sort().values
        between = (ordered[1:] + ordered[:-1]) / 2
        candidates = torch.cat([ordered[:1] - OUTSIDE, between, ordered[-1:] + OUTSIDE, torch.tensor([wanted])])
        right = ((score[None, :] >= candidates[:, None]) == seen[None, :]).sum(dim=1)
        best = candidates[right == right.max()]
        thresholds.append(float(best[(best - wanted).abs().argmin()]))
    interpreter.visibility_thresholds.copy_(torch.tensor(thresholds))
