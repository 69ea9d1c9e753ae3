"""Compiles the GPU kernels: `python service/kernel/compile_gpu.py`. Needs Triton, but neither a GPU nor a driver.

The result is committed, so that nothing is compiled when a user installs and the service needs no Triton. It holds
machine code for sm_80 and sm_90, and PTX of sm_80, which the driver compiles on devices that come later; and it carries
the hash of its sources, which a test compares.
"""

import argparse
import hashlib
import importlib.util
import io
import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from labelmint_service.engine.fused.gpu import forms

HERE = Path(__file__).parent
SOURCE = HERE / "interpreter_gpu.py"
TARGET = HERE.parent / "labelmint_service/engine/fused/gpu/interpreter-cuda.zip"
ARCHITECTURES = (80, 90)
PTX_ARCHITECTURE = 80
WARP_SIZE = 32
_OLDEST = (1980, 1, 1, 0, 0, 0)  # of zip; so that the same kernels give the same file


def hash_of_sources() -> str:
    """sha256 of the kernels, of their forms and of how they are compiled."""
    digest = hashlib.sha256()
    for path in (SOURCE, Path(str(forms.__file__)), Path(__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def compile_all(chosen: Sequence[forms.Form], architectures: Sequence[int] = ARCHITECTURES) -> bytes:
    """Compile forms into an archive.

    Args:
        chosen: Of `forms.all_forms`.
        architectures: Compute capabilities, 80 for sm_80.

    Returns:
        A zip file: `kernels.json`, and a member for each binary that it names.
    """
    triton.knobs.compilation.disable_line_info = True  # only debuggers read it
    kernels = load_kernels()
    members: dict[str, bytes] = {}
    records = {form.name: _compile(kernels, form, architectures, members) for form in chosen}
    index = {"sources_sha256": hash_of_sources(), "triton": triton.__version__, "kernels": records}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in {"kernels.json": json.dumps(index, indent=1).encode(), **members}.items():
            archive.writestr(zipfile.ZipInfo(name, _OLDEST), data, zipfile.ZIP_DEFLATED, 9)
    return content.getvalue()


def _compile(
    kernels: ModuleType, form: forms.Form, architectures: Sequence[int], members: dict[str, bytes]
) -> list[dict[str, Any]]:
    """Compile one form; puts the binaries into `members` and returns what the index says of each."""
    records = []
    for architecture in architectures:
        target = GPUTarget("cuda", architecture, WARP_SIZE)
        source = _source(getattr(kernels, form.kernel), form)
        compiled = triton.compile(
            source,
            target=target,
            options={"num_warps": form.num_warps, "num_stages": form.stages_on(architecture), "enable_fp_fusion": True},
        )
        metadata = compiled.metadata
        if metadata.global_scratch_size or metadata.profile_scratch_size:
            raise SystemExit(f"{form.name} wants memory of its own, which the service does not give it")
        ptx = compiled.asm["ptx"]
        kinds = {"cubin": compiled.asm["cubin"]}
        if architecture == PTX_ARCHITECTURE:
            kinds["ptx"] = ptx.encode()
        for kind, data in kinds.items():
            name = f"{form.name}-sm{architecture}.{kind}"
            members[name] = data
            records.append(
                {
                    "file": name,
                    "kind": kind,
                    "architecture": architecture,
                    "entry": metadata.name,
                    "shared_bytes": metadata.shared,
                    "num_warps": metadata.num_warps,
                    "parameters": _parameters(form, ptx),
                }
            )
    return records


def _source(function: Any, form: forms.Form) -> ASTSource:  # Any: Triton's kernel
    """A kernel with the types of its arguments, what they are multiples of, and its constants."""
    names = function.arg_names
    parameters = forms.parameters_of(form.kernel)
    types = {parameter.name: _type_of(parameter, form) for parameter in parameters}
    types |= dict.fromkeys(form.constants, "constexpr")
    return ASTSource(
        function,
        signature={name: types[name] for name in names},
        constexprs={(names.index(name),): value for name, value in form.constants.items()},
        attrs={
            (names.index(parameter.name),): [["tt.divisibility", parameter.divisor]]
            for parameter in parameters
            if parameter.divisor > 1
        },
    )


def _type_of(parameter: forms.Parameter, form: forms.Form) -> str:
    if parameter.kind == "*taps":
        return forms.TAP_TYPES[form.tap_dtype]
    return {"*half": "*fp16"}.get(parameter.kind, parameter.kind)


def _parameters(form: forms.Form, ptx: str) -> list[str]:
    """Types of all that a launch hands over: what the kernel names, then addresses that nothing reads."""
    named = [_type_of(parameter, form) for parameter in forms.parameters_of(form.kernel)]
    entry = ptx[ptx.index(".entry") :]
    found = re.findall(r"\.param\s+\.(u64|u32|b64|b32)", entry[: entry.index(")")])
    added = found[len(named) :]
    if [kind[1:] for kind in found] != ["64" if one.startswith("*") else "32" for one in named] + ["64"] * len(added):
        raise SystemExit(f"{form.name} takes {found}, expected {named}")
    return named + ["null"] * len(added)


def load_kernels() -> ModuleType:
    """The kernels of interpreter_gpu.py."""
    spec = importlib.util.spec_from_file_location("labelmint_gpu_kernels", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Compile the GPU kernels of the interpreter.")
    parser.add_argument("--out", type=Path, default=TARGET, help="archive to write (default: the service's)")
    parser.add_argument("--forms", nargs="+", help="names of forms (default: all)")
    parsed = parser.parse_args()
    known = {form.name: form for form in forms.all_forms()}
    unknown = [name for name in parsed.forms or [] if name not in known]
    if unknown:
        parser.error(f"there is no form {unknown[0]!r}, expected some of {', '.join(known)}")
    chosen = [form for form in known.values() if not parsed.forms or form.name in parsed.forms]
    content = compile_all(chosen)
    parsed.out.write_bytes(content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name, records in json.loads(archive.read("kernels.json"))["kernels"].items():
            print(name, {record["file"].rpartition("-")[2]: record["shared_bytes"] for record in records})
    print(f"{len(content):,} bytes")


if __name__ == "__main__":
    main()
