"""The address rule a second time: one number at a time, in plain Python, from the text of labelmint.addresses."""

import math
import struct
from collections.abc import Iterator, Sequence

_MASK = 2**64 - 1


def philox4x64(key: tuple[int, int], counter: Sequence[int]) -> tuple[int, int, int, int]:
    key0, key1 = key
    word0, word1, word2, word3 = counter
    for _ in range(10):
        product0 = 0xD2E7470EE14C6C93 * word0
        product1 = 0xCA5A826395121157 * word2
        word0, word1, word2, word3 = (
            (product1 >> 64) ^ word1 ^ key0,
            product1 & _MASK,
            (product0 >> 64) ^ word3 ^ key1,
            product0 & _MASK,
        )
        key0 = (key0 + 0x9E3779B97F4A7C15) & _MASK
        key1 = (key1 + 0xBB67AE8584CAA73B) & _MASK
    return word0, word1, word2, word3


def uniform_pairs(seed: int, index: int, domain: int, count: int) -> Iterator[tuple[int, int]]:
    """Yield the 53-bit numerators of (radius, angle) for `count` normals, two normals a pair."""
    for block in range(math.ceil(count / 4)):
        words = philox4x64((seed, 0), (block, index, domain, 0))
        yield (words[0] >> 11) + 1, words[1] >> 11
        yield (words[2] >> 11) + 1, words[3] >> 11


def normals(seed: int, index: int, domain: int, count: int) -> list[float]:
    """Float64 normals before they are rounded to float32."""
    values: list[float] = []
    for radius_numerator, angle_numerator in uniform_pairs(seed, index, domain, count):
        radius = math.sqrt(-2.0 * _ln(radius_numerator * 2.0**-53))
        cosine, sine = _cos_sin(angle_numerator)
        values += [radius * cosine, radius * sine]
    return values[:count]


def class_index(seed: int, index: int, distribution: Sequence[float]) -> int:
    fraction = (philox4x64((seed, 0), (0, index, 1, 0))[0] >> 11) * 2.0**-53
    total = 0.0
    for position, probability in enumerate(distribution):
        total += probability
        if total > fraction:
            return position
    return max(position for position, probability in enumerate(distribution) if probability > 0.0)


def _horner(variable: float, coefficients: Sequence[float]) -> float:
    total = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        total = total * variable + coefficient
    return total


def _ln(value: float) -> float:
    bits = int(struct.unpack("<Q", struct.pack("<d", value))[0])
    exponent = (bits >> 52) - 1023
    mantissa = float(struct.unpack("<d", struct.pack("<Q", (bits & (2**52 - 1)) | (1023 << 52)))[0])
    if mantissa > 1.4142135623730951:
        mantissa, exponent = mantissa / 2.0, exponent + 1
    ratio = (mantissa - 1.0) / (mantissa + 1.0)
    series = _horner(ratio * ratio, [1.0 / n for n in (1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23)])
    return exponent * 0.6931471803691238 + (exponent * 1.9082149292705877e-10 + (2.0 * ratio) * series)


def _cos_sin(numerator: int) -> tuple[float, float]:
    quarter = (numerator + 2**50) >> 51
    angle = ((numerator - quarter * 2**51) * 2.0**-51) * 1.5707963267948966
    square = angle * angle
    sine = angle * _horner(square, [1.0, *(sign / float(math.factorial(n)) for sign, n in _signed(3, 17))])
    cosine = _horner(square, [1.0, *(sign / float(math.factorial(n)) for sign, n in _signed(2, 18))])
    return [(cosine, sine), (-sine, cosine), (-cosine, -sine), (sine, -cosine)][quarter % 4]


def _signed(first: int, last: int) -> list[tuple[float, int]]:
    return [((-1.0) ** (position + 1), n) for position, n in enumerate(range(first, last + 1, 2))]
