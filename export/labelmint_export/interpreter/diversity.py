"""Which pictures to annotate: those that cover the latent space best.

Legend: N candidates, D w_dim.
"""

import torch


def pick_diverse(w: torch.Tensor, count: int) -> torch.Tensor:
    """Pick points far from each other, greedily (k-center, Gonzalez 1985), after scaling each axis to unit deviation.

    Args:
        w: float [N, D].
        count: Points to pick, at most N.

    Returns:
        int64 [count], in the order picked; the first is the one nearest to the mean.
    """
    x = (w - w.mean(dim=0)) / (w.std(dim=0) + 1e-8)
    chosen = [int(x.square().sum(dim=1).argmin())]
    distance = torch.cdist(x, x[chosen]).amin(dim=1)
    while len(chosen) < count:
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, torch.cdist(x, x[chosen[-1:]])[:, 0])
    return torch.tensor(chosen)
