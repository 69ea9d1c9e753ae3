"""Features of single pixels, taken from taps at their own resolution.

The concatenated full-resolution tensor is never made: for sixteen pictures of 512 x 512 with 5,056 features it would be
85 GB in float32, while their taps in float16 are 1.1 GB.

Legend: N images, B pixels, D features, C channels of a tap, r its resolution.
"""

from collections.abc import Iterable, Mapping

import torch

from labelmint_export.generator import TapSpec

FLOOR = 0.05
"""Smallest standard deviation of a feature, relative to the median of all."""
TABLE_BYTES = 2**30
"""Standardised features of all pixels are kept where they take no more."""
TABLE_CHUNK = 4096
"""Pixels whose features are computed at a time for that."""


class FeaturePool:
    """Taps of a set of pictures, and bilinear look-up of pixels in them.

    Args:
        taps: In the order in which channels are concatenated.
        label_resolution: Side of the label frame, pixels.
        num_images: N; pictures are put in with `put`.
    """

    def __init__(self, taps: tuple[TapSpec, ...], label_resolution: int, num_images: int) -> None:
        self.label_resolution = label_resolution
        self.num_images = num_images
        self._specs = taps
        self._resolutions = sorted({tap.resolution for tap in taps})
        self._levels = {
            r: torch.empty(num_images * r * r, sum(t.channels for t in taps if t.resolution == r), dtype=torch.float16)
            for r in self._resolutions
        }
        # Columns of each level's features in the concatenation.
        self._columns: dict[int, torch.Tensor] = {}
        start = 0
        columns: dict[int, list[torch.Tensor]] = {r: [] for r in self._resolutions}
        for tap in taps:
            columns[tap.resolution].append(torch.arange(start, start + tap.channels))
            start += tap.channels
        self.num_features = start
        self._columns = {r: torch.cat(parts) for r, parts in columns.items()}
        self._ordered = bool((torch.cat([self._columns[r] for r in self._resolutions]).diff() == 1).all())
        self._means = torch.zeros(start, dtype=torch.float64)
        self._mean_squares = torch.zeros(start, dtype=torch.float64)

    def put(self, index: int, taps: Mapping[str, torch.Tensor]) -> None:
        """Store the taps of picture `index`: layer name -> float [1, C, r, r]. They are rounded to float16."""
        for r in self._resolutions:
            start = 0
            rows = self._levels[r][index * r * r : (index + 1) * r * r]
            for spec in (s for s in self._specs if s.resolution == r):
                values = taps[spec.name][0].flatten(1)
                rows[:, start : start + spec.channels] = values.t().to(torch.float16)
                columns = self._columns[r][start : start + spec.channels]
                self._means[columns] += values.mean(dim=1).double() / self.num_images
                self._mean_squares[columns] += values.square().mean(dim=1).double() / self.num_images
                start += spec.channels

    def moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of each feature over all pictures put in: float64 [D] each.

        A feature that hardly varies on these pictures counts as if it varied by FLOOR of the usual: on others it may.
        """
        deviation = (self._mean_squares - self._means.square()).clamp(min=0).sqrt()
        usual = float(deviation.median()) or 1.0
        return self._means, deviation.clamp(min=FLOOR * usual)

    def look_up(self, images: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Interpolate features at label pixels (bilinear, align_corners false).

        Args:
            images: int64 [B], in [0, N).
            rows: int64 [B], in [0, label_resolution).
            columns: int64 [B].

        Returns:
            float32 [B, D].
        """
        parts = []
        for r in self._resolutions:
            base = images * (r * r)
            if r == self.label_resolution:
                parts.append(self._rows(r, base + rows * r + columns))
                continue
            top, bottom, down = self._neighbours(rows, r)
            left, right, across = self._neighbours(columns, r)
            above, below = base + top * r, base + bottom * r
            upper = torch.lerp(self._rows(r, above + left), self._rows(r, above + right), across)
            lower = torch.lerp(self._rows(r, below + left), self._rows(r, below + right), across)
            parts.append(torch.lerp(upper, lower, down))
        features = torch.cat(parts, dim=1)
        if self._ordered:
            return features
        order = torch.cat([self._columns[r] for r in self._resolutions])
        return torch.empty_like(features).index_copy_(1, order, features)

    def _rows(self, r: int, indices: torch.Tensor) -> torch.Tensor:
        return self._levels[r].index_select(0, indices).float()  # several times as fast as indexing with brackets

    def _neighbours(self, position: torch.Tensor, r: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        source = ((position.double() + 0.5) * (r / self.label_resolution) - 0.5).clamp(0, r - 1)
        low = source.floor().long()
        return low, (low + 1).clamp(max=r - 1), (source - low).float()[:, None]


class StandardisedFeatures:
    """Features of a pool that has been filled, each with mean 0 and deviation 1.

    Where those of all pixels take little memory they are computed once: a training visits most pixels many times, and
    a row of a table is read in a tenth of the time in which it is interpolated.

    Args:
        pool: What to look up.
        table_bytes: Memory that the features of all pixels may take, in float32.

    Attributes:
        mean: Of each feature before, float64 [D].
        deviation: Likewise.
    """

    def __init__(self, pool: FeaturePool, table_bytes: int = TABLE_BYTES) -> None:
        self.mean, self.deviation = pool.moments()
        self._pool = pool
        self._moments = self.mean.float(), self.deviation.float()
        self._table: torch.Tensor | None = None
        pixels = pool.num_images * pool.label_resolution**2
        if pixels * pool.num_features * 4 <= table_bytes:
            self._table = torch.empty(pixels, pool.num_features)
            for part in torch.split(torch.arange(pixels), TABLE_CHUNK):
                self._table[part[0] : part[-1] + 1] = self._interpolate(part)

    def look_up(self, pixels: torch.Tensor) -> torch.Tensor:
        """Features of flat indices into the pixels of all pictures, int64 [M, b]: float32 [M, b, D]."""
        flat = pixels.flatten()
        features = self._interpolate(flat) if self._table is None else self._table.index_select(0, flat)
        return features.view(*pixels.shape, -1)

    def _interpolate(self, flat: torch.Tensor) -> torch.Tensor:
        side = self._pool.label_resolution
        images, inside = flat // (side * side), flat % (side * side)
        mean, deviation = self._moments
        return self._pool.look_up(images, inside // side, inside % side).sub_(mean).div_(deviation)


def fill_pool(pool: FeaturePool, taps_of_pictures: Iterable[Mapping[str, torch.Tensor]]) -> FeaturePool:
    """Put pictures into a pool one after another, so that only one picture's float32 taps exist at a time."""
    for index, taps in enumerate(taps_of_pictures):
        pool.put(index, taps)
    return pool
