"""Compiles the interpreter's kernel for every instruction set it has a form for: `make kernel`.

Needs g++ 12 or newer on Linux, x86-64. The result is committed, so that nothing is compiled when a user installs; it
carries the hash of its sources, and a test compares that.
"""

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = ("interpreter.cpp", "supports.cpp")
TARGET = HERE.parent / "labelmint_service/engine/fused/interpreter-linux-x86_64.so"

COMMON = (
    *("-std=c++17", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-strict-aliasing", "-fno-exceptions"),
    *("-fno-rtti", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-psabi", "-Wno-maybe-uninitialized"),
)
FORMS = {  # name -> lanes, whether in bfloat16, flags
    "avx2": (8, False, "-march=x86-64-v3"),
    "avx512": (16, False, "-march=x86-64-v4 -mprefer-vector-width=512"),
    "avx512bf16": (16, True, "-march=x86-64-v4 -mprefer-vector-width=512 -mavx512bf16"),
}


def hash_of_sources() -> str:
    """sha256 of the sources and of how they are compiled."""
    digest = hashlib.sha256(repr((COMMON, FORMS)).encode())
    for name in SOURCES:
        digest.update((HERE / name).read_bytes())
    return digest.hexdigest()


def build(compiler: str = "g++") -> None:
    """Compile and link; the old library stays if that fails.

    Raises:
        subprocess.CalledProcessError: The compiler or linker failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        objects = []
        for name, (lanes, bfloat16, flags) in FORMS.items():
            objects.append(f"{folder}/{name}.o")
            defines = [f"-DLM_SUFFIX={name}", f"-DLM_LANES={lanes}", f"-DLM_BF16={int(bfloat16)}"]
            command = [compiler, *COMMON, *flags.split(), *defines, "-c", str(HERE / "interpreter.cpp")]
            subprocess.run([*command, "-o", objects[-1]], check=True)
        objects.append(f"{folder}/supports.o")
        command = [compiler, *COMMON, f'-DLM_SOURCES="{hash_of_sources()}"', "-c", str(HERE / "supports.cpp")]
        subprocess.run([*command, "-o", objects[-1]], check=True)
        linked = Path(folder) / "kernel.so"
        link = [compiler, "-shared", "-nostdlib", "-Wl,-s", "-Wl,--no-undefined", *objects, "-lgcc", "-lc"]
        subprocess.run([*link, "-o", str(linked)], check=True)
        unfinished = TARGET.with_name(f"{TARGET.name}.unfinished")
        unfinished.write_bytes(linked.read_bytes())
        unfinished.replace(TARGET)  # a server that runs keeps the old one; bytes that changed under it would end it


if __name__ == "__main__":
    build(*sys.argv[1:])
