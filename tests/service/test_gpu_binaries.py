"""The compiled GPU kernels: made from these sources, and taking what the engine hands over."""

import ctypes
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from labelmint_service.engine.fused.gpu.binaries import ARCHIVE, KernelArchive, KernelBinary, read_archive
from labelmint_service.engine.fused.gpu.device import marshal
from labelmint_service.engine.fused.gpu.forms import Form, all_forms, fit_form, parameters_of
from labelmint_service.errors import EngineStartError

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "service/kernel/compile_gpu.py"
MAX_ARCHIVE_BYTES = 3_000_000
FORMS = {form.name: form for form in all_forms()}
BINARIES = [pytest.param(binary, id=binary.file) for form in read_archive().binaries.values() for binary in form]
_PARAMETER_INFO = 0x1704  # EIATTR_KPARAM_INFO: index, ordinal and offset, size


def values_of(form: Form) -> list[int]:
    """A value for each argument that keeps what the compiler was promised."""
    return [parameter.divisor * (number + 1) for number, parameter in enumerate(parameters_of(form.kernel))]


def parameter_sizes(cubin: bytes, entry: str) -> list[int]:
    """Bytes of each parameter of a function, as the ELF file tells the driver (section .nv.info.FUNCTION)."""
    (sections_at,) = struct.unpack_from("<Q", cubin, 0x28)
    size, count, names = struct.unpack_from("<HHH", cubin, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", cubin, sections_at + number * size) for number in range(count)]

    def name_of(header: tuple[int, ...]) -> str:
        start = headers[names][4] + header[0]
        return cubin[start : cubin.index(b"\0", start)].decode()

    info = next(header for header in headers if name_of(header) == f".nv.info.{entry}")
    at, end, found = info[4], info[4] + info[5], {}
    while at < end:
        attribute, length = struct.unpack_from("<HH", cubin, at)
        has_payload = attribute & 0xFF == 4  # else the value lies in place of the length
        if attribute == _PARAMETER_INFO & 0xFF00 | 4 and length == 12:
            _, place, flags = struct.unpack_from("<III", cubin, at + 4)
            found[place & 0xFFFF] = (flags >> 18, place >> 16)
        at += 4 + (length if has_payload else 0)
    return [found[ordinal][0] for ordinal in sorted(found)]


def test_binaries_are_those_of_the_sources() -> None:
    """`make kernel-gpu` compiles them again."""
    pytest.importorskip("triton", reason="triton is installed on Linux only")
    path = f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r})"
    code = f"{path}; import compile_gpu; print(compile_gpu.hash_of_sources())"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == read_archive().sources_sha256


def test_archive_is_small_and_whole() -> None:
    assert ARCHIVE.stat().st_size <= MAX_ARCHIVE_BYTES
    assert set(read_archive().binaries) == set(FORMS)
    for binaries in read_archive().binaries.values():
        assert {(binary.kind, binary.architecture) for binary in binaries} == {
            ("cubin", 80),
            ("cubin", 90),
            ("ptx", 80),
        }


def test_nothing_of_the_machine_that_compiled_is_in_the_binaries() -> None:
    for binaries in read_archive().binaries.values():
        for binary in binaries:
            assert b"interpreter_gpu.py" not in binary.content, binary.file


@pytest.mark.parametrize("binary", BINARIES)
def test_binary_takes_what_is_handed_over(binary: KernelBinary) -> None:
    form = FORMS[binary.form]
    values, types = marshal(binary, parameters_of(form.kernel), values_of(form))
    assert len(values) == len(types) == len(binary.parameters)
    sizes = [ctypes.sizeof(one) for one in types]
    if binary.kind == "cubin":
        assert binary.content[:4] == b"\x7fELF"
        assert parameter_sizes(binary.content, binary.entry) == sizes
    else:
        text = binary.content.decode()
        assert ".target sm_80" in text  # of no single device, so later ones take it
        entry = text[text.index(f".entry {binary.entry}(") :]
        found = re.findall(r"\.param\s+\.[ub](32|64)", entry[: entry.index(")")])
        assert [int(bits) // 8 for bits in found] == sizes
    # An H100 has 227 KiB for a program, an A100 163 KiB.
    assert binary.shared_bytes <= (227 if binary.architecture == 90 else 163) * 1024


@pytest.mark.parametrize("name", FORMS)
def test_arguments_are_those_of_the_source_in_its_order(name: str) -> None:
    pytest.importorskip("triton", reason="triton is installed on Linux only")
    from tests.service.interpreted_device import load_kernels  # noqa: PLC0415 - it needs triton

    form = FORMS[name]
    names = list(getattr(load_kernels(), form.kernel).arg_names)
    assert names == [*(parameter.name for parameter in parameters_of(form.kernel)), *form.constants]


def test_binding_of_the_driver_takes_the_arguments() -> None:
    """NVIDIA's own code packs them; what came out of it lies where the driver would read it."""
    driver = pytest.importorskip("cuda.bindings.driver", reason="the binding is part of the extra gpu")
    form = FORMS["highest"]
    packed = marshal(read_archive().find("highest", (9, 0)), parameters_of("highest"), [256, 512, 768, 64])
    assert packed[0][:4] == (256, 512, 768, 64), form.name
    driver._HelperKernelParams(packed)  # raises for types it does not take


@pytest.mark.parametrize(
    ("capability", "file"),
    [
        ((8, 0), "sm80.cubin"),
        ((8, 9), "sm80.cubin"),
        ((9, 0), "sm90.cubin"),
        ((10, 0), "sm80.ptx"),
        ((12, 1), "sm80.ptx"),
    ],
)
def test_device_gets_the_binary_that_it_runs(capability: tuple[int, int], file: str) -> None:
    assert read_archive().find("merge", capability).file == f"merge-{file}"


def test_device_that_is_too_old_is_refused() -> None:
    with pytest.raises(EngineStartError, match=r"compute capability 7\.5, expected at least 8\.0"):
        read_archive().find("merge", (7, 5))


def test_archive_that_is_damaged_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kernels.zip").write_bytes(ARCHIVE.read_bytes()[:-100])
    with pytest.raises(EngineStartError, match=r"kernels\.zip cannot be read"):
        read_archive(tmp_path / "kernels.zip")


@pytest.mark.parametrize("at", range(64, 2000, 97))
def test_archive_with_a_damaged_byte_is_refused(tmp_path: Path, at: int) -> None:
    content = bytearray(ARCHIVE.read_bytes())
    content[at] ^= 0xFF
    (tmp_path / "kernels.zip").write_bytes(content)
    with pytest.raises(EngineStartError, match=r"kernels\.zip cannot be read"):
        read_archive(tmp_path / "kernels.zip")


@pytest.mark.parametrize(
    ("widths", "fine_steps", "name"),
    [
        ((12, 6, 4), 0, "label-32-32-16"),
        ((12, 6, 4), 4, "label-32-32-16-keep4"),
        ((12, 6, 4), 5, "label-32-32-16"),
        ((32, 33, 16), 1, "label-256-128-16"),
        ((128, 32, 17), 3, "label-128-32-32-keep3"),
        ((128, 32, 17), 4, "label-128-32-32"),
        ((32, 32, 33), 1, "label-32-32-64"),
        ((200, 32, 34), 0, "label-256-128-64"),
    ],
)
def test_narrowest_form_that_holds_the_members_is_taken(
    widths: tuple[int, int, int], fine_steps: int, name: str
) -> None:
    assert fit_form("label", *widths, fine_steps).name == name


@pytest.mark.parametrize(("architecture", "most"), [(80, 163 * 1024), (90, 227 * 1024)])
def test_programs_have_the_shared_memory_that_they_want(architecture: int, most: int) -> None:
    for binaries in read_archive().binaries.values():
        for binary in binaries:
            assert binary.architecture != architecture or binary.shared_bytes <= most, binary.file


def test_programs_with_members_of_up_to_128_units_fit_into_small_gpus() -> None:
    """Of compute capability 8.6 and 8.9."""
    for form, binaries in read_archive().binaries.items():
        if FORMS[form].constants.get("H1", 0) <= 128:
            assert all(one.shared_bytes <= 99 * 1024 for one in binaries if one.architecture == 80), form


def test_members_that_no_form_holds_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"members of 300 and 32 hidden units and 9 outputs, expected at most 256, 128"
    ):
        fit_form("label", 300, 32, 9, 0)


@pytest.mark.parametrize("change", [{"units": 24}, {"units": -16}, {"planes": 8}])
def test_argument_that_breaks_what_the_compiler_was_promised_is_refused(change: dict[str, int]) -> None:
    parameters = parameters_of("merge")
    values = [change.get(parameter.name, parameter.divisor) for parameter in parameters]
    with pytest.raises(ValueError, match=f"{next(iter(change))} of merge-sm90.cubin is {next(iter(change.values()))}"):
        marshal(read_archive().find("merge", (9, 0)), parameters, values)


def test_wrong_number_of_arguments_is_refused() -> None:
    with pytest.raises(ValueError, match="but got 1 arguments"):
        marshal(read_archive().find("merge", (9, 0)), parameters_of("merge"), [16])


def test_kernels_compile_where_there_is_no_gpu(tmp_path: Path) -> None:
    """In a process of its own, where Triton compiles; one small form, the rest is committed."""
    pytest.importorskip("triton", reason="triton is installed on Linux only")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path / "cache")
    command = [sys.executable, "-W", "ignore", str(SCRIPT), "--out", str(tmp_path / "out.zip"), "--forms", "merge"]
    subprocess.run(command, env=environment, check=True, timeout=600)
    made = KernelArchive((tmp_path / "out.zip").read_bytes())
    shipped = read_archive()
    assert made.find("merge", (8, 0)).content[:4] == b"\x7fELF"
    if made.triton != shipped.triton:
        pytest.skip(f"this is Triton {made.triton}, the binaries were made by {shipped.triton}")
    for capability in ((8, 0), (9, 0), (10, 0)):
        assert made.find("merge", capability).content == shipped.find("merge", capability).content
