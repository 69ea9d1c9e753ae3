"""Foreign checkpoints: read exactly as the programs that wrote them read them, and never trusted."""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import pickle
import pickletools
import random
import struct
import sys
import time
import types
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from benchmarks.processes.memory import peak_rss_bytes
from labelmint.errors import LabelmintError
from labelmint_export.checkpoints import ModuleRecord, TflibNetwork, read_checkpoint
from labelmint_export.checkpoints import limits as limits_module
from labelmint_export.checkpoints.allowed import SNAPSHOT_GLOBALS
from labelmint_export.checkpoints.loading import inspect_checkpoint, load_generator
from labelmint_export.checkpoints.pickles import run_pickle
from labelmint_export.errors import CheckpointError
from tests.export.plain_stylegan1 import make_state_dict
from tests.export.tflib_files import make_stylegan2, write_snapshot

DATA = Path(__file__).parents[1] / "data" / "checkpoints"
REFERENCE = Path(__file__).parents[3] / "shared/reference"
"""More files in the real layouts; read too where they are."""
SNAPSHOTS = ("stylegan2_ada_32.pkl", "stylegan3_r_32_c10.pkl")
FILES = (*SNAPSHOTS, "rosinality_32.pt")
DANGEROUS = {
    "compile",
    "exec",
    "import",
    "open-for-writing",
    "os",
    "pickle.find_class",
    "shutil",
    "socket",
    "subprocess",
}

# An audit hook cannot be taken away, so it is added once and watches only while there is a list to write to.
_watched: list[list[str]] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:  # Any: what Python passes to audit hooks
    if not _watched:
        return
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        event = "open-for-writing"
    if event in DANGEROUS or event.split(".")[0] in DANGEROUS:
        _watched[-1].append(f"{event} {arguments!r}"[:200])


sys.addaudithook(_watch)


def watched(read: Callable[[Path], object], path: Path) -> Any:  # Any: a record of whatever the file holds
    """Read a file, and see that the interpreter did nothing meanwhile that a reader has no business with."""
    seen: list[str] = []
    _watched.append(seen)
    try:
        return read(path)
    finally:
        _watched.remove(seen)
        assert not seen


def read_file(path: Path) -> Any:  # Any: a record of whatever the file holds
    return watched(read_checkpoint, path)


def test_the_watch_notices_what_python_s_unpickler_does(tmp_path: Path) -> None:
    seen: list[str] = []
    _watched.append(seen)
    try:
        pickle.loads(pickle.dumps(pickle.Unpickler))
        (tmp_path / "trap").write_text("")
    finally:
        _watched.remove(seen)
    assert {event.split()[0] for event in seen} == {"pickle.find_class", "open-for-writing"}


def read_bytes(data: bytes, folder: Path) -> Any:  # Any: a record of whatever the file holds
    path = folder / "checkpoint"
    path.write_bytes(data)
    return read_file(path)


def refused(data: bytes, folder: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        read_bytes(data, folder)
    assert caught.value.field
    assert str(folder) in str(caught.value)
    return caught.value


def assert_plain(value: object, depth: int = 0) -> None:
    assert depth < 100
    if isinstance(value, ModuleRecord):
        inner = [value.parameters, value.buffers, value.modules, value.attributes, value.init_args, value.init_kwargs]
        value.tensors()
    elif isinstance(value, TflibNetwork):
        inner = [value.static_kwargs, value.variables, value.components]
        value.tensors()
    elif type(value) is dict:
        inner = [*value.keys(), *value.values()]
    elif type(value) in {list, tuple, set, frozenset}:
        inner = list(value)  # type: ignore[call-overload]  # one of the four
    else:
        assert value is None or type(value) in {bool, int, float, str, bytes, memoryview, np.ndarray}
        assert type(value) is not np.ndarray or value.dtype.kind in "biuf"
        return
    for item in inner:
        assert_plain(item, depth + 1)


def assert_same(ours: object, theirs: object) -> None:
    """Compare with what torch reads; kinds of dicts do not matter."""
    if isinstance(theirs, torch.Tensor):
        assert isinstance(ours, np.ndarray)
        theirs = theirs.float() if theirs.dtype == torch.bfloat16 else theirs
        assert tuple(theirs.shape) == ours.shape
        assert torch.equal(torch.tensor(ours), theirs)
        assert torch.tensor(ours).dtype == theirs.dtype
        assert not ours.flags.writeable
        assert ours.flags.aligned
    elif isinstance(theirs, argparse.Namespace):
        assert_same(ours, vars(theirs))
    elif isinstance(theirs, dict):
        assert type(ours) is dict
        assert list(ours) == list(theirs)
        for key, value in theirs.items():
            assert_same(ours[key], value)
    else:
        assert ours == theirs
        assert type(ours) is type(theirs)


def save(value: object, **options: Any) -> bytes:  # Any: torch.save's options
    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


# --- Real files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.name)
        for path in [*(DATA / name for name in FILES), *sorted(REFERENCE.rglob("*.p[kt]*"))]
    ],
)
def test_real_file_gives_plain_records_and_runs_nothing(path: Path) -> None:
    assert_plain(read_file(path))


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.name)
        for path in [DATA / "rosinality_32.pt", *sorted([*REFERENCE.rglob("*.pt"), *REFERENCE.rglob("*.pth")])]
    ],
)
def test_state_dict_is_what_torch_reads(path: Path) -> None:
    with torch.serialization.safe_globals([argparse.Namespace]):
        assert_same(read_checkpoint(path), torch.load(path, weights_only=True, map_location="cpu"))


class OriginalUnpickler(pickle.Unpickler):
    """Reads our own copies of the reference files as NVIDIA's programs do, but keeps the descriptions of modules."""

    def find_class(self, module: str, name: str) -> Any:  # Any: what pickle returns
        if name == "_reconstruct_persistent_obj":
            return dict
        return super().find_class(module, name)


def original_tensors(meta: dict[str, Any], prefix: str = "") -> dict[str, torch.Tensor]:
    state = meta["state"]
    own = {**state["_parameters"], **state["_buffers"]}
    found = {prefix + name: tensor.detach() for name, tensor in own.items() if tensor is not None}
    for name, module in state["_modules"].items():
        found.update(original_tensors(module, f"{prefix}{name}."))
    return found


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_nvidia_snapshot_is_what_its_own_programs_read(name: str) -> None:
    with warnings.catch_warnings(), (DATA / name).open("rb") as file:
        warnings.simplefilter("ignore")
        original = OriginalUnpickler(file).load()
    ours: Any = read_checkpoint(DATA / name)
    expected = original_tensors(original["G_ema"])
    tensors = ours["G_ema"].tensors()
    assert len(tensors) > 80
    assert set(tensors) == set(expected)
    for key, tensor in expected.items():
        assert_same(tensors[key], tensor)
    assert ours["G_ema"].class_name == "Generator"
    assert ours["G_ema"].init_kwargs == dict(original["G_ema"]["state"]["_init_kwargs"])
    assert ours["G_ema"].modules["synthesis"].attributes["img_resolution"] == 32
    assert ours["training_set_kwargs"] == original["training_set_kwargs"]


STATE = collections.OrderedDict(
    half=torch.arange(6, dtype=torch.float16).reshape(2, 3),
    brain=torch.linspace(-3, 3, 7, dtype=torch.bfloat16),
    double=torch.tensor(1.5, dtype=torch.float64),
    long=torch.arange(4)[::2],
    flags=torch.tensor([True, False]),
    turned=torch.randn(3, 5, 2).permute(2, 0, 1),
    repeated=torch.tensor([[2.0]]).expand(3, 4),
    nothing=torch.empty(0, 3),
    learned=torch.nn.Parameter(torch.randn(2)),
)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_all_element_types_and_strides_are_read_in_both_formats(tmp_path: Path, zipped: bool, protocol: int) -> None:
    value = {
        "state": STATE,
        "args": argparse.Namespace(lr=0.1, size=32),
        "seen": {1, 2},
        3: ["a", -1, 1 << 40, 1.5, None],
    }
    data = save(value, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    ours = read_bytes(data, tmp_path)
    assert_same(ours.pop("state"), {**STATE, "learned": STATE["learned"].detach()})
    assert ours == {"args": {"lr": 0.1, "size": 32}, "seen": {1, 2}, 3: ["a", -1, 1 << 40, 1.5, None]}


def test_shared_storage_is_not_copied(tmp_path: Path) -> None:
    whole = torch.arange(100_000.0)
    ours = read_bytes(save([whole, whole[10:20]]), tmp_path)
    assert np.shares_memory(ours[0], ours[1])
    assert_same(ours[1], whole[10:20])


# --- TensorFlow -------------------------------------------------------------------------------------------------------


@pytest.fixture
def fake_dnnlib(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """Classes under the names of NVIDIA's, so that Python's pickler writes what theirs wrote."""

    class EasyDict(dict[str, object]):
        pass

    class Network:
        def __init__(self, **state: object) -> None:
            self.__dict__.update(state)

    for package in ("dnnlib", "dnnlib.tflib"):
        monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    for cls, module in ((EasyDict, "dnnlib.util"), (Network, "dnnlib.tflib.network")):
        cls.__module__, cls.__qualname__ = module, cls.__name__
        fake = types.ModuleType(module)
        setattr(fake, cls.__name__, cls)
        monkeypatch.setitem(sys.modules, module, fake)
    return types.SimpleNamespace(EasyDict=EasyDict, Network=Network)


def make_networks(dnnlib: types.SimpleNamespace, trap: Path) -> tuple[object, ...]:
    source = f"open({str(trap)!r}, 'w').close()"

    def make(name: str, variables: list[tuple[str, object]], **components: object) -> object:
        return dnnlib.Network(
            version=4,
            name=name,
            static_kwargs=dnnlib.EasyDict(resolution=32, fmap_max=48),
            components=components,
            build_module_src=source,
            build_func_name=f"{name}_style",
            variables=variables,
        )

    rng = np.random.default_rng(0)
    mapping = make("G_mapping", [("Dense0/weight", rng.normal(size=(8, 8)).astype(np.float32))])
    variables: list[tuple[str, object]] = [
        ("lod", np.float32(0.5)),
        ("dlatent_avg", np.asfortranarray(rng.normal(size=(3, 2)))),
        ("turned", rng.normal(size=(2, 3, 4)).astype(np.float32).transpose(1, 2, 0)),
        ("with gaps", rng.normal(size=(4, 6))[:, ::2]),
        ("large", rng.normal(size=20_000)),
        ("single", np.array(2.0)),
    ]
    variables[2][1].flags.writeable = False  # type: ignore[attr-defined]  # an array; protocol 5 writes it as bytes
    return tuple(make(name, variables, mapping=mapping) for name in ("G", "D", "Gs"))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_tensorflow_networks_are_read_without_their_code(
    tmp_path: Path, fake_dnnlib: types.SimpleNamespace, protocol: int
) -> None:
    trap = tmp_path / "trap"
    networks = make_networks(fake_dnnlib, trap)
    ours = read_bytes(pickle.dumps(networks, protocol), tmp_path)
    assert [network.name for network in ours] == ["G", "D", "Gs"]
    assert_plain(ours)
    assert not trap.exists()
    gs, original = ours[2], networks[2]
    assert (gs.version, gs.build_func_name, gs.static_kwargs) == (4, "Gs_style", {"resolution": 32, "fmap_max": 48})
    tensors = gs.tensors()
    expected = dict(original.variables)  # type: ignore[attr-defined]
    assert list(tensors) == [*expected, "mapping/Dense0/weight"]
    for name, array in expected.items():
        np.testing.assert_array_equal(tensors[name], array)
        assert (tensors[name].shape, tensors[name].dtype) == (array.shape, array.dtype)
        assert not tensors[name].flags.writeable
    np.testing.assert_array_equal(
        tensors["mapping/Dense0/weight"],
        original.components["mapping"].variables[0][1],  # type: ignore[attr-defined]
    )


def test_python_2_strings_are_names_and_bytes(tmp_path: Path) -> None:
    values = np.array([1.5, -2.0], np.float32)
    state = pickled((1, (2,), "DTYPE", False, "RAW"))
    state = state.replace(
        pickled("DTYPE"), b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNI-1\nJ\xff\xff\xff\xffK\x00tb"
    )
    state = state.replace(pickled("RAW"), b"U\x08" + values.tobytes())
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R" + state + b"b"
    ours = read_bytes(b"\x80\x02}U\x04nameq\x01" + array + b"s.", tmp_path)
    np.testing.assert_array_equal(ours["name"], values)


# --- Hostile pickles --------------------------------------------------------------------------------------------------


def pickled(value: object) -> bytes:
    """A value's opcodes alone, without memo."""
    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, 2)
    pickler.fast = True
    pickler.dump(value)
    return stream.getvalue()[2:-1]


def call(module: str, name: str, *arguments: object) -> bytes:
    return b"c" + f"{module}\n{name}\n".encode() + pickled(arguments) + b"R"


def whole(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


TOUCH = "touch trap"
GLOBALS = {
    "os.system": call("os", "system", TOUCH),
    "posix.system": call("posix", "system", TOUCH),
    "builtins.eval": call("builtins", "eval", "open('trap', 'w')"),
    "builtins.exec": call("builtins", "exec", "open('trap', 'w')"),
    "__builtin__.open": call("__builtin__", "open", "trap", "w"),
    "builtins.getattr": b"cbuiltins\ngetattr\n" + call("builtins", "__import__", "os") + pickled("system") + b"\x86R",
    "subprocess.Popen": call("subprocess", "Popen", ["touch", "trap"]),
    "torch.load": call("torch", "load", "trap"),
    "torch.serialization.load": call("torch.serialization", "load", "trap"),
    "torch_utils.persistence._src_to_module": call("torch_utils.persistence", "_src_to_module", "open('trap', 'w')"),
    "numpy.core.multiarray.fromfile": call("numpy.core.multiarray", "fromfile", "trap"),
    "collections.OrderedDict.__class__": call("collections", "OrderedDict.__class__", "trap"),
    "copyreg._reconstructor": call("copyreg", "_reconstructor", 1, 2, 3),
}


@pytest.mark.parametrize("name", GLOBALS)
@pytest.mark.parametrize("form", ["pickle", "archive", "legacy", "stack"])
def test_global_off_the_list_is_named_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, form: str
) -> None:
    monkeypatch.chdir(tmp_path)
    data = whole(GLOBALS[name])
    if form == "archive":
        data = make_archive(data)
    elif form == "legacy":
        data = LEGACY_HEADER + data + whole(b"]")
    elif form == "stack":
        module, attribute = GLOBALS[name][1:].split(b"\n")[:2]
        data = b"\x80\x04" + b"".join(b"\x8c" + bytes([len(text)]) + text for text in (module, attribute)) + b"\x93)R."
    error = refused(data, tmp_path)
    assert error.field == "global"
    assert (name if name != "builtins.getattr" else "builtins.") in str(error)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


LEGACY_HEADER = b"".join(
    pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True, "type_sizes": {}})
)


def make_archive(data: bytes, extra: dict[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in {"a/data.pkl": data, "a/version": b"3\n", **(extra or {})}.items():
            archive.writestr(name, content)
    return stream.getvalue()


OPCODES = {
    "INST": b"(S'touch trap'\nios\nsystem\n",
    "INST only": b"(ios\nsystem\n",
    "OBJ": b"(cos\nsystem\nX\x04\x00\x00\x00trapo",
    "OBJ allowed": b"(ccollections\nOrderedDict\no",
    "NEWOBJ": b"cbuiltins\nobject\n)\x81",
    "NEWOBJ of a function": b"ctorch._utils\n_rebuild_tensor_v2\n)\x81",
    "NEWOBJ with arguments": b"cargparse\nNamespace\nK\x01\x85\x81",
    "NEWOBJ_EX": b"ccollections\nOrderedDict\n)}\x92",
    "EXT1": b"\x82\x01",
    "EXT2": b"\x83\x01\x00",
    "EXT4": b"\x84\x01\x00\x00\x00",
    "PERSID": b"Pstorage\n",
    "BINPERSID": b"NQ",
    "BUILD on list": b"]}b",
    "BUILD on dict": b"}}b",
    "BUILD on global": b"ccollections\nOrderedDict\n}b",
    "REDUCE on string": b"X\x01\x00\x00\x00a)R",
    "REDUCE on storage": b"ctorch\nFloatStorage\nK\x05\x85R",
    "REDUCE on list": b"ccollections\nOrderedDict\n]R",
    "NEXT_BUFFER": b"\x97",
    "DUP": b"]2",
    "unknown": b"\xff",
    "global left over": b"ccollections\nOrderedDict\n",
    "storage class left over": b"]ctorch\nFloatStorage\na",
    "network without state": b"cdnnlib.tflib.network\nNetwork\n)\x81",
    "array without state": b"cnumpy.core.multiarray\n_reconstruct\n)R",
    "list as key": b"}]Ns",
    "dict of a bad list": call("collections", "OrderedDict", [[[], 1]]),
    "set of lists": call("builtins", "set", [[]]),
    "encode to code": call("_codecs", "encode", "a", "rot13"),
    "object array": call("numpy", "dtype", "O8", False, True),
    "void array": call("numpy", "dtype", "V8", False, True),
    "string array": call("numpy", "dtype", "U8", False, True),
    "big-endian array": call("numpy", "dtype", "f4", False, True)
    + pickled((3, ">", None, None, None, -1, -1, 0))
    + b"b",
    "structured array": call("numpy", "dtype", "f4", False, True) + pickled((3, "<", None, ("a",), {}, 1, 1, 0)) + b"b",
    "storage of no torch file": call("torch.storage", "_load_from_bytes", "abc"),
    "module of another version": call("torch_utils.persistence", "_reconstruct_persistent_obj", {"version": 7}),
    "module without description": call("torch_utils.persistence", "_reconstruct_persistent_obj", 1),
    "huge BINBYTES8": b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",
    "huge BYTEARRAY8": b"\x96\xff\xff\xff\xff\xff\xff\xff\x7f",
    "huge BINUNICODE8": b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff",
    "huge FRAME": b"\x95\xff\xff\xff\xff\xff\xff\xff\xff",
    "huge LONG4": b"\x8b\xff\xff\xff\x7f",
    "negative LONG4": b"\x8b\xff\xff\xff\xff",
    "long line": b"c" + b"a" * 100_000,
    "decimal of no digits": b"I1_0\n",
    "no value": b"",
    "two values": b"NN",
    "mark left": b"N(",
    "no mark": b"t",
    "memo not put": b"h\x07",
    "tuple of too few": b"N\x87",
    "no UTF-8": b"X\x01\x00\x00\x00\xff",
    "protocol 6": b"\x80\x06N",
    "a list in itself": b"]q\x00h\x00a",
    "a dict in its list": b"}q\x00X\x01\x00\x00\x00a]h\x00as",
}


@pytest.mark.parametrize("name", OPCODES)
def test_hostile_opcodes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    refused(whole(OPCODES[name]), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_source_of_a_module_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    meta = {"type": "class", "version": 6, "class_name": "G", "module_src": "open('trap', 'w')", "state": {"z_dim": 4}}
    record = read_bytes(whole(call("torch_utils.persistence", "_reconstruct_persistent_obj", meta)), tmp_path)
    assert (record.class_name, record.attributes, record.tensors()) == ("G", {"z_dim": 4}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def read_quickly(data: bytes, folder: Path) -> CheckpointError:
    start = time.perf_counter()
    error = refused(data, folder)
    assert time.perf_counter() - start < 5
    return error


BOMBS = {
    "nested lists": (b"]" * 100_000 + b"a" * 99_999, "nests"),
    "nested tuples": (b")" + b"\x85" * 100_000, "nests"),
    "nested dicts": (b"}" + b"K\x01}" * 80_000 + b"s" * 80_000, "nests"),
    "nested marks": (b"(" * 120_000 + b"t" * 120_000, "nests"),
    "laughs by tuples": (b"N" + b"q\x00h\x00\x86" * 60, "unfolds"),
    "laughs by lists": (b"(]q\x00" + b"](h\x00h\x00h\x00h\x00eq\x00" * 50 + b"t", "unfolds"),
    "laughs by strings": (b"(" + pickled("a" * 1_000_000) + b"q\x00" + b"h\x00" * 5_000 + b"t", "unfolds"),
    "sets of a long list": (
        b"((" + b"K\x01" * 20_000 + b"lq\x00" + b"cbuiltins\nset\nh\x00\x85R" * 5_000 + b"t",
        "operations",
    ),
    "copies of a long string": (
        b"("
        + pickled("a" * 1_000_000)
        + b"q\x00"
        + (b"c_codecs\nencode\nh\x00" + pickled("latin1") + b"\x86R") * 5_000
        + b"t",
        "copies",
    ),
    "too many opcodes": (b"(" + b"N" * 1_000_000 + b"t", "operations"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_is_refused_quickly(tmp_path: Path, name: str) -> None:
    body, reason = BOMBS[name]
    assert reason in str(read_quickly(whole(body), tmp_path))


def test_nested_modules_are_refused_without_recursion(tmp_path: Path) -> None:
    head = b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n}(" + pickled("type") + pickled("class")
    head += pickled("version") + b"K\x06" + pickled("class_name") + pickled("G") + pickled("state")
    head += b"}" + pickled("_modules") + b"}" + pickled("a")
    tail = b"ssu\x85R"
    assert_plain(read_bytes(whole(head * 5 + b"N" + tail * 5), tmp_path))
    assert "nests" in str(read_quickly(whole(head * 5_000 + b"N" + tail * 5_000), tmp_path))


# --- Hostile tensors --------------------------------------------------------------------------------------------------


def make_tensor(
    offset: object = 0,
    shape: object = (2, 3),
    strides: object = (3, 1),
    numel: object = 6,
    num_bytes: int = 24,
    kind: str = "FloatStorage",
    key: object = "0",
) -> bytes:
    saved_id = b"(" + pickled("storage") + f"ctorch\n{kind}\n".encode() + pickled(key) + pickled("cpu") + pickled(numel)
    rest = b"".join(map(pickled, (offset, shape, strides, False))) + b"ccollections\nOrderedDict\n)R"
    data = whole(b"ctorch._utils\n_rebuild_tensor_v2\n(" + saved_id + b"tQ" + rest + b"tR")
    return make_archive(data, {"a/data/0": np.arange(num_bytes // 4, dtype=np.float32).tobytes()})


TENSORS: dict[str, dict[str, Any]] = {  # Any: wrong types are the point
    "negative offset": {"offset": -1},
    "offset beyond": {"offset": 1},
    "huge offset": {"offset": 1 << 62, "shape": (0,), "strides": (1,)},
    "offset no integer": {"offset": 0.0},
    "negative stride": {"strides": (-3, 1)},
    "huge stride": {"strides": (1 << 62, 1)},
    "negative shape": {"shape": (-2, 3)},
    "huge shape": {"shape": (1 << 62, 1 << 62)},
    "shape as list": {"shape": [2, 3]},
    "bool shape": {"shape": (True, 3)},
    "strides missing": {"strides": (3,)},
    "nine dimensions": {"shape": (1,) * 9, "strides": (1,) * 9},
    "expanded too far": {"shape": (1 << 20, 6), "strides": (0, 1)},
    "expanded a little too far": {"shape": ((1 << 18) + 1,), "strides": (0,)},
    "huge numel": {"numel": 1 << 60},
    "negative numel": {"numel": -6},
    "numel short of bytes": {"numel": 5},
    "bytes short of numel": {"num_bytes": 20},
    "key leaves the folder": {"key": "../data.pkl"},
    "key missing": {"key": "1"},
    "key no string": {"key": 0},
    "complex": {"kind": "ComplexFloatStorage"},
    "quantized": {"kind": "QInt8Storage"},
    "bool of other bytes": {"kind": "BoolStorage", "numel": 24, "shape": (24,), "strides": (1,)},
}


def test_hand_made_tensor_is_read(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_bytes(make_tensor(), tmp_path), np.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize("name", TENSORS)
def test_tensor_out_of_bounds_is_refused(tmp_path: Path, name: str) -> None:
    read_quickly(make_tensor(**TENSORS[name]), tmp_path)


def test_many_windows_on_one_storage_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = save([torch.zeros(1000)] * 4)
    reached, by_the_file = 16_000, limits_module.MAX_REACHES * len(data)
    monkeypatch.setattr(limits_module, "MIN_REACHABLE_BYTES", reached - by_the_file)
    assert len(read_bytes(data, tmp_path)) == 4
    monkeypatch.setattr(limits_module, "MIN_REACHABLE_BYTES", reached - by_the_file - 1)
    assert "16000 bytes" in str(refused(data, tmp_path))


def test_array_whose_bytes_do_not_fit_its_shape_is_refused(tmp_path: Path) -> None:
    good = pickle.dumps(np.arange(6, dtype=np.int64), 4)
    assert read_bytes(good, tmp_path).tolist() == [0, 1, 2, 3, 4, 5]
    for shape in (7, 5, 255):
        refused(good.replace(b"K\x06\x85", b"K" + bytes([shape]) + b"\x85"), tmp_path)
    refused(pickle.dumps(np.array([print, {}], dtype=object), 4), tmp_path)


def test_array_of_a_buffer_that_does_not_fit_its_shape_is_refused(tmp_path: Path) -> None:
    dtype = call("numpy", "dtype", "f4", False, True)

    def make(raw: bytes | str, shape: object, *order: object) -> bytes:
        parts = pickled(raw) if isinstance(raw, str) else b"C" + bytes([len(raw)]) + raw
        arguments = b"(" + parts + dtype + pickled(shape) + b"".join(map(pickled, order)) + b"t"
        return whole(b"cnumpy._core.numeric\n_frombuffer\n" + arguments + b"R")

    raw = np.arange(6, dtype=np.float32).tobytes()
    for order, expected in (
        (("C",), [[0, 1, 2], [3, 4, 5]]),
        (("F",), [[0, 2, 4], [1, 3, 5]]),
        (("K", (1, 0)), [[0, 3], [1, 4], [2, 5]]),
    ):
        np.testing.assert_array_equal(read_bytes(make(raw, (2, 3), *order), tmp_path), expected)
    for data in (
        make(raw, (2, 4), "C"),
        make(raw, (5,), "C"),
        make(raw, (-6,), "C"),
        make(raw, [6], "C"),
        make(raw, (6,), "A"),
        make(raw, (6,), "K"),
        make(raw, (6,), 0),
        make(raw, (2, 3), "K", (0, 0)),
        make(raw, (2, 3), "K", (1,)),
        make(raw, (2, 3), "K", (1, 2)),
        make(raw, (2, 3), "C", (1, 0)),
        make(raw[:-1], (6,), "C"),
        make("\u1234", (6,), "C"),
    ):
        refused(data, tmp_path)


# --- Hostile archives and legacy files --------------------------------------------------------------------------------


def edit(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) >= 1
    return data.replace(old, new)


def make_twice() -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stream = io.BytesIO(make_archive(whole(b"N")))
        with zipfile.ZipFile(stream, "a") as archive:
            archive.writestr("a/data.pkl", whole(b"]"))
    return stream.getvalue()


def make_overlap() -> bytes:
    """An entry inside another one: the classical bomb that needs no compression."""
    plain = make_archive(whole(b"N"), {"a/data/1": b"x" * 64})
    start = plain.rindex(b"PK\x03\x04")
    inner = plain[start : start + 30 + len("a/data/1") + 64]
    data = make_archive(whole(b"N"), {"a/data/0": inner, "a/data/1": b"x" * 64})
    offset_at = data.rindex(b"a/data/1") - 4  # in the directory, before the name
    return data[:offset_at] + struct.pack("<L", data.index(inner)) + data[offset_at + 4 :]


ARCHIVES: dict[str, Callable[[], bytes]] = {
    "compressed": lambda: make_archive(whole(b"N"), {"a/data/0": b"\0" * 10_000_000}, zipfile.ZIP_DEFLATED),
    "twice the same": make_twice,
    "overlap": make_overlap,
    "absolute path": lambda: make_archive(whole(b"N"), {"/etc/passwd": b""}),
    "path upwards": lambda: make_archive(whole(b"N"), {"a/../../b": b""}),
    "two folders": lambda: make_archive(whole(b"N"), {"b/data.pkl": whole(b"N")}),
    "no pickle": lambda: edit(make_archive(whole(b"N")), b"a/data.pkl", b"a/data.pkk"),
    "TorchScript": lambda: make_archive(whole(b"N"), {"a/code/m.py": b"x"}),
    "big-endian": lambda: make_archive(whole(b"N"), {"a/byteorder": b"big"}),
    "newer version": lambda: make_archive(whole(b"N"), {"a/version": b"11\n"}),
    "behind the pickle": lambda: make_archive(whole(b"N") + b"N."),
    "wrong checksum": lambda: edit(make_archive(whole(b"X\x03\x00\x00\x00abc")), b"abc", b"abd"),
    "prefix": lambda: b"PK\x03\x04" + make_archive(whole(b"N")),
    "long name": lambda: make_archive(whole(b"N"), {"a/" * 513: b""}),
    "comment": lambda: make_archive(whole(b"N")) + b"a",
    "too many entries": lambda: make_archive(whole(b"N"))[:-14] + b"\xff\xff\xff\xff" + make_archive(whole(b"N"))[-10:],
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archive_that_torch_does_not_write_is_refused(tmp_path: Path, name: str) -> None:
    assert read_bytes(make_archive(whole(b"N")), tmp_path) is None
    error = read_quickly(ARCHIVES[name](), tmp_path)
    assert name != "overlap" or "overlap" in str(error)


def test_legacy_file_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    data = save({"a": torch.arange(300.0)}, _use_new_zipfile_serialization=False)
    count = struct.pack("<q", 300)
    assert data.count(count) == 1
    for new in (299, 301, -1, 1 << 60):
        refused(edit(data, count, struct.pack("<q", new)), tmp_path)
    refused(data + b"\0", tmp_path)
    refused(data[:-1], tmp_path)
    refused(edit(data, b"M\xe9\x03.", b"M\xea\x03."), tmp_path)
    refused(edit(data, b"little_endianq\x02\x88", b"little_endianq\x02\x89"), tmp_path)
    refused(edit(data, b"M\x2c\x01", b"M\x2d\x01"), tmp_path)
    assert_same(read_bytes(data, tmp_path), {"a": torch.arange(300.0)})


def test_legacy_files_do_not_nest(tmp_path: Path) -> None:
    inner = LEGACY_HEADER + whole(b"]") + whole(b"]")
    for body in (inner, LEGACY_HEADER + whole(call("torch.storage", "_load_from_bytes", "x")) + whole(b"]")):
        long = b"B" + struct.pack("<I", len(body)) + body
        refused(b"\x80\x03ctorch.storage\n_load_from_bytes\n" + long + b"\x85R.", tmp_path)


def test_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    for data in (
        b"",
        b"\x80",
        b"hello",
        b"(lp0\n.",
        b"\x89HDF\r\n",
        b"PK\x03\x04",
        b"\0" * 257 + b"ustar" + b"\0" * 300,
    ):
        refused(data, tmp_path)
    for path in (tmp_path / "absent", tmp_path, Path("/dev/zero")):
        with pytest.raises(CheckpointError):
            read_checkpoint(path)


def test_file_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelmint_export.checkpoints.archives.MAX_FILE_BYTES", 100)
    assert "expected at most 100" in str(refused(b"\x80\x02N." + b"\0" * 100, tmp_path))


# --- Damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_truncated_file_is_refused(tmp_path: Path, name: str) -> None:
    data = (DATA / name).read_bytes()
    rng = random.Random(0)
    for length in [1, 2, 3, 16, len(data) - 1, len(data) - 2, *(rng.randrange(len(data)) for _ in range(60))]:
        refused(data[:length], tmp_path)


def find_opcodes(data: bytes) -> list[int]:
    return [position for _, _, position in pickletools.genops(data) if position is not None]


def mutate(data: bytes, places: list[int], rng: random.Random) -> bytes:
    """Damage a pickle or an archive in one to four places, half of them at opcodes."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        at = min(
            rng.choice(places) + rng.randrange(4) if rng.random() < 0.8 else rng.randrange(len(data)), len(changed) - 1
        )
        kind = rng.randrange(6)
        if kind == 0:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[at] = rng.randrange(256)
        elif kind == 2:
            del changed[at : at + rng.randint(1, 9)]
        elif kind == 3:
            changed[at:at] = bytes([rng.choice(b"(.0QRbcehjloqrtu}])\x81\x85\x8b\x8e\x90\x93\x94\x95")])
        elif kind == 4:
            changed[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\0\0\0\x80"])
        else:
            source = rng.choice(places)
            changed[at:at] = data[source : source + rng.randint(1, 200)]
        if not changed:
            return b""
    return bytes(changed)


def copy_of(name: str) -> Callable[[Path], object]:
    return lambda path: path.write_bytes((DATA / name).read_bytes())


def save_stylegan1(path: Path) -> None:
    torch.save({name: torch.from_numpy(array) for name, array in make_state_dict({4: 5, 8: 4}).items()}, path)


def save_classifier(path: Path) -> None:
    """DatasetGAN's layers, as its program saves them."""
    torch.manual_seed(0)
    nn = torch.nn
    layers = [nn.Linear(9, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 6), nn.ReLU(), nn.BatchNorm1d(6)]
    state = nn.Sequential(*layers, nn.Linear(6, 4)).state_dict(prefix="module.layers.")
    torch.save({"model_state_dict": state}, path)


DAMAGED: dict[str, tuple[Callable[[Path], object], Callable[[Path], object]]] = {
    **{name: (copy_of(name), load_generator) for name in FILES},
    "tensorflow.pkl": (lambda path: write_snapshot(path, make_stylegan2({4: 5, 8: 4}), {}), load_generator),
    "stylegan1.pt": (save_stylegan1, load_generator),
    "model_0.pth": (save_classifier, inspect_checkpoint),
}
"""Files to be damaged: how each is made, and what makes something of its records."""


def run_mutations(name: str, count: int, tmp_path: Path) -> collections.Counter[str]:
    """Read damaged copies of a file; each must be refused or give plain records, and nothing else may happen.

    Those that are records are made generators or classifiers of, which must be refused or succeed. None may take over
    2 GB.
    """
    make, convert = DAMAGED[name]
    folder = tmp_path / "damaged"
    folder.mkdir()
    make(tmp_path / name)
    convert(tmp_path / name)  # torch imports parts of itself when they are first used
    data = (tmp_path / name).read_bytes()
    contents: dict[str, bytes] = {}
    if zipfile.is_zipfile(tmp_path / name):
        with zipfile.ZipFile(tmp_path / name) as archive:
            contents = {member: archive.read(member) for member in archive.namelist()}
    pickle_name = next((member for member in contents if member.endswith("data.pkl")), "")
    places = find_opcodes(contents[pickle_name] if contents else data)
    rng = random.Random(name)
    outcomes: collections.Counter[str] = collections.Counter()
    before_bytes = forget_peak()
    for number in range(count):
        if contents and number % 3:  # damage inside an archive that is sound
            pickle_bytes = mutate(contents[pickle_name], places, rng)
            damaged = make_sound_archive({**contents, pickle_name: pickle_bytes})
        else:
            raw_places = [at for at in range(len(data)) if data[at : at + 2] == b"PK"] if contents else places
            damaged = mutate(data, raw_places, rng)
        start = time.perf_counter()
        try:
            assert_plain(read_bytes(damaged, folder))
            outcomes["read"] += 1
            with contextlib.suppress(LabelmintError):
                watched(convert, folder / "checkpoint")
        except CheckpointError as error:
            outcomes[error.field] += 1
        assert time.perf_counter() - start < 5, number
        assert [path.name for path in folder.iterdir()] == ["checkpoint"], number
    assert (peak_rss_bytes() or 0) - before_bytes < 2_000_000_000
    return outcomes


def forget_peak() -> int:
    """Let the peak of this process's memory begin anew, where the system can; its memory now, bytes."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return int(psutil.Process().memory_info().rss)


def make_sound_archive(contents: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for member, content in contents.items():
            archive.writestr(member, content)
    return stream.getvalue()


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_file_is_refused_or_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    outcomes = run_mutations(name, 85, tmp_path)
    assert 0 < outcomes["read"] < 65, outcomes
    assert len(outcomes) >= 3, outcomes


@pytest.mark.fuzz
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", DAMAGED)
def test_much_damaged_file_is_refused_or_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert sum(run_mutations(name, 3_334, tmp_path).values()) == 3_334


def test_limits_leave_room_for_real_snapshots() -> None:
    """A whole one of 1024 x 1024 has four networks, and their blocks are twice as many: five times as much."""
    for name in SNAPSHOTS:
        data = (DATA / name).read_bytes()
        budget = limits_module.Budget.for_file(len(data))
        run_pickle(memoryview(data), 0, SNAPSHOT_GLOBALS, budget)
        assert (limits_module.MAX_OPERATIONS - budget.operations) * 10 < limits_module.MAX_OPERATIONS


def test_largest_file_may_not_be_copied_beyond_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert limits_module.Budget.for_file(limits_module.MAX_FILE_BYTES).copied_bytes < 1_700_000_000
    monkeypatch.setattr(limits_module, "MAX_COPIES", 2)
    monkeypatch.setattr(limits_module, "MIN_COPIED_BYTES", 0)
    assert read_bytes(pickle.dumps("a" * 4000, 4), tmp_path) == "a" * 4000
    wide = "a" * 4000 + "\U0001f600"  # one such character, and all of them take four bytes each
    assert sys.getsizeof(wide) > 16_000
    assert "copies of the file's bytes" in str(refused(pickle.dumps(wide, 4), tmp_path))
