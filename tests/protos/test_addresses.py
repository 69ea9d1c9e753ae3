import json
import math
import struct
import time
from pathlib import Path
from random import Random
from typing import TypedDict

import mpmath
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelmint import addresses
from labelmint.addresses import class_indices, latents, noise, philox4x64
from labelmint.errors import AddressError
from tests.protos import scalar_addresses

U64 = st.integers(0, 2**64 - 1)
GOLDEN = json.loads((Path(__file__).parent / "golden_addresses.json").read_text())


class GoldenBits(TypedDict):
    seed: str
    index: str
    bits: list[str]


class GoldenClasses(TypedDict):
    seed: str
    first_16: list[int]


def u64(*values: int) -> npt.NDArray[np.uint64]:
    return np.array(values, dtype=np.uint64)


def bits_of(values: npt.NDArray[np.float32]) -> list[str]:
    return [struct.pack(">f", value).hex() for value in values.ravel()]


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        ("0" * 32, "0" * 64, "16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b"),
        ("f" * 32, "f" * 64, "87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0"),
        (
            "452821e638d01377be5466cf34e90c6c",
            "243f6a8885a308d313198a2e03707344a4093822299f31d0082efa98ec4e6c89",
            "a528f45403e61d95 38c72dbd566e9788 a5a1610e72fd18b5 57bd43b5e52b7fe6",
        ),
    ],
)
def test_philox_gives_the_known_answers_of_random123(key: str, counter: str, expected: str) -> None:
    words = [int(counter[start : start + 16], 16) for start in range(0, 64, 16)]
    block = philox4x64((int(key[:16], 16), int(key[16:], 16)), u64(*words))
    assert [f"{int(word):016x}" for word in block] == expected.split()


def test_philox_agrees_with_numpy_which_counts_before_its_first_block() -> None:
    generator = np.random.Philox(key=u64(77, 5), counter=u64(2**64 - 1, 3, 4, 2**64 - 2))
    # numpy carries from the lowest counter word into the next one.
    expected = generator.random_raw(8).reshape(2, 4)
    actual = philox4x64((77, 5), np.array([[0, 4, 4, 2**64 - 2], [1, 4, 4, 2**64 - 2]], dtype=np.uint64))
    assert (actual == expected).all()


@given(U64, U64, st.lists(st.tuples(U64, U64, U64, U64), min_size=1, max_size=8))
def test_philox_of_many_counters_agrees_with_whole_number_arithmetic(
    key0: int, key1: int, counters: list[tuple[int, int, int, int]]
) -> None:
    actual = philox4x64((key0, key1), np.array(counters, dtype=np.uint64))
    expected = [list(scalar_addresses.philox4x64((key0, key1), counter)) for counter in counters]
    assert actual.tolist() == expected


def test_philox_keeps_the_leading_axes() -> None:
    counters = np.arange(24, dtype=np.uint64).reshape(2, 3, 4)
    assert philox4x64((1, 2), counters).shape == (2, 3, 4)
    assert (philox4x64((1, 2), counters)[1, 2] == philox4x64((1, 2), counters[1, 2])).all()


@pytest.mark.parametrize("case", GOLDEN["z"], ids=lambda case: f"{case['seed']}-{case['index']}")
def test_latents_are_the_golden_ones(case: GoldenBits) -> None:
    z = latents(int(case["seed"]), u64(int(case["index"])), len(case["bits"]))
    assert bits_of(z) == case["bits"]


@pytest.mark.parametrize("case", GOLDEN["z"], ids=lambda case: f"{case['seed']}-{case['index']}")
def test_golden_latents_are_box_muller_of_numpys_philox(case: GoldenBits) -> None:
    """Nothing of ours: numpy draws the words, mpmath computes from them, and each number is rounded once."""
    bits: list[str] = []
    for block in range(math.ceil(len(case["bits"]) / 4)):
        counter = (int(case["index"]) << 64) + block
        philox = np.random.Philox(key=int(case["seed"]), counter=(counter - 1) % 2**256)  # it counts before it draws
        words = philox.random_raw(4).tolist()
        for radius_word, angle_word in (words[:2], words[2:]):
            with mpmath.workprec(200):
                radius = mpmath.sqrt(-2 * mpmath.log(mpmath.mpf((radius_word >> 11) + 1) / 2**53))
                angle = 2 * mpmath.pi * mpmath.mpf(angle_word >> 11) / 2**53
                normals = [radius * mpmath.cos(angle), radius * mpmath.sin(angle)]
            with mpmath.workprec(24):
                bits += [struct.pack(">f", float(+normal)).hex() for normal in normals]
    assert bits[: len(case["bits"])] == case["bits"]


@pytest.mark.parametrize("case", GOLDEN["noise"], ids=lambda case: f"{case['seed']}-{case['index']}")
def test_noise_is_the_golden_one(case: GoldenBits) -> None:
    assert bits_of(noise(int(case["seed"]), int(case["index"]), (2, 3))) == case["bits"]


@pytest.mark.parametrize("case", GOLDEN["classes"], ids=lambda case: case["seed"])
def test_classes_are_the_golden_ones(case: GoldenClasses) -> None:
    drawn = class_indices(int(case["seed"]), np.arange(16, dtype=np.uint64), np.array(GOLDEN["class_distribution"]))
    assert drawn.tolist() == case["first_16"]


@given(U64, st.lists(U64, min_size=1, max_size=4), st.integers(1, 9))
def test_latents_agree_bit_for_bit_with_a_scalar_implementation(seed: int, indices: list[int], z_dim: int) -> None:
    z = latents(seed, u64(*indices), z_dim)
    expected = [scalar_addresses.normals(seed, index, 0, z_dim) for index in indices]
    assert z.tobytes() == np.array(expected, dtype=np.float64).astype(np.float32).tobytes()


def test_float64_normals_are_within_1e_14_of_the_true_ones() -> None:
    with mpmath.workprec(120):
        for index in range(100):
            pairs = scalar_addresses.uniform_pairs(3, index, 0, 8)
            true: list[mpmath.mpf] = []
            for radius_numerator, angle_numerator in pairs:
                radius = mpmath.sqrt(-2 * mpmath.log(mpmath.mpf(radius_numerator) / 2**53))
                angle = 2 * mpmath.pi * mpmath.mpf(angle_numerator) / 2**53
                true += [radius * mpmath.cos(angle), radius * mpmath.sin(angle)]
            actual = scalar_addresses.normals(3, index, 0, 8)
            assert max(abs(mpmath.mpf(a) - t) for a, t in zip(actual, true, strict=True)) < 1e-14


# The smallest and largest radius, the ends of each quadrant, and the seams of the range reductions.
_NUMERATORS = [1, 2, 3, 2**52 - 1, 2**52, 2**52 + 1, 2**53 - 2, 2**53 - 1, 2**53, 6369051672525773, 6369051672525772]
_TURNS = sorted({(octant * 2**50 + step) % 2**53 for octant in range(9) for step in (-1, 0, 1)})


def test_logarithm_is_accurate_at_its_seams() -> None:
    with mpmath.workprec(120):
        for numerator in _NUMERATORS:
            value = np.array([numerator * 2.0**-53])
            true = mpmath.log(mpmath.mpf(numerator) / 2**53)
            # A test of the parts: a whole sample rarely meets these ends.
            error = abs(mpmath.mpf(float(addresses._ln(value)[0])) - true)
            assert error <= abs(true) * 2.0**-51


def test_sine_and_cosine_are_accurate_at_their_seams() -> None:
    cosines, sines = addresses._cos_sin(np.array(_TURNS, dtype=np.uint64))
    with mpmath.workprec(120):
        for turn, cosine, sine in zip(_TURNS, cosines, sines, strict=True):
            angle = 2 * mpmath.pi * mpmath.mpf(turn) / 2**53
            assert abs(mpmath.mpf(float(cosine)) - mpmath.cos(angle)) < 2.0**-52
            assert abs(mpmath.mpf(float(sine)) - mpmath.sin(angle)) < 2.0**-52


def test_normals_are_finite_at_the_ends_of_the_uniform_range() -> None:
    assert float(addresses._ln(np.array([2.0**-53]))[0]) == pytest.approx(-53 * math.log(2), rel=1e-15)
    assert float(addresses._ln(np.array([1.0]))[0]) == 0.0


@given(U64, st.lists(U64, min_size=1, max_size=20, unique=True), st.randoms(use_true_random=False))
def test_a_sample_depends_on_its_address_alone(seed: int, indices: list[int], random: Random) -> None:
    shuffled = list(indices)
    random.shuffle(shuffled)
    whole = dict(zip(indices, latents(seed, u64(*indices), 7), strict=True))
    for index, z in zip(shuffled, latents(seed, u64(*shuffled), 7), strict=True):
        assert z.tobytes() == whole[index].tobytes()
        assert latents(seed, u64(index), 7)[0].tobytes() == z.tobytes()


def test_a_shorter_latent_is_the_beginning_of_a_longer_one() -> None:
    indices = u64(0, 5, 2**64 - 1)
    assert (latents(9, indices, 13) == latents(9, indices, 64)[:, :13]).all()


def test_domains_seeds_and_indices_do_not_repeat_each_other() -> None:
    rows = [latents(seed, u64(0, 1, 2, 3), 16) for seed in range(4)] + [noise(0, 0, (1, 16)), noise(1, 0, (1, 16))]
    values = np.concatenate([row.ravel() for row in rows])
    assert len(np.unique(values)) == values.size


def test_normals_have_the_moments_of_a_standard_normal() -> None:
    z = latents(0, np.arange(2000, dtype=np.uint64), 100).astype(np.float64)
    num_values = z.size
    # Five standard errors of each moment.
    assert abs(z.mean()) < 5 / math.sqrt(num_values)
    assert abs((z**2).mean() - 1) < 5 * math.sqrt(2 / num_values)
    assert abs((z**3).mean()) < 5 * math.sqrt(15 / num_values)
    assert abs((z**4).mean() - 3) < 5 * math.sqrt(96 / num_values)
    # Neighbours: within a pair, between pairs, between samples.
    for left, right in ((z[:, 0::2], z[:, 1::2]), (z[:, :-2], z[:, 2:]), (z[:-1], z[1:])):
        assert abs((left * right).mean()) < 5 / math.sqrt(left.size)


def test_classes_follow_their_distribution() -> None:
    distribution = np.array([0.5, 0.0, 0.125, 0.375])
    drawn = class_indices(11, np.arange(20_000, dtype=np.uint64), distribution)
    counts = np.bincount(drawn, minlength=4)
    assert counts[1] == 0
    for count, probability in zip(counts, distribution, strict=True):
        assert abs(count - 20_000 * probability) < 5 * math.sqrt(20_000 * 0.25)


@given(U64, U64, st.lists(st.integers(0, 5), min_size=1, max_size=6).filter(any))
def test_class_agrees_with_a_scalar_implementation(seed: int, index: int, weights: list[int]) -> None:
    distribution = np.array(weights, dtype=np.float64) / sum(weights)
    drawn = int(class_indices(seed, u64(index), distribution)[0])
    assert drawn == scalar_addresses.class_index(seed, index, distribution.tolist())
    assert weights[drawn] > 0


def test_rounding_of_the_distribution_never_draws_past_the_last_possible_class() -> None:
    # The sum stays below the largest draw, and the classes after it have probability zero.
    distribution = np.array([1.0 - 2.0**-21, 0.0, 0.0])
    assert set(class_indices(0, np.arange(5000, dtype=np.uint64), distribution).tolist()) == {0}


def test_last_addresses_of_the_index_space_work() -> None:
    z = latents(2**64 - 1, u64(2**64 - 1, 2**64 - 2, 2**63), 4)
    assert np.isfinite(z).all()
    assert len(np.unique(z)) == z.size


def test_signed_and_empty_indices_are_accepted() -> None:
    assert (latents(0, np.array([3, 4]), 5) == latents(0, u64(3, 4), 5)).all()
    assert latents(0, u64(), 5).shape == (0, 5)
    assert class_indices(0, u64(), np.array([1.0])).shape == (0,)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "7", None])
def test_seed_out_of_range_is_refused_by_name(seed: int) -> None:
    with pytest.raises(AddressError, match=r"seed is .*, expected an integer in \[0, 2\*\*64\)") as caught:
        latents(seed, u64(0), 4)
    assert caught.value.field == "seed"


@pytest.mark.parametrize(
    "indices", [np.array([-1]), np.array([0.0]), np.array([2**64], dtype=object), np.array(5), np.zeros((2, 2), int)]
)
def test_indices_out_of_range_are_refused_by_name(indices: npt.NDArray[np.uint64]) -> None:
    with pytest.raises(AddressError, match="indices") as caught:
        latents(0, indices, 4)
    assert caught.value.field == "indices"


@pytest.mark.parametrize(("call", "field"), [((0, 2**64, (1,)), "index"), ((0, 0, (2, 0)), "shape")])
def test_noise_out_of_range_is_refused_by_name(call: tuple[int, int, tuple[int, ...]], field: str) -> None:
    with pytest.raises(AddressError) as caught:
        noise(*call)
    assert caught.value.field == field


@pytest.mark.parametrize("z_dim", [0, -3, 2**31])
def test_impossible_latent_length_is_refused_by_name(z_dim: int) -> None:
    with pytest.raises(AddressError, match="z_dim") as caught:
        latents(0, u64(0), z_dim)
    assert caught.value.field == "z_dim"


@pytest.mark.parametrize(
    "distribution",
    [[], [0.5, 0.4], [np.nan, 1.0], [1.5, -0.5], [np.inf], [[1.0]]],
    ids=["empty", "sum", "nan", "negative", "infinite", "rank"],
)
def test_impossible_distribution_is_refused_by_name(distribution: list[float]) -> None:
    with pytest.raises(AddressError, match="distribution") as caught:
        class_indices(0, u64(0), np.array(distribution))
    assert caught.value.field == "distribution"


@pytest.mark.parametrize("counters", [np.zeros(4, np.int64), np.zeros((2, 3), np.uint64), np.uint64(0)])
def test_counters_of_another_kind_are_refused(counters: npt.NDArray[np.uint64]) -> None:
    with pytest.raises(AddressError, match="counters"):
        philox4x64((0, 0), np.asarray(counters))


def test_a_batch_of_latents_takes_little_time() -> None:
    indices = np.arange(16, dtype=np.uint64)
    durations_ns = []
    for _ in range(20):
        start_ns = time.perf_counter_ns()
        latents(0, indices, 512)
        durations_ns.append(time.perf_counter_ns() - start_ns)
    # Under 1 ms on an idle core; the best of many, as other work may share the machine.
    assert min(durations_ns) < 5_000_000
