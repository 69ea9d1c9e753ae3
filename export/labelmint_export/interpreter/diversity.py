"""Which pictures to annotate: those that differ most from each other, or stand best for the uncertain ones.

`pick_farthest` is the greedy k-centre rule (Gonzalez 1985). Among small copies of pictures it finds the rare ones: what
none of sixteen pictures shows, nobody can label. `pick_diverse` takes, greedily, the point that brings all points
nearest to a picked one on average (facility location, Cornuejols et al. 1977). Alone it gives middles of clusters, all
alike; among uncertain pictures, which are rare ones already, middles are what is wanted.

Legend: N candidates, A annotated ones, D w_dim.
"""

import math

import torch


def pick_farthest(points: torch.Tensor, count: int, covered: torch.Tensor | None = None) -> torch.Tensor:
    """Pick points as far from each other as can be: each is the one farthest from those in front of it.

    Args:
        points: float [N, D].
        count: Points to pick, at most N.
        covered: float [A, D]: points that count as picked already.

    Returns:
        int64 [count], in the order picked; without `covered` the first is the one nearest to all others on average.
    """
    distance = torch.cdist(points.double(), points.double())  # [N, N]
    if covered is not None and len(covered):
        nearest = torch.cdist(points.double(), covered.double()).amin(dim=1)
        chosen: list[int] = []
    else:
        chosen = [int(distance.sum(dim=1).argmin())]
        nearest = distance[chosen[0]].clone()
    while len(chosen) < count:
        nearest[chosen] = -1.0  # not again, even where all points are alike
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, distance[chosen[-1]])
    return torch.tensor(chosen)


def pick_diverse(
    w: torch.Tensor, count: int, *, weights: torch.Tensor | None = None, covered: torch.Tensor | None = None
) -> torch.Tensor:
    """Pick points so that the mean distance of all points to the nearest picked one is small.

    Args:
        w: float [N, D].
        count: Points to pick, at most N.
        weights: float [N], at least 0: how much each point's distance counts; None: all alike.
        covered: float [A, D]: points that count as picked already.

    Returns:
        int64 [count], in the order picked; without `covered` the first is the one nearest to all others on average.
    """
    distance = torch.cdist(w.double(), w.double())  # [N, N]
    if covered is not None and len(covered):
        nearest = torch.cdist(w.double(), covered.double()).amin(dim=1)
    else:
        nearest = torch.full_like(distance[0], torch.inf)
    share = torch.ones_like(nearest) if weights is None else weights.double()
    chosen: list[int] = []
    for _ in range(count):
        cost = (share[:, None] * torch.minimum(nearest[:, None], distance)).sum(dim=0)
        cost[chosen] = torch.inf
        chosen.append(int(cost.argmin()))
        nearest = torch.minimum(nearest, distance[:, chosen[-1]])
    return torch.tensor(chosen)


def pick_uncertain(
    w: torch.Tensor, scores: torch.Tensor, count: int, covered: torch.Tensor | None = None
) -> torch.Tensor:
    """Pick points that score high and lie apart from each other and from those that are known.

    The quarter of the points with the highest scores is the choice (at least `count`). Among these the picks are those
    that bring them, weighted by their scores, near to a picked or known point. The highest scores alone would be
    pictures of one kind, of which the first annotated teaches what the others could.

    Args:
        w: float [N, D].
        scores: float [N], at least 0.
        count: Points to pick, at most N.
        covered: float [A, D]: points that are known already.

    Returns:
        int64 [count], in the order picked.
    """
    shortlist = scores.argsort(descending=True, stable=True)[: max(count, math.ceil(len(w) / 4))]
    weights = scores[shortlist] if bool(scores[shortlist].any()) else None
    return shortlist[pick_diverse(w[shortlist], count, weights=weights, covered=covered)]
