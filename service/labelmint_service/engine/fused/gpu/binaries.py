"""The compiled kernels: which of them a device runs. service/kernel/compile_gpu.py made them."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from labelmint_service.errors import EngineStartError

ARCHIVE = Path(__file__).parent / "interpreter-cuda.zip"
_LEAST_CAPABILITY = (8, 0)
_ARCHITECTURE_SPECIFIC = 90
"""From here on machine code runs on the very architecture it was made for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelBinary:
    """One form of a kernel for one kind of device.

    Attributes:
        form: Name of the form.
        file: Name in the archive.
        kind: "cubin" for machine code, "ptx" for what the driver compiles.
        architecture: 80 for sm_80.
        entry: Name of the function in it.
        shared_bytes: Shared memory that a program wants.
        num_warps: Groups of 32 threads of a program.
        parameters: Types of all that a launch hands over: "i32", pointers such as "*fp32", and "null" for an address
            that nothing reads.
        content: The file.
    """

    form: str
    file: str
    kind: str
    architecture: int
    entry: str
    shared_bytes: int
    num_warps: int
    parameters: tuple[str, ...]
    content: bytes


class KernelArchive:
    """All binaries.

    Args:
        content: A file that compile_gpu.py wrote.

    Attributes:
        sha256: Of the file.
        sources_sha256: Of what it was made from.
        triton: Version of the compiler.
    """

    def __init__(self, content: bytes) -> None:
        self.sha256 = hashlib.sha256(content).hexdigest()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            index = json.loads(archive.read("kernels.json"))
            self.sources_sha256, self.triton = str(index["sources_sha256"]), str(index["triton"])
            self.binaries: Mapping[str, tuple[KernelBinary, ...]] = {
                form: tuple(
                    KernelBinary(
                        form=form,
                        content=archive.read(record["file"]),
                        parameters=tuple(record["parameters"]),
                        **{name: record[name] for name in _FIELDS},
                    )
                    for record in records
                )
                for form, records in index["kernels"].items()
            }

    def find(self, form: str, capability: tuple[int, int]) -> KernelBinary:
        """The binary of a form for a device.

        Machine code runs on later devices of the same generation; the newest that does is taken, else PTX.

        Args:
            form: Name of the form.
            capability: Of the device, (9, 0) for sm_90.

        Raises:
            EngineStartError: There is none.
        """
        if capability < _LEAST_CAPABILITY:
            raise EngineStartError(
                f"the GPU has compute capability {capability[0]}.{capability[1]}, expected at least "
                f"{_LEAST_CAPABILITY[0]}.{_LEAST_CAPABILITY[1]}; choose engine 'onnxruntime'",
                field="provider",
            )
        fitting = [binary for binary in self.binaries.get(form, ()) if _runs(binary, capability)]
        if not fitting:
            raise EngineStartError(
                f"there is no binary of kernel {form!r} for compute capability {capability[0]}.{capability[1]}; choose "
                "engine 'onnxruntime'",
                field="engine",
            )
        return max(fitting, key=lambda binary: (binary.kind == "cubin", binary.architecture))


_FIELDS = ("file", "kind", "architecture", "entry", "shared_bytes", "num_warps")


def read_archive(path: Path = ARCHIVE) -> KernelArchive:
    """Read the binaries that the package brings along.

    Raises:
        EngineStartError: They are missing or damaged.
    """
    try:
        return KernelArchive(path.read_bytes())
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, KeyError, ValueError) as error:
        raise EngineStartError(
            f"the GPU kernels {path.name} cannot be read ({error}); install labelmint again, or choose engine "
            "'onnxruntime'",
            field="engine",
        ) from error


def _runs(binary: KernelBinary, capability: tuple[int, int]) -> bool:
    device = capability[0] * 10 + capability[1]
    if binary.kind == "ptx":
        return binary.architecture <= device
    if binary.architecture >= _ARCHITECTURE_SPECIFIC:
        return binary.architecture == device
    return binary.architecture // 10 == capability[0] and binary.architecture <= device
