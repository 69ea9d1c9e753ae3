"""Latents: what the samples at some addresses put into the engine.

N rows.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from labelmint.addresses import class_indices, latents
from labelmint.v1 import bundle_pb2
from labelmint_service.engine import LatentInputs


def latents_at(
    manifest: bundle_pb2.Manifest,
    seed: int,
    indices: npt.NDArray[np.uint64],
    *,
    truncation_psi: float | None = None,
    class_index: int | None = None,
) -> LatentInputs:
    """Latents and classes at some addresses.

    Args:
        manifest: Of the model.
        seed: In [0, 2**64).
        indices: uint64 [N].
        truncation_psi: Of all of them; None for the model's default.
        class_index: Of all of them, if the model is conditional; None draws each, as the manifest has it.
    """
    backbone, psi = manifest.backbone, manifest.truncation.default_psi if truncation_psi is None else truncation_psi
    classes: npt.NDArray[np.int64] | None = None
    if backbone.c_dim and class_index is None:
        classes = class_indices(seed, indices, np.array(manifest.class_distribution, dtype=np.float64))
    elif backbone.c_dim:
        classes = np.full(len(indices), class_index, dtype=np.int64)
    return LatentInputs(
        z=latents(seed, indices, backbone.z_dim),
        truncation_psi=np.full(len(indices), psi, dtype=np.float32),
        class_indices=classes,
    )
