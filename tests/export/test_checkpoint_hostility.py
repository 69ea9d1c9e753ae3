"""Files that would crash, hang or fill the machine that reads them: each is refused within seconds and 2 GB."""

from __future__ import annotations

import gc
import io
import re
import struct
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from labelmint_export.annotations.mask_files import read_npy_masks
from labelmint_export.annotations.palettes import MaskPalette
from labelmint_export.checkpoints import ModuleRecord
from labelmint_export.checkpoints.classifiers import read_classifiers
from labelmint_export.checkpoints.loading import inspect_checkpoint, load_generator
from labelmint_export.checkpoints.stylegan2 import generator_from_record
from labelmint_export.errors import AnnotationError, CheckpointError
from labelmint_export.generator import TapSpec
from labelmint_export.npy_files import read_npy
from tests.export.nvidia_records import nvidia_record
from tests.export.plain_stylegan1 import make_state_dict
from tests.export.reading_apart import Outcome, read_apart
from tests.export.rosinality_states import repeated, repeated_state
from tests.export.tflib_files import make_stylegan1, make_stylegan2, write_snapshot
from tests.export.tiny_parts import make_config, make_generator_of

CHANNELS = {4: 5, 8: 4, 16: 3}
LARGE = {4 * 2**i: 1 for i in range(12)}
"""One feature map at each resolution up to 8192: kilobytes, but for the noise."""


def save(value: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def whole(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


def string(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def module(version: bytes) -> bytes:
    """A pickled module of some version."""
    meta = string("type") + string("class") + string("version") + version
    return b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n}(" + meta + b"u\x85R"


DEEP = b")" + b"\x85" * 200_000
"""A tuple in a tuple and so on: hashing it needs more stack than there is."""
LAUGHS = b"N" + b"q\x00h\x00\x86" * 60
"""A tuple of the same tuple twice and so on: hashing or printing it takes forever."""
DTYPE = b"cnumpy\ndtype\n"
PLACES = {
    "encoding": (b"c_codecs\nencode\n" + string("a"), b"\x86R", "a string and its encoding"),
    "encoded": (b"c_codecs\nencode\n", string("latin1") + b"\x86R", "a string and its encoding"),
    "dtype": (DTYPE + b"(", b"\x89\x88tR", r"an array has dtype \[.*\], expected one of b1"),
    "byte order": (
        DTYPE + string("f4") + b"\x89\x88\x87R(K\x03",
        b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
        r"an array has byte order \[.*\], expected '<'",
    ),
    "parts of a dtype": (
        DTYPE + string("f4") + b"\x89\x88\x87R(K\x03" + string("<"),
        b"NNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
        "structured dtype",
    ),
    "order of an array": (
        b"cnumpy.core.numeric\n_frombuffer\n(" + b"C\x00" + DTYPE + string("f4") + b"\x89\x88\x87RK\x00\x85",
        b"tR",
        r"an array's order is \[.*\], expected 'C'",
    ),
    "key of a pair": (b"ccollections\nOrderedDict\n]](", b"Nea\x85R", "pairs of a name and a value"),
    "member": (b"cbuiltins\nset\n](", b"e\x85R", "a list of names and integers"),
    "kind of a module": (
        b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n}(" + string("type"),
        string("version") + b"K\x06u\x85R",
        "expected a class of version 6",
    ),
    "version of a module": (module(b"")[:-3], b"u\x85R", r"is of version \[.*\], expected a class of version 6"),
    "version of a network": (
        b"cdnnlib.tflib.network\nNetwork\n)\x81}" + string("version"),
        b"sb",
        r"is of version \[.*\], expected one of",
    ),
    "dict's key": (b"}", b"Ns", "as a key"),
    "name of a global": (b"", string("a") + b"\x93", "names a global by what is no string"),
}


def legacy(version: bytes) -> bytes:
    magic = b"\x8a\x0a" + 0x1950A86A20F9469CFC6C.to_bytes(10, "little")
    return whole(magic) + whole(version) + whole(b"}")


def expanded_file(state: dict[str, torch.Tensor], **more: object) -> bytes:
    return save({"g_ema": state, **more})


def same_bytes_again(count: int) -> bytes:
    """Arrays of bool, each of which looks at the same two million bytes."""
    raw = b"B" + struct.pack("<I", 2_000_000) + b"\0" * 2_000_000
    dtype = DTYPE + string("b1") + b"\x89\x88\x87R"
    state = b"(K\x01J" + struct.pack("<i", 2_000_000) + b"\x85h\x01\x89h\x00t"
    array = b"cnumpy.core.multiarray\n_reconstruct\n)R" + state + b"b"
    return b"(" + raw + b"q\x00" + dtype + b"q\x01" + array * count + b"t"


EQUAL = "a" * 8_000_000


def state_that_fills_what_may_be_reached() -> dict[str, torch.Tensor]:
    """Kilobytes of which a generator is made: every weight is as large as repeated ones may be."""
    channels = {4 * 2**i: 240 for i in range(9)}
    return repeated_state(channels, widths=(512,) * 13, dtype=torch.half)


HOSTILE: dict[str, tuple[str, bytes, str]] = {
    **{place: ("load", whole(head + LAUGHS + tail), told) for place, (head, tail, told) in PLACES.items()},
    "legacy version": ("load", legacy(LAUGHS), r"is of version \[.*\] of torch's legacy format"),
    **{
        f"{place}, deep": ("load", whole(PLACES[place][0] + DEEP + PLACES[place][1]), PLACES[place][2])
        for place in ("encoding", "byte order")
    },
    "states again and again": (
        "load",
        whole(b"ccollections\nOrderedDict\n)R" + b"q\x00" * 80_000 + b"}b" * 80_000),
        "no generator but a dict",
    ),
    "many empty lists": ("load", whole(b"(" + b"]" * 240_000 + b"l"), "no generator but a list"),
    "many pairs": ("load", whole(b"(" + b"NN\x86" * 80_000 + b"t"), "no generator but a tuple"),
    "more values than there may be": (
        "load",
        whole(b"(" + b"]" * 490_000 + b"l"),
        "takes more than 250000 operations",
    ),
    "long keys that are equal": (
        "load",
        whole(b"(" + string(EQUAL) + b"q\x00" + string(EQUAL) + b"q\x01}" + b"h\x00Nsh\x01Ns" * 50_000 + b"t"),
        "as a key, expected an integer of 64 bits or a string of at most 1024 characters",
    ),
    "the same bytes again and again": ("load", whole(same_bytes_again(20_000)), "copies of the file's bytes"),
    "repeated weights": (
        "load",
        expanded_file({f"style.{index}.weight": repeated(2048, 2048) for index in range(1, 65)}),
        r"a tensor of shape \(2048, 2048\) repeats the 1 elements of its storage",
    ),
    "many repeated weights": (
        "load",
        expanded_file({f"w{index}": repeated(512, 512) for index in range(65)}),
        "unfolds to .* bytes, expected at most",
    ),
    "as many repeated weights as there may be": (
        "load",
        expanded_file(repeated_state(CHANNELS) | {f"w{i}": repeated(1024, 512, dtype=torch.half) for i in range(60)}),
        "w0 has no place",
    ),
    "a mean w of many multiplications": (
        "load",
        expanded_file(repeated_state(CHANNELS, widths=(512,) * 64, dtype=torch.half)),
        "expected at most 3145728 and 1024 to average 8000 latents; give the mean w with mean_latent",
    ),
    "a mean w of long latents": (
        "load",
        expanded_file(repeated_state({4: 1, 8: 1}, widths=(65536, 1))),
        "expected at most 3145728 and 1024 to average 8000 latents; give the mean w with mean_latent",
    ),
    "rosinality's noise": (
        "load",
        expanded_file(repeated_state(LARGE)),
        r"noise_19 is missing for a layer of 4096 x 4096, expected noise in the file for layers above 2048 x 2048",
    ),
    "rosinality's noise, stored": (
        "load",
        expanded_file(repeated_state(LARGE, noise=True)),
        "repeats the 1 elements of its storage",
    ),
    "DatasetGAN's noise": (
        "inspect",
        save({name: torch.from_numpy(array) for name, array in make_state_dict(LARGE).items()}),
        r"noise.b4096.epi1 is missing for a layer of 4096 x 4096, expected noise in the file",
    ),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    files = {name: (call, content) for name, (call, content, _) in HOSTILE.items()}
    files["made"] = ("load", expanded_file(state_that_fills_what_may_be_reached()))
    return read_apart(tmp_path_factory.mktemp("hostile"), files)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_neither_crashes_nor_hangs_nor_fills_the_memory(outcomes: dict[str, Outcome], name: str) -> None:
    outcome = outcomes[name]
    assert outcome.told.startswith("refused: "), outcome
    assert re.search(HOSTILE[name][2], outcome.told), outcome
    assert outcome.seconds < 5, outcome


def test_reading_searches_for_no_cycles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the seconds that hostile files took, most were the collector's, which goes through all of torch."""
    seen: list[bool] = []

    def read(*_: object) -> object:
        seen.append(gc.isenabled())
        raise CheckpointError("no", field="x")

    monkeypatch.setattr("labelmint_export.checkpoints.archives._read", read)
    (tmp_path / "x.pt").write_bytes(b"x")
    for enabled in (True, False):
        (gc.enable if enabled else gc.disable)()
        try:
            with pytest.raises(CheckpointError, match="no"):
                load_generator(tmp_path / "x.pt")
            assert gc.isenabled() == enabled
        finally:
            gc.enable()
    assert seen == [False, False]


def test_names_in_errors_do_nothing_to_a_terminal(tmp_path: Path) -> None:
    name = "style\x1b]0;owned\x07\u202e\u00e9"
    torch.save({"g_ema": repeated_state(CHANNELS) | {name: torch.zeros(1)}}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"style\\x1b\]0;owned\\x07\\u202eé has no place") as caught:
        load_generator(tmp_path / "x.pt")
    assert caught.value.field.isprintable()


def test_small_file_of_the_largest_generator_that_it_may_hold_is_read_within_the_memory(
    outcomes: dict[str, Outcome],
) -> None:
    assert outcomes["made"].told == "made"


def test_names_that_grow_with_each_level_are_bounded() -> None:
    """Sharing finds a tensor again under each of its names, which are as long as the modules are deep."""
    inner = ModuleRecord(class_name="A", module="m", parameters={"w": np.zeros(1)})
    for _ in range(3):
        inner = ModuleRecord(class_name="A", module="m", modules={"a" * 400: inner, "b": inner})
    with pytest.raises(CheckpointError, match="name of a tensor has 1204 characters, expected at most 1024"):
        inner.tensors()
    many = ModuleRecord(class_name="A", module="m", parameters={f"w{i}": np.zeros(1) for i in range(201)})
    with pytest.raises(CheckpointError, match="more than 20000 tensors"):
        ModuleRecord(class_name="A", module="m", modules={f"m{i}": many for i in range(100)}).tensors()


# --- noise that a file leaves out -------------------------------------------------------------------------------------


def test_layers_too_large_for_noise_that_is_missing_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labelmint_export.checkpoints.completion.MAX_NOISE_SIDE", 8)
    record = nvidia_record(make_generator_of(make_config(16)), use_noise=False)
    with pytest.raises(CheckpointError, match=r"conv0\.noise_const is missing for a layer of 16 x 16, expected"):
        generator_from_record(record, Path("x"))
    for index, variables in enumerate((make_stylegan1(CHANNELS), make_stylegan2(CHANNELS))):
        silent = {name: array for name, array in variables.items() if "oise" not in name}
        path = write_snapshot(tmp_path / f"{index}.pkl", silent, {"use_noise": False})
        with pytest.raises(CheckpointError, match=r"noise. is missing for a layer of 16 x 16, expected"):
            load_generator(path)


def test_noise_is_drawn_for_the_layers_that_lack_it_and_when_all_else_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[int, int]] = []

    def draw(index: int, side: int) -> torch.Tensor:
        drawn.append((index, side))
        return torch.zeros(side, side)

    monkeypatch.setattr("labelmint_export.checkpoints.rosinality.draw_noise", draw)
    monkeypatch.setattr("labelmint_export.checkpoints.datasetgan_stylegan1.draw_noise", draw)
    state = repeated_state(CHANNELS, noise=True)
    del state["noises.noise_2"], state["noises.noise_3"]
    torch.save({"g_ema": state}, tmp_path / "x.pt")
    load_generator(tmp_path / "x.pt")
    assert drawn == [(2, 8), (3, 16)]
    torch.save({"g_ema": state | {"convs.3.activate.bias": repeated(9)}}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"b16.conv1.bias in .* has shape \[9\], expected \[3\]"):
        load_generator(tmp_path / "x.pt")
    first = {name: torch.from_numpy(array) for name, array in make_state_dict(CHANNELS).items()}
    torch.save(first | {"g_mapping.dense0.bias": torch.zeros(3)}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"has shape \[3\]"):
        load_generator(tmp_path / "x.pt")
    assert drawn == [(2, 8), (3, 16)]


# --- what is no plain refusal inside ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "field"),
    [
        ("conv1.noise.weight", [2], "synthesis.blocks.b4.conv1.noise_strength"),
        ("convs.0.conv.weight", [2, 4, 5, 3, 3], "synthesis.blocks.b8.conv0.conv.weight"),
        ("convs.0.conv.weight", [1], "synthesis.blocks.b8.conv0.conv.weight"),
        ("input.input", [2, 5, 4, 4], "synthesis.blocks.b4.constant_input"),
        ("input.input", [], "synthesis.blocks.b4.constant_input"),
        ("to_rgb1.bias", [3, 1, 1, 1], "synthesis.blocks.b4.torgb.bias"),
        ("convs.0.conv.blur.kernel", [3, 3], "synthesis.blocks.b8.conv0.conv.resample_filter"),
        ("style.1.weight", [7], "style.1.weight"),
        ("latent_avg", [3], "latent_avg"),
    ],
)
def test_rosinality_arrays_of_other_axes_are_refused(tmp_path: Path, name: str, shape: list[int], field: str) -> None:
    state = repeated_state(CHANNELS, noise=True)
    content: dict[str, Any] = {"g_ema": state}  # Any: a state dict or a tensor
    (content if name == "latent_avg" else state)[name] = torch.zeros(shape)
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="expected") as caught:
        load_generator(tmp_path / "x.pt")
    assert caught.value.field == field


def test_classifier_whose_names_are_numbers_is_refused(tmp_path: Path) -> None:
    torch.save({"model_state_dict": {0: torch.zeros(2)}}, tmp_path / "model_0.pth")
    with pytest.raises(CheckpointError, match="holds no model_state_dict of arrays") as caught:
        inspect_checkpoint(tmp_path / "model_0.pth")
    assert caught.value.field == "model_state_dict"


def test_folder_of_more_classifiers_than_an_ensemble_has_is_refused(tmp_path: Path) -> None:
    for index in range(65):
        (tmp_path / f"model_{index}.pth").touch()
    with pytest.raises(CheckpointError, match="holds 65 classifiers, expected at most 64; give one ensemble"):
        read_classifiers(tmp_path, taps=(TapSpec("a", 9, 4),), label_resolution=8)


@pytest.mark.parametrize("line", [[1, 10**300, 1], [1, 1e300, 1], [1, float("inf"), 1], [1, float("nan"), 1]])
def test_blur_filter_of_huge_numbers_is_refused(tmp_path: Path, line: list[float]) -> None:
    path = write_snapshot(tmp_path / "x.pkl", make_stylegan1(CHANNELS), {"blur_filter": line})
    with pytest.raises(CheckpointError, match="expected three numbers that do not cancel out, or None") as caught:
        load_generator(path)
    assert caught.value.field == "blur_filter"


@pytest.mark.parametrize("name", ["b" + "1" * 5000, "b08", "b\u0668"])
def test_block_of_another_name_has_no_place(name: str) -> None:
    record = nvidia_record(make_generator_of(make_config(16)))
    blocks = record.modules["synthesis"].modules
    blocks[name] = blocks["b8"]
    with pytest.raises(CheckpointError) as caught:
        generator_from_record(record, Path("x"))
    assert name in caught.value.field or caught.value.field == "module"


def test_architecture_that_is_no_word_is_refused() -> None:
    record = nvidia_record(make_generator_of(make_config(16)))
    record.modules["synthesis"].modules["b8"].attributes["architecture"] = ["a" * 10**6] * 100
    with pytest.raises(CheckpointError, match=r"architecture is .*, expected a word") as caught:
        generator_from_record(record, Path("x"))
    assert len(str(caught.value)) < 10_000
    assert caught.value.field == "synthesis.b8.architecture"


def test_errors_of_libraries_in_the_conversion_are_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"g_ema": repeated_state(CHANNELS)}, tmp_path / "x.pt")
    for error in (RuntimeError("x"), MemoryError(), OverflowError("x"), AttributeError("x"), RecursionError("x")):

        def fail(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr("labelmint_export.checkpoints.rosinality.generator_from_state_dict", fail)
        for call in (load_generator, inspect_checkpoint):
            with pytest.raises(CheckpointError, match=r"x\.pt (is malformed|cannot be read)") as caught:
                call(tmp_path / "x.pt")
            assert caught.value.field == "path"


# --- .npy -------------------------------------------------------------------------------------------------------------


def npy(header: str, data: bytes = b"", version: bytes = b"\1\0") -> bytes:
    length = len(header).to_bytes(2 if version == b"\1\0" else 4, "little")
    return b"\x93NUMPY" + version + length + header.encode() + data


FLOATS = "{'descr': '<f4', 'fortran_order': False, 'shape': (7,), }"


@pytest.mark.parametrize(
    "content",
    [
        npy(FLOATS.replace("}", ""), b"\0" * 28),
        npy("-" * 9000),
        npy("(" * 9000),
        npy("{'descr': " + "[" * 4000 + "}"),
        npy("a" * 20_000, version=b"\2\0"),
        npy(FLOATS.replace("7", "9" * 18), b"\0" * 28),
        npy(FLOATS.replace("7", "9" * 5000), b"\0" * 28),
        npy(FLOATS.replace("7,", "1," * 2000), b"\0" * 28),
        npy(FLOATS.replace("f4", "f3"), b"\0" * 28),
        npy(FLOATS.replace("7,", "-7,"), b"\0" * 28),
        npy(FLOATS, b"\0" * 27),
        npy(FLOATS, b"\0" * 28, version=b"\7\0"),
        b"\x93NUMPY\1\0\xff",
        b"",
    ],
)
def test_npy_file_that_is_malformed_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mean.npy").write_bytes(content)
    torch.save({"g_ema": repeated_state(CHANNELS)}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"mean\.npy is no \.npy file") as caught:
        load_generator(tmp_path / "x.pt", mean_latent=tmp_path / "mean.npy")
    assert caught.value.field == "mean_latent"
    with pytest.raises(AnnotationError, match=r"mean\.npy cannot be read as \.npy"):
        read_npy_masks(tmp_path, [tmp_path / "mean.npy"], MaskPalette({0: "a"}, {}))


@pytest.mark.parametrize("dtype", ["?", "i1", "<u2", ">i4", "<i8", "<f2", ">f4", "<f8"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 0, 3), (2, 3, 4)])
def test_npy_file_is_what_numpy_reads(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    orders: tuple[Literal["C", "F"], ...] = ("C", "F")
    for order in orders:
        array = np.asarray(random.integers(0, 2, shape), dtype, order=order)
        np.save(tmp_path / "x.npy", array)
        ours, theirs = read_npy(tmp_path / "x.npy"), np.load(tmp_path / "x.npy")
        np.testing.assert_array_equal(ours, theirs)
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        with (tmp_path / "x.npy").open("wb") as file:
            np.lib.format.write_array(file, array, version=(2, 0))
        np.testing.assert_array_equal(read_npy(tmp_path / "x.npy"), array)
