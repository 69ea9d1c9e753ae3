"""Keypoints as Gaussian heatmaps, and back.

Legend: N images, K keypoints, H rows, W columns. Pixel centres lie at +0.5.
"""

import torch


def encode_heatmaps(keypoints: torch.Tensor, height: int, width: int, sigma_pixels: float) -> torch.Tensor:
    """Draw a Gaussian at each visible keypoint.

    Args:
        keypoints: float [N, K, 3]: x, y in heatmap pixels, visible.
        height: H.
        width: W.
        sigma_pixels: Standard deviation.

    Returns:
        float [N, K, H, W] in [0, 1]; zero where the keypoint is not visible.
    """
    columns = torch.arange(width, device=keypoints.device) + 0.5
    rows = torch.arange(height, device=keypoints.device) + 0.5
    across = torch.exp(-((columns - keypoints[..., 0:1]) ** 2) / (2 * sigma_pixels**2))  # [N, K, W]
    down = torch.exp(-((rows - keypoints[..., 1:2]) ** 2) / (2 * sigma_pixels**2))  # [N, K, H]
    return down[..., :, None] * across[..., None, :] * (keypoints[..., 2] > 0.5)[..., None, None]


def heatmap_values(
    keypoints: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, sigma_pixels: float
) -> torch.Tensor:
    """Compute single pixels of what `encode_heatmaps` draws.

    Args:
        keypoints: float [..., K, 3]: of the picture that each pixel belongs to.
        rows: int64 [...].
        columns: int64 [...].
        sigma_pixels: Standard deviation.

    Returns:
        float [..., K].
    """
    x, y, visible = keypoints.unbind(-1)
    distance = (columns[..., None] + 0.5 - x) ** 2 + (rows[..., None] + 0.5 - y) ** 2
    return torch.exp(-distance / (2 * sigma_pixels**2)) * (visible > 0.5)


def find_peaks(heatmaps: torch.Tensor) -> torch.Tensor:
    """Find each heatmap's largest value and refine its place below a pixel.

    The rule `quadratic_3x3`: along each axis the vertex of the parabola through the peak and its two neighbours, at
    most half a pixel away; at a border there is no neighbour and no refinement. The first of equal values wins, in
    row-major order.

    Args:
        heatmaps: float [N, K, H, W].

    Returns:
        float [N, K, 3]: x, y (heatmap pixels, centres at +0.5), score (the largest value).
    """
    height, width = heatmaps.shape[2], heatmaps.shape[3]
    flat = heatmaps.flatten(2)  # [N, K, H * W]
    index = flat.argmax(dim=2, keepdim=True)  # [N, K, 1]
    score = flat.gather(2, index)
    row = torch.div(index, width, rounding_mode="floor")
    column = index - row * width

    def offset(low: torch.Tensor, high: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        curvature = 2 * score - low - high
        shift = 0.5 * (high - low) / curvature.clamp(min=1e-12)
        return torch.where(inside & (curvature > 0), shift.clamp(-0.5, 0.5), torch.zeros_like(shift))

    last = height * width - 1
    left, right = flat.gather(2, (index - 1).clamp(min=0)), flat.gather(2, (index + 1).clamp(max=last))
    above, below = flat.gather(2, (index - width).clamp(min=0)), flat.gather(2, (index + width).clamp(max=last))
    x = column + 0.5 + offset(left, right, (column > 0) & (column < width - 1))
    y = row + 0.5 + offset(above, below, (row > 0) & (row < height - 1))
    return torch.cat([x.to(score.dtype), y.to(score.dtype), score], dim=2)
