"""The interpreter of a bundle as kernels for a GPU, in Triton's language.

They do what interpreter.cpp does, in the order that suits tensor cores:

    project   first layer of all members on the pixels of one coarse level: taps [C, r * r] -> planes [r * r, U]
    merge     sum of the planes below q = H / 4 on the grid of q + 1 points a side that keeps every knot of it
    raise     taps of the levels above q at full resolution, pixels first: [H * W, F]
    label     a tile of 8 x 16 pixels, member by member: resizing of the coarse sums (as products with small matrices),
              the fine taps' first layer, rectification, layers 2 and 3, softmax, vote and divergence; hidden units
              never reach memory
    heatmaps  the same for the regressors: the sum of their outputs
    finish    the frame of labels and divergence as it is delivered, and how often each divergence occurs in it
    highest   the largest value of each heatmap with its neighbours

Matrices are multiplied in the dtype of the tables (float16; float32 for tests) and added up in float32. Sizes, channels
and counts of members and classes are arguments; compiled in are only the widths of the members, so that a few binaries
serve every bundle. compile_gpu.py makes these binaries, which the service launches without Triton; in the tests
Triton's interpreter runs the kernels on the processor.

Legend: N pictures, H = W label resolution, q = H / 4, r level, U hidden units of all members (each member's padded to
H1), F fine channels (padded), M members, C classes, K outputs padded to a power of two, P pixels of a tile.
"""

import triton
import triton.language as tl

TILE_ROWS = 8
TILE_COLUMNS = 16


@triton.jit
def project(
    taps,  # [N, channels, area]
    weight,  # [channels, units]
    planes,  # [N, total_area, units]; this level begins at `first_pixel`
    channels,
    area,
    units,
    first_pixel,
    total_area,
    PIXELS: tl.constexpr,
    UNITS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Program (pixel block, unit block, picture)."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    unit = tl.program_id(1) * UNITS + tl.arange(0, UNITS)
    n = tl.program_id(2).to(tl.int64)
    total = tl.zeros((PIXELS, UNITS), tl.float32)
    for start in range(0, channels, CHANNELS):
        channel = start + tl.arange(0, CHANNELS)
        x = tl.load(
            taps + (n * channels + channel[None, :]) * area + pixel[:, None],
            mask=(channel[None, :] < channels) & (pixel[:, None] < area),
            other=0.0,
        )
        w = tl.load(
            weight + channel[:, None] * units + unit[None, :],
            mask=(channel[:, None] < channels) & (unit[None, :] < units),
            other=0.0,
        )
        total = tl.dot(x.to(w.dtype), w, total)
    place = (n * total_area + first_pixel + pixel[:, None]) * units + unit[None, :]
    tl.store(
        planes + place,
        total.to(planes.dtype.element_ty),
        mask=(pixel[:, None] < area) & (unit[None, :] < units),
    )


@triton.jit
def _between(position, count):
    """Two neighbours of a position on `count` samples, and the weight of the second."""
    position = tl.maximum(position, 0.0)
    low = tl.minimum(position.to(tl.int32), count - 1)
    return low, tl.minimum(low + 1, count - 1), position - low.to(tl.float32)


@triton.jit
def _ratio(a, b):
    """Of two whole numbers, rounded as IEEE has it: `/` may be an approximation on a device."""
    return tl.div_rn(a.to(tl.float32), b.to(tl.float32))


@triton.jit
def _level_at(planes, first, x, y, unit, units, fits, resolution, quarter):
    """One level, from pixel `first` of the planes on, at points of the grid: float32 [points, units]."""
    scale = _ratio(resolution, quarter)
    top, bottom, v = _between(y * scale - 0.5, resolution)
    left, right, h = _between(x * scale - 0.5, resolution)
    total = tl.zeros(fits.shape, tl.float32)
    for corner in tl.static_range(4):
        row = bottom if corner // 2 else top
        column = right if corner % 2 else left
        share = (v if corner // 2 else 1.0 - v) * (h if corner % 2 else 1.0 - h)
        place = (first + row * resolution + column)[:, None] * units + unit[None, :]
        total += share[:, None] * tl.load(planes + place, mask=fits, other=0.0).to(tl.float32)
    return total


@triton.jit
def merge(
    planes,  # [N, total_area, units]: levels coarsest, 2 coarsest, ... below quarter, one after the other
    bias,  # [units], float32
    grid,  # [N, (quarter + 1)^2, units]
    units,
    total_area,
    quarter,
    coarsest,
    present,  # bit l: whether level coarsest * 2^l exists
    num_levels,
    POINTS: tl.constexpr,
    UNITS: tl.constexpr,
):
    """Program (point block, unit block, picture)."""
    side = quarter + 1
    point = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    unit = tl.program_id(1) * UNITS + tl.arange(0, UNITS)
    n = tl.program_id(2).to(tl.int64)
    fits = (point[:, None] < side * side) & (unit[None, :] < units)
    y, x = (point // side).to(tl.float32), (point % side).to(tl.float32)
    total = tl.zeros((POINTS, UNITS), tl.float32)
    total += tl.load(bias + unit, mask=unit < units, other=0.0)[None, :]
    first = n * total_area
    resolution = coarsest
    for level in range(num_levels):
        if (present >> level) & 1 != 0:
            total += _level_at(planes, first, x, y, unit, units, fits, resolution, quarter)
            first += resolution * resolution
        resolution = resolution * 2
    place = (n * side * side + point[:, None]) * units + unit[None, :]
    tl.store(grid + place, total.to(grid.dtype.element_ty), mask=fits)


@triton.jit
def raise_fine(
    taps,  # [N, channels, r, r], r a power of two times or part of size
    fine,  # [N, size * size, total_channels]; these channels begin at `first_channel`
    channels,
    first_channel,
    total_channels,
    resolution,
    size,
    first_row,  # of those that are wanted
    blocks,  # of COLUMNS pixels, in a row of the picture
    COLUMNS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Program (row and block of columns, channel block, picture); bilinear, align_corners false."""
    y, x0 = first_row + tl.program_id(0) // blocks, tl.program_id(0) % blocks * COLUMNS
    # Columns come last, so that neighbouring threads read neighbouring pixels.
    x = (x0 + tl.arange(0, COLUMNS))[None, :]
    channel = (tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS))[:, None]
    n = tl.program_id(2).to(tl.int64)
    fits = (x < size) & (channel < channels)
    written = (x < size) & (first_channel + channel < total_channels)
    plane = taps + (n * channels + channel) * (resolution * resolution)
    value = tl.zeros((CHANNELS, COLUMNS), tl.float32)
    if resolution == size:
        value += tl.load(plane + y * size + x, mask=fits, other=0.0).to(tl.float32)
    else:
        scale = _ratio(resolution, size)
        top, bottom, v = _between((y.to(tl.float32) + 0.5) * scale - 0.5, resolution)
        left, right, h = _between((x.to(tl.float32) + 0.5) * scale - 0.5, resolution)
        for corner in tl.static_range(4):
            row = bottom if corner // 2 else top
            column = right if corner % 2 else left
            share = (v if corner // 2 else 1.0 - v) * (h if corner % 2 else 1.0 - h)
            value += share * tl.load(plane + row * resolution + column, mask=fits, other=0.0).to(tl.float32)
    place = (n * size * size + y * size + x) * total_channels + first_channel + channel
    # Behind the last level's channels come those of the padding, which are zero; the next level overwrites its own.
    tl.store(fine + place, value.to(fine.dtype.element_ty), mask=written)


@triton.jit
def _coarse_sums(
    grid,
    planes,
    n,
    y0,
    x0,
    rows,
    columns,
    unit,
    units,
    first_of_quarter,
    total_area,
    quarter,
):
    """Sums of the levels up to q at the pixels of a tile, float32 [P, units of one member], by one product."""
    k = tl.arange(0, 64)
    y, x = (y0 + rows + 0.5) / 4, (x0 + columns + 0.5) / 4  # [P, 1]
    # The grid has a point every 4 pixels: the tile lies between 3 rows and 5 columns of them.
    side = quarter + 1
    row, column = y0 // 4 + k // 5, x0 // 4 + k % 5
    on_grid = (k < 15) & (row < side) & (column < side)
    v = 1.0 - tl.abs(y - row.to(tl.float32)[None, :])
    h = 1.0 - tl.abs(x - column.to(tl.float32)[None, :])
    share = tl.where(on_grid[None, :], tl.maximum(v, 0.0) * tl.maximum(h, 0.0), 0.0)
    place = grid + (n * side * side + row * side + column) * units
    # Samples of q lie at 2 + 4 i: 4 rows and 6 columns of them, the outermost repeated at borders.
    of_quarter = (k >= 16) & (k < 40)
    point_row, point_column = y0 // 4 - 1 + (k - 16) // 6, x0 // 4 - 1 + (k - 16) % 6
    v = 1.0 - tl.abs(y - 0.5 - point_row.to(tl.float32)[None, :])
    h = 1.0 - tl.abs(x - 0.5 - point_column.to(tl.float32)[None, :])
    share += tl.where(of_quarter[None, :], tl.maximum(v, 0.0) * tl.maximum(h, 0.0), 0.0)
    row = tl.minimum(tl.maximum(point_row, 0), quarter - 1)
    column = tl.minimum(tl.maximum(point_column, 0), quarter - 1)
    sample = planes + (n * total_area + first_of_quarter + row * quarter + column) * units
    place = tl.multiple_of(tl.where(of_quarter, sample, place), 16)[:, None] + unit[None, :]
    values = tl.load(place, mask=(on_grid | of_quarter)[:, None], other=0.0)
    return tl.dot(share.to(values.dtype), values)


@triton.jit
def _tile(n, y0, x0, size, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Of a tile's pixels: rows and columns from its corner on, places in the batch, whether they are inside. [P, 1]."""
    p = tl.arange(0, ROWS * COLUMNS)
    rows, columns = (p // COLUMNS)[:, None], (p % COLUMNS)[:, None]
    pixel = (n * size + y0 + rows) * size + x0 + columns
    return rows, columns, pixel, (y0 + rows < size) & (x0 + columns < size)


@triton.jit
def _rectified(x, dtype):
    """Its positive part in the dtype of the products. NaN survives: it is how a picture that is none is found out."""
    return tl.maximum(x.to(dtype), 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _fine_taps(fine, pixel, inside, fine_channels, start, FINE_STEP: tl.constexpr):
    """FINE_STEP channels of the fine taps at the pixels of a tile, [P, FINE_STEP]."""
    f = start + tl.arange(0, FINE_STEP)
    return tl.load(fine + pixel * fine_channels + f[None, :], mask=inside, other=0.0)


@triton.jit
def _fine_weights(weight1, unit, units, start, FINE_STEP: tl.constexpr):
    """Weights of these channels for one member's hidden units, [FINE_STEP, H1]."""
    f = start + tl.arange(0, FINE_STEP)
    return tl.load(weight1 + f[:, None] * units + unit[None, :])


@triton.jit
def _kept_taps(fine, pixel, inside, fine_channels, FINE_STEP: tl.constexpr, KEPT: tl.constexpr):
    """All fine taps of a tile if their number is compiled in, so that each is read once: pieces of two steps, then one.

    A product waits for the one before, so a few large ones are faster.
    """
    kept = ()
    for pair in tl.static_range(KEPT // 2):
        kept = kept + (_fine_taps(fine, pixel, inside, fine_channels, pair * 2 * FINE_STEP, 2 * FINE_STEP),)  # noqa: RUF005
    if KEPT % 2:
        first: tl.constexpr = (KEPT - 1) * FINE_STEP
        kept = kept + (_fine_taps(fine, pixel, inside, fine_channels, first, FINE_STEP),)  # noqa: RUF005
    return kept


@triton.jit
def _member_outputs(
    m,
    first_unit,
    n,
    y0,
    x0,
    kept,  # of _kept_taps
    grid,
    planes,
    fine,
    weight1,  # [F, units]
    weight2,  # [M, H1, H2]
    bias2,  # [M, H2]
    weight3,  # [M, H2, K]
    bias3,  # [M, K]
    units,
    first_of_quarter,
    total_area,
    size,
    fine_channels,
    outputs,
    FINE_STEP: tl.constexpr,
    KEPT: tl.constexpr,
    PART: tl.constexpr,
    H1: tl.constexpr,
    H2: tl.constexpr,
    OUTPUTS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Outputs of one member at the pixels of a tile, float32 [P, K]; those behind `outputs` are about -1e30."""
    rows, columns, pixel, inside = _tile(n, y0, x0, size, ROWS, COLUMNS)
    j, k = tl.arange(0, H2), tl.arange(0, OUTPUTS)
    second = tl.zeros((ROWS * COLUMNS, H2), tl.float32)
    # Hidden units come in parts that fit into registers.
    for first in tl.static_range(0, H1, PART):
        i = first + tl.arange(0, PART)
        unit = first_unit + m * H1 + i
        hidden = _coarse_sums(
            grid, planes, n, y0, x0, rows, columns, unit, units, first_of_quarter, total_area, size // 4
        )
        if KEPT:
            for pair in tl.static_range(KEPT // 2):
                weight = _fine_weights(weight1, unit, units, pair * 2 * FINE_STEP, 2 * FINE_STEP)
                hidden = tl.dot(kept[pair], weight, hidden)
            if KEPT % 2:
                weight = _fine_weights(weight1, unit, units, (KEPT - 1) * FINE_STEP, FINE_STEP)
                hidden = tl.dot(kept[KEPT // 2], weight, hidden)
        else:
            for start in range(0, fine_channels, FINE_STEP):
                x = _fine_taps(fine, pixel, inside, fine_channels, start, FINE_STEP)
                hidden = tl.dot(x, _fine_weights(weight1, unit, units, start, FINE_STEP), hidden)
        w2 = tl.load(weight2 + (m * H1 + i[:, None]) * H2 + j[None, :])
        second = tl.dot(_rectified(hidden, w2.dtype), w2, second)
    second += tl.load(bias2 + m * H2 + j)[None, :]
    w3 = tl.load(weight3 + (m * H2 + j[:, None]) * OUTPUTS + k[None, :])
    # No vote, sum or mean sees the outputs of the padding.
    bias = tl.load(bias3 + m * OUTPUTS + k, mask=k < outputs, other=-1e30)
    return tl.dot(_rectified(second, w3.dtype), w3) + bias[None, :]


@triton.jit
def label(
    grid,  # [N, (q + 1)^2, units]
    planes,  # [N, total_area, units]; the level of q begins at `first_of_quarter`
    fine,  # [N, size * size, F]
    weight1,  # [F, units]
    weight2,  # [M, H1, H2]
    bias2,  # [M, H2], float32
    weight3,  # [M, H2, OUTPUTS]
    bias3,  # [M, OUTPUTS], float32
    labels,  # uint8 [N, size, size]
    divergence,  # float32 [N, size, size], NaN where a logit is not finite
    units,
    first_of_quarter,
    total_area,
    first_row,  # of the picture that is wanted, a multiple of ROWS
    size,
    fine_channels,
    members,
    classes,
    rule,  # 0 majority, 1 mean probability, 2 mean logits
    FINE_STEP: tl.constexpr,
    KEPT: tl.constexpr,  # steps of FINE_STEP fine channels that are kept; 0 if their number is not compiled in
    PART: tl.constexpr,  # of H1
    H1: tl.constexpr,
    H2: tl.constexpr,
    OUTPUTS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Program (tile column, tile row, picture)."""
    n = tl.program_id(2).to(tl.int64)
    y0, x0 = first_row + tl.program_id(1) * ROWS, tl.program_id(0) * COLUMNS
    _, _, pixel, inside = _tile(n, y0, x0, size, ROWS, COLUMNS)
    kept = _kept_taps(fine, pixel, inside, fine_channels, FINE_STEP, KEPT)
    c = tl.arange(0, OUTPUTS)[None, :]
    votes = tl.zeros((ROWS * COLUMNS, OUTPUTS), tl.float32)
    mean = tl.zeros((ROWS * COLUMNS, OUTPUTS), tl.float32)
    entropy = tl.zeros((ROWS * COLUMNS,), tl.float32)
    for m in range(members):
        logits = _member_outputs(
            m, 0, n, y0, x0, kept, grid, planes, fine, weight1, weight2, bias2, weight3, bias3, units,
            first_of_quarter, total_area, size, fine_channels, classes,
            FINE_STEP, KEPT, PART, H1, H2, OUTPUTS, ROWS, COLUMNS,
        )  # fmt: skip
        largest = tl.max(logits, axis=1)[:, None]
        below = logits - largest
        e = tl.exp(below)
        share = 1.0 / tl.sum(e, axis=1)
        mean += e * share[:, None]
        # The logarithm of the sum is that of its inverse, below zero.
        entropy -= tl.log(share) + tl.sum(e * below, axis=1) * share
        if rule == 0:
            # The lowest of equal logits, as argmax has it.
            winner = tl.min(tl.where(logits == largest, c, OUTPUTS), axis=1)[:, None]
            votes += tl.where(c == winner, 1.0, 0.0)
        elif rule == 2:
            votes += logits
    score = tl.where(rule == 1, mean, votes)
    best = tl.max(score, axis=1)[:, None]
    winner = tl.min(tl.where(score == best, c, OUTPUTS), axis=1)[:, None]
    mean = mean / members
    of_mean = -tl.sum(mean * tl.log(tl.maximum(mean, 1e-30)), axis=1)
    spread = of_mean - entropy / members
    spread = tl.where(spread <= 0.0, 0.0, spread)[:, None]
    tl.store(labels + pixel, winner.to(tl.uint8), mask=inside)
    tl.store(divergence + pixel, spread, mask=inside)


@triton.jit
def heatmaps(
    grid,
    planes,
    fine,
    weight1,
    weight2,
    bias2,
    weight3,
    bias3,
    heat,  # float32 [N, points, size, size]
    first_unit,  # of the regressors, behind the classifiers' units
    units,
    first_of_quarter,
    total_area,
    size,
    fine_channels,
    members,
    points,
    FINE_STEP: tl.constexpr,
    KEPT: tl.constexpr,
    PART: tl.constexpr,
    H1: tl.constexpr,
    H2: tl.constexpr,
    OUTPUTS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Sum of the regressors' outputs; program (tile column, tile row, picture)."""
    n = tl.program_id(2).to(tl.int64)
    y0, x0 = tl.program_id(1) * ROWS, tl.program_id(0) * COLUMNS
    rows, columns, pixel, inside = _tile(n, y0, x0, size, ROWS, COLUMNS)
    kept = _kept_taps(fine, pixel, inside, fine_channels, FINE_STEP, KEPT)
    total = tl.zeros((ROWS * COLUMNS, OUTPUTS), tl.float32)
    for m in range(members):
        total += _member_outputs(
            m, first_unit, n, y0, x0, kept, grid, planes, fine, weight1, weight2, bias2, weight3, bias3, units,
            first_of_quarter, total_area, size, fine_channels, points,
            FINE_STEP, KEPT, PART, H1, H2, OUTPUTS, ROWS, COLUMNS,
        )  # fmt: skip
    k = tl.arange(0, OUTPUTS)[None, :]
    place = ((n * points + k) * size + y0 + rows) * size + x0 + columns
    tl.store(heat + place, total, mask=(k < points) & inside)


@triton.jit
def _is_bad(value):
    """Whether float32 values are infinite or none."""
    return (value.to(tl.int32, bitcast=True) & 0x7F800000) == 0x7F800000


@triton.jit
def finish(
    labels,  # uint8 [N, size, size]
    divergence,  # float32 [N, size, size]
    label_frame,  # uint8 [N, height, width]
    map_frame,  # float16 [N, height, width]
    counts,  # int32 [N, bins + 1], zero before: pixels of each float16 above zero by its bits, then those not finite
    size,
    first_row,  # of the rows that were computed
    top,
    left,
    height,
    width,
    bins,
    COLUMNS: tl.constexpr,
):
    """Program (block of columns, row from `first_row` on, picture)."""
    x = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    y = first_row + tl.program_id(1) + tl.zeros((COLUMNS,), tl.int32)
    n = tl.program_id(2).to(tl.int64)
    there = (x < size) & (y < size)
    value = tl.load(divergence + (n * size + y) * size + x, mask=there, other=0.0)
    is_bad = _is_bad(value)
    framed = there & (y >= top) & (y < top + height) & (x >= left) & (x < left + width)
    place = (n * height + y - top) * width + x - left
    rounded = value.to(tl.float16)
    tl.store(map_frame + place, rounded, mask=framed)
    tl.store(label_frame + place, tl.load(labels + (n * size + y) * size + x, mask=framed, other=0), mask=framed)
    bits = rounded.to(tl.int16, bitcast=True).to(tl.int32)
    # Nothing is counted for zero: it adds nothing to a sum, and most pixels would meet at one number.
    tl.atomic_add(counts + n * (bins + 1) + bits, 1, mask=framed & (bits > 0) & (bits < bins))
    num_bad = tl.sum(tl.where(there & is_bad, 1, 0))
    tl.atomic_add(counts + n * (bins + 1) + bins, num_bad)


@triton.jit
def highest(
    heat,  # float32 [planes, size, size]
    places,  # int32 [planes]: where the largest value is, the first of equal ones
    values,  # float32 [planes, 8]: it, its neighbours left, right, above and below, values not finite, two unused
    size,
    PIXELS: tl.constexpr,
):
    """Program (plane)."""
    plane = tl.program_id(0).to(tl.int64)
    area = size * size
    heat += plane * area
    lane = tl.arange(0, PIXELS)
    best = tl.full((PIXELS,), -float("inf"), tl.float32)
    best_at = tl.zeros((PIXELS,), tl.int32)
    num_bad = tl.zeros((PIXELS,), tl.int32)
    for start in range(0, area, PIXELS):
        at = start + lane
        there = at < area
        value = tl.load(heat + at, mask=there, other=-float("inf"))
        is_better = value > best
        best = tl.where(is_better, value, best)
        best_at = tl.where(is_better, at, best_at)
        num_bad += tl.where(there & _is_bad(value), 1, 0)
    largest = tl.max(best, axis=0)
    place = tl.min(tl.where(best == largest, best_at, area - 1), axis=0)
    tl.store(places + plane, place)
    out = values + plane * 8
    tl.store(out, largest)
    tl.store(out + 1, tl.load(heat + tl.maximum(place - 1, 0)))
    tl.store(out + 2, tl.load(heat + tl.minimum(place + 1, area - 1)))
    tl.store(out + 3, tl.load(heat + tl.maximum(place - size, 0)))
    tl.store(out + 4, tl.load(heat + tl.minimum(place + size, area - 1)))
    tl.store(out + 5, tl.sum(num_bad, axis=0).to(tl.float32))
