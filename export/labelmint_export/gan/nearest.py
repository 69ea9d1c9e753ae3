"""GAN pictures beside the training pictures nearest to them: a generator that copies shows at once.

Legend: N images, H rows, W columns.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from labelmint_export.gan.frechet import features_of
from labelmint_export.oracle.network import Segmenter
from labelmint_export.pictures import save_grid

NEIGHBOURS = 5


def save_nearest(
    network: Segmenter, painted: npt.NDArray[np.uint8], training: npt.NDArray[np.uint8], path: Path
) -> None:
    """Write one row a GAN picture: the picture, then its nearest training pictures, nearest first.

    Args:
        network: Gives the feature space; each feature is scaled to unit deviation over the training pictures.
        painted: uint8 [N, H, W, 3].
        training: uint8 [M, H, W, 3], same size.
        path: PNG file.
    """
    side = painted.shape[1]
    reference, wanted = features_of(network, training, side), features_of(network, painted, side)
    scale = reference.std(axis=0) + 1e-6
    distances = np.stack([np.linalg.norm((reference - one) / scale, axis=1) for one in wanted])
    order = np.argsort(distances, axis=1)[:, :NEIGHBOURS]
    rows = [np.concatenate([painted[i : i + 1], training[np.asarray(chosen)]]) for i, chosen in enumerate(order)]
    save_grid(np.concatenate(rows), NEIGHBOURS + 1, path)
