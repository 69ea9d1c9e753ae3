"""Adaptive discriminator augmentation (Karras et al. 2020, "Training GANs with Limited Data").

The same random, differentiable transformations are applied to real and generated pictures before the discriminator sees
them; each happens with probability p. p follows the overfitting heuristic r_t = E[sign(D(real))] towards a target.

The sets here are upright and not mirror-symmetric in their labels, but the discriminator alone sees these pictures: as
long as p stays below about 0.8, the generator does not paint the transformations (section 3 of the paper).

Legend: N images, H rows, W columns.
"""

import math
from dataclasses import dataclass

import torch
from torch.nn import functional


def _translate(tx: torch.Tensor, ty: torch.Tensor) -> torch.Tensor:
    matrix = torch.eye(3, device=tx.device).repeat(tx.shape[0], 1, 1)
    matrix[:, 0, 2] = tx
    matrix[:, 1, 2] = ty
    return matrix


def _scale(sx: torch.Tensor, sy: torch.Tensor) -> torch.Tensor:
    return torch.diag_embed(torch.stack([sx, sy, torch.ones_like(sx)], dim=1))


def _rotate(angle: torch.Tensor) -> torch.Tensor:
    matrix = torch.eye(3, device=angle.device).repeat(angle.shape[0], 1, 1)
    cos, sin = angle.cos(), angle.sin()
    matrix[:, 0, 0], matrix[:, 0, 1] = cos, -sin
    matrix[:, 1, 0], matrix[:, 1, 1] = sin, cos
    return matrix


def _sometimes(value: torch.Tensor, neutral: float, p: float) -> torch.Tensor:
    """Keep each value with probability p, else take the neutral one."""
    return torch.where(torch.rand_like(value) < p, value, torch.full_like(value, neutral))


def _geometry(count: int, size: int, p: float, device: torch.device) -> torch.Tensor:
    """Draw maps from output to input coordinates in [-1, 1]: float32 [N, 3, 3]."""
    uniform = torch.rand(6, count, device=device) * 2 - 1
    normal = torch.randn(5, count, device=device)
    flip = _sometimes(torch.where(uniform[0] > 0, 1.0, -1.0), 1.0, p)
    quarter = _sometimes(torch.floor((uniform[1] + 1) * 2) * (math.pi / 2), 0.0, p)
    pixel = 2.0 / size
    shift = (uniform[2:4] * 0.125 * size).round() * pixel  # whole pixels
    iso = _sometimes(torch.exp2(normal[0] * 0.2), 1.0, p)
    # Two rotations around the anisotropic scaling, each with the probability that makes p in total.
    p_rotate = 1.0 - math.sqrt(max(0.0, 1.0 - p))
    aniso = _sometimes(torch.exp2(normal[1] * 0.2), 1.0, p)
    matrix = _scale(flip, torch.ones_like(flip)) @ _rotate(quarter)
    matrix = matrix @ _translate(_sometimes(shift[0], 0.0, p), _sometimes(shift[1], 0.0, p))
    matrix = matrix @ _scale(1 / iso, 1 / iso) @ _rotate(_sometimes(uniform[4] * math.pi, 0.0, p_rotate))
    matrix = matrix @ _scale(1 / aniso, aniso) @ _rotate(_sometimes(uniform[5] * math.pi, 0.0, p_rotate))
    return matrix @ _translate(_sometimes(normal[2] * 0.25, 0.0, p), _sometimes(normal[3] * 0.25, 0.0, p))


def _recolour(image: torch.Tensor, p: float) -> torch.Tensor:
    """Change brightness, contrast, luma, hue and saturation of float32 [N, 3, H, W]."""
    count, device = image.shape[0], image.device
    normal = torch.randn(3, count, device=device)
    brightness = _sometimes(normal[0] * 0.2, 0.0, p)
    contrast = _sometimes(torch.exp2(normal[1] * 0.5), 1.0, p)
    image = image * contrast[:, None, None, None] + brightness[:, None, None, None]
    if image.shape[1] == 1:
        return image
    axis = torch.full([3], 1 / math.sqrt(3.0), device=device)
    outer = torch.outer(axis, axis)
    identity = torch.eye(3, device=device)
    luma_flip = _sometimes((torch.rand(count, device=device) < 0.5).float(), 0.0, p)
    matrix = identity - 2 * outer * luma_flip[:, None, None]
    angle = _sometimes((torch.rand(count, device=device) * 2 - 1) * math.pi, 0.0, p)
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]], device=device) / math.sqrt(3.0)
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    matrix = (identity * cos + outer * (1 - cos) + cross * sin) @ matrix  # Rodrigues' rotation about the grey axis
    saturation = _sometimes(torch.exp2(normal[2]), 1.0, p)[:, None, None]
    matrix = (outer + (identity - outer) * saturation) @ matrix
    return torch.einsum("nij,njhw->nihw", matrix, image)


def augment(image: torch.Tensor, p: float) -> torch.Tensor:
    """Transform pictures at random, differentiably.

    Args:
        image: float32 [N, C, H, W], about [-1, 1].
        p: Probability of each transformation, in [0, 1].

    Returns:
        float32 [N, C, H, W]; the input itself if p is 0.
    """
    if p <= 0:
        return image
    count, _, height, width = image.shape
    matrix = _geometry(count, height, p, image.device)
    margin = height // 2
    padded = functional.pad(image, [margin] * 4, mode="reflect")
    # The padded picture spans twice the range, so the sampled coordinates shrink by two.
    theta = matrix[:, :2, :].clone()
    grid = functional.affine_grid(theta, [count, 1, height, width], align_corners=False) * 0.5
    image = functional.grid_sample(padded, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return _recolour(image, p)


@dataclass(slots=True)
class AdaptiveProbability:
    """Moves p so that the discriminator's sign on real pictures stays at a target."""

    target: float
    """Wanted mean of sign(D(real)); 0 switches the augmentation off."""
    speed_images: int
    """Pictures in which p may go from 0 to 1."""
    maximum: float = 0.8
    """p never exceeds this, so that transformations do not leak into the generator."""
    p: float = 0.0
    sign_sum: torch.Tensor | float = 0.0
    """float64 [], where the logits were: reading it from a GPU waits for all that the GPU has yet to do."""
    sign_count: int = 0

    def observe(self, real_logits: torch.Tensor) -> None:
        """Take note of float [N] logits of real pictures."""
        self.sign_sum = self.sign_sum + real_logits.detach().sign().sum().double()
        self.sign_count += real_logits.numel()

    def update(self) -> torch.Tensor:
        """Move p after some batches; returns the mean sign since the last call: float64 []."""
        if not self.sign_count:
            return torch.zeros([], dtype=torch.float64)
        mean_sign = torch.as_tensor(self.sign_sum / self.sign_count, dtype=torch.float64)
        if self.target > 0:
            direction = 1.0 if float(mean_sign) > self.target else -1.0
            self.p = min(max(self.p + direction * self.sign_count / self.speed_images, 0.0), self.maximum)
        self.sign_sum, self.sign_count = 0.0, 0
        return mean_sign
