"""The samples that every server sends: one batch of the embedded model, enlarged, in a file that all of them read."""

from pathlib import Path

import numpy as np

from labelmint.scores import image_score
from labelmint_service.engine import EngineBatch, LatentInputs
from labelmint_service.models.served import load_model
from labelmint_service.settings import EMBEDDED_BUNDLE

_PICTURES = 8
"""Pictures that are made; a larger batch repeats them."""


def record(path: Path, size: int, batch_size: int) -> None:
    """Run the embedded model once and keep what comes out.

    Args:
        path: File to write.
        size: Height and width, a multiple of the model's.
        batch_size: Samples.
    """
    model = load_model(EMBEDDED_BUNDLE)
    backbone = model.bundle.manifest.backbone
    num_pictures = min(batch_size, _PICTURES)
    z = np.random.default_rng(0).standard_normal((num_pictures, backbone.z_dim), dtype=np.float32)
    rows = [model.engine.run(LatentInputs(z=one[None], truncation_psi=np.ones(1, np.float32))) for one in z]
    model.engine.close()
    scale = size // rows[0].image.shape[1]
    arrays = {
        name: np.concatenate([getattr(row, name) for row in rows])
        for name in ("image", "label", "uncertainty_map", "keypoints")
    }
    for name in ("image", "label", "uncertainty_map"):
        arrays[name] = arrays[name].repeat(scale, axis=1).repeat(scale, axis=2)
    arrays["keypoints"][:, :, :2] *= scale
    repeated = np.resize(np.arange(num_pictures), batch_size)
    np.savez(path, allow_pickle=False, **{name: array[repeated] for name, array in arrays.items()})


def load_recording(path: Path) -> EngineBatch:
    """Read what `record` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        return EngineBatch(
            image=arrays["image"],
            label=arrays["label"],
            uncertainty_map=arrays["uncertainty_map"],
            keypoints=arrays["keypoints"],
            finite=np.ones(len(arrays["image"]), dtype=np.bool_),
            scores=image_score(arrays["uncertainty_map"]),
        )
