"""Samples are addresses: sample `i` of seed `s` is a pure function of (bundle, s, i).

"Samples are addresses" in protos/README.md has the rule, complete enough to write it again in any language. numpy's own
`log`, `sin` and `cos` differ in the last bits between processors, which is why they are not used here; its elementwise
+ - * / sqrt store each result before the next operation, so nothing is fused.
"""

from __future__ import annotations

import math
import operator

import numpy as np
import numpy.typing as npt

from labelmint.errors import AddressError

__all__ = [
    "CLASS_DOMAIN",
    "NOISE_DOMAIN",
    "NUM_INDICES",
    "Z_DOMAIN",
    "class_indices",
    "latents",
    "noise",
    "philox4x64",
]

NUM_INDICES = 2**64
"""Indices, and seeds too, lie in [0, NUM_INDICES)."""
Z_DOMAIN = 0
CLASS_DOMAIN = 1
NOISE_DOMAIN = 2

_U64Array = npt.NDArray[np.uint64]
_F64Array = npt.NDArray[np.float64]

_NUM_ROUNDS = 10
_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_WORD_MASK = 2**64 - 1
_HALF_MASK = np.uint64(0xFFFFFFFF)
_HALF_BITS = np.uint64(32)
_FRACTION_SHIFT = np.uint64(11)

_LN2_HIGH = 0.6931471803691238
_LN2_LOW = 1.9082149292705877e-10
_SQRT2 = 1.4142135623730951
_HALF_PI = 1.5707963267948966
_LN_COEFFICIENTS = tuple(1.0 / n for n in range(1, 24, 2))
_SIN_COEFFICIENTS = tuple((-1.0) ** (n // 2) / float(math.factorial(n)) for n in range(1, 18, 2))
_COS_COEFFICIENTS = tuple((-1.0) ** (n // 2) / float(math.factorial(n)) for n in range(0, 19, 2))


def philox4x64(key: tuple[int, int], counters: _U64Array) -> _U64Array:
    """Philox4x64-10, the published function, for many counters at once.

    Args:
        key: Two words in [0, 2**64).
        counters: uint64 [..., 4].

    Returns:
        uint64 [..., 4], one block for each counter.

    Raises:
        AddressError: A key word is out of range or the counters are not uint64 [..., 4].
    """
    if counters.dtype != np.uint64 or counters.ndim < 1 or counters.shape[-1] != 4:
        raise AddressError(
            f"counters is {counters.dtype} {list(counters.shape)}, expected uint64 [..., 4]; convert it first",
            field="counters",
        )
    key0, key1 = (_checked_word(word, "key") for word in key)
    # Slices, not items: arithmetic of numpy scalars warns where that of arrays wraps around.
    word0, word1, word2, word3 = (counters[..., position : position + 1] for position in range(4))
    for _ in range(_NUM_ROUNDS):
        high0, low0 = _multiply(_MULTIPLIERS[0], word0)
        high1, low1 = _multiply(_MULTIPLIERS[1], word2)
        word0, word1 = high1 ^ word1 ^ np.uint64(key0), low1
        word2, word3 = high0 ^ word3 ^ np.uint64(key1), low0
        key0 = (key0 + _WEYL[0]) & _WORD_MASK
        key1 = (key1 + _WEYL[1]) & _WORD_MASK
    return np.concatenate([word0, word1, word2, word3], axis=-1)


def latents(seed: int, indices: _U64Array, z_dim: int) -> npt.NDArray[np.float32]:
    """Make the latents z of some samples.

    Args:
        seed: In [0, 2**64).
        indices: uint64 [N] (any integer type without negative values will do), in any order.
        z_dim: Length of a latent, at least 1.

    Returns:
        float32 [N, z_dim], standard normal. A row depends on its index alone.

    Raises:
        AddressError: The seed, an index or the length is out of range.
    """
    return _normals(seed, _checked_indices(indices), Z_DOMAIN, _checked_count(z_dim, "z_dim"))


def noise(seed: int, index: int, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Make the noise of one sample.

    Args:
        seed: In [0, 2**64).
        index: In [0, 2**64).
        shape: Sizes of the noise array, each at least 1.

    Returns:
        float32 of that shape, standard normal, filled in row-major order.

    Raises:
        AddressError: The seed, the index or a size is out of range.
    """
    sizes = tuple(_checked_count(size, "shape") for size in shape)
    indices = np.array([_checked_word(index, "index")], dtype=np.uint64)
    return _normals(seed, indices, NOISE_DOMAIN, math.prod(sizes)).reshape(sizes)


def class_indices(seed: int, indices: _U64Array, distribution: _F64Array) -> npt.NDArray[np.int64]:
    """Draw the class of some samples of a conditional model.

    Args:
        seed: In [0, 2**64).
        indices: uint64 [N] (any integer type without negative values will do), in any order.
        distribution: float64 [C], probabilities that sum to 1 within 1e-6.

    Returns:
        int64 [N], values in [0, C).

    Raises:
        AddressError: The seed or an index is out of range, or the distribution is none.
    """
    sums = _checked_cumulative(distribution)
    words = _blocks(seed, _checked_indices(indices), CLASS_DOMAIN, num_blocks=1)[:, 0, 0]
    drawn = np.searchsorted(sums, _fractions(words).astype(np.float64) * 2.0**-53, side="right")
    last_possible = int(np.flatnonzero(distribution)[-1])
    return np.minimum(drawn, last_possible).astype(np.int64)


def _normals(seed: int, indices: _U64Array, domain: int, count: int) -> npt.NDArray[np.float32]:
    num_blocks = -(-count // 4)
    words = _blocks(seed, indices, domain, num_blocks)
    pairs = words.reshape(len(indices), 2 * num_blocks, 2)  # [N, pairs, 2]
    radius = np.sqrt(-2.0 * _ln((_fractions(pairs[..., 0]) + np.uint64(1)).astype(np.float64) * 2.0**-53))
    cosine, sine = _cos_sin(_fractions(pairs[..., 1]))
    normals = np.stack([radius * cosine, radius * sine], axis=-1)  # [N, pairs, 2]
    return normals.reshape(len(indices), 4 * num_blocks)[:, :count].astype(np.float32)


def _blocks(seed: int, indices: _U64Array, domain: int, num_blocks: int) -> _U64Array:
    """Return the words of blocks 0..num_blocks of each sample: uint64 [N, num_blocks, 4]."""
    key = (_checked_word(seed, "seed"), 0)
    counters = np.zeros((len(indices), num_blocks, 4), dtype=np.uint64)
    counters[..., 0] = np.arange(num_blocks, dtype=np.uint64)
    counters[..., 1] = indices[:, None]
    counters[..., 2] = domain
    return philox4x64(key, counters)


def _multiply(multiplier: int, words: _U64Array) -> tuple[_U64Array, _U64Array]:
    """Return the high and the low word of a 64 x 64 -> 128 bit product, from products of 32-bit halves."""
    high, low = np.uint64(multiplier >> 32), np.uint64(multiplier & 0xFFFFFFFF)
    words_high, words_low = words >> _HALF_BITS, words & _HALF_MASK
    first = high * words_low + ((low * words_low) >> _HALF_BITS)
    second = low * words_high + (first & _HALF_MASK)
    return high * words_high + (first >> _HALF_BITS) + (second >> _HALF_BITS), np.uint64(multiplier) * words


def _fractions(words: _U64Array) -> _U64Array:
    """Return the top 53 bits of each word."""
    return words >> _FRACTION_SHIFT


def _horner(variable: _F64Array, coefficients: tuple[float, ...]) -> _F64Array:
    total = np.full_like(variable, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total *= variable
        total += coefficient
    return total


def _ln(value: _F64Array) -> _F64Array:
    """Natural logarithm of float64 in [2**-53, 1]."""
    mantissa, exponent = np.frexp(value)  # exact: mantissa in [1/2, 1)
    mantissa = mantissa * 2.0
    is_large = mantissa > _SQRT2
    mantissa = np.where(is_large, mantissa * 0.5, mantissa)
    power = exponent.astype(np.float64) - 1.0 + is_large
    ratio = (mantissa - 1.0) / (mantissa + 1.0)
    series = (2.0 * ratio) * _horner(ratio * ratio, _LN_COEFFICIENTS)
    result: _F64Array = power * _LN2_HIGH + (power * _LN2_LOW + series)
    return result


def _cos_sin(turns: _U64Array) -> tuple[_F64Array, _F64Array]:
    """Cosine and sine of 2 pi k 2**-53 for k in [0, 2**53)."""
    nearest = (turns + np.uint64(2**50)) >> np.uint64(51)
    offset = turns.astype(np.int64) - (nearest << np.uint64(51)).astype(np.int64)
    angle = (offset.astype(np.float64) * 2.0**-51) * _HALF_PI
    square = angle * angle
    sine = angle * _horner(square, _SIN_COEFFICIENTS)
    cosine = _horner(square, _COS_COEFFICIENTS)
    quadrant = nearest & np.uint64(3)
    is_odd = (quadrant & np.uint64(1)) == 1
    first, second = np.where(is_odd, sine, cosine), np.where(is_odd, cosine, sine)
    is_first_negated = (quadrant == 1) | (quadrant == 2)
    is_second_negated = quadrant >= 2
    return np.where(is_first_negated, -first, first), np.where(is_second_negated, -second, second)


def _checked_word(value: int, field: str) -> int:
    try:
        word = operator.index(value)
    except TypeError:
        word = -1
    if not 0 <= word < NUM_INDICES:
        raise AddressError(f"{field} is {value!r}, expected an integer in [0, 2**64); choose another", field=field)
    return word


def _checked_count(value: int, field: str) -> int:
    count = _checked_word(value, field)
    if not 1 <= count < 2**31:
        raise AddressError(f"{field} is {value!r}, expected an integer in [1, 2**31); choose another", field=field)
    return count


def _checked_indices(indices: _U64Array) -> _U64Array:
    array = np.asarray(indices)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise AddressError(
            f"indices is {array.dtype} {list(array.shape)}, expected uint64 [N]; "
            "make it with np.array(..., dtype=np.uint64)",
            field="indices",
        )
    if array.dtype.kind == "i" and array.size and array.min() < 0:
        raise AddressError(
            f"indices holds {array.min()}, expected integers in [0, 2**64); leave negative ones out", field="indices"
        )
    return array.astype(np.uint64, copy=False)


def _checked_cumulative(distribution: _F64Array) -> _F64Array:
    sums = np.asarray(distribution, dtype=np.float64)
    if sums.ndim != 1 or not sums.size or not np.isfinite(sums).all() or sums.min() < 0:
        raise AddressError(
            f"distribution is {distribution!r}, expected float64 [C], C at least 1, finite and not negative; "
            "take it from the manifest",
            field="distribution",
        )
    sums = np.add.accumulate(sums)  # strictly from left to right
    if abs(sums[-1] - 1.0) > 1e-6:
        raise AddressError(
            f"distribution sums to {sums[-1]!r}, expected 1 within 1e-6; divide it by its sum", field="distribution"
        )
    return sums
