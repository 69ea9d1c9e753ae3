"""Which pictures to annotate: those that stand for all the others.

Picked is, greedily, the point that brings all points nearest to a picked one on average (facility location, Cornuejols
et al. 1977). Points as far from each other as can be would be the edge of the space, where a generator paints badly.

Legend: N candidates, D w_dim.
"""

import torch


def pick_diverse(w: torch.Tensor, count: int) -> torch.Tensor:
    """Pick points so that the mean distance of all points to the nearest picked one is small.

    Args:
        w: float [N, D].
        count: Points to pick, at most N.

    Returns:
        int64 [count], in the order picked; the first is the one nearest to all others on average.
    """
    distance = torch.cdist(w.double(), w.double())  # [N, N]
    nearest = torch.full_like(distance[0], torch.inf)
    chosen: list[int] = []
    for _ in range(count):
        cost = torch.minimum(nearest[:, None], distance).sum(dim=0)
        cost[chosen] = torch.inf
        chosen.append(int(cost.argmin()))
        nearest = torch.minimum(nearest, distance[:, chosen[-1]])
    return torch.tensor(chosen)
