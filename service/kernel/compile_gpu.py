"""Compiles the GPU kernels for one bundle: `python service/kernel/compile_gpu.py BUNDLE OUT`. Needs no GPU, but Triton.

Sizes are compiled in, so every shape of interpreter has binaries of its own. For each launch of a batch: a cubin an
architecture, PTX of the newest one for devices that come later, and `kernels.json` with entry points, shared memory,
warps and the order of launches.
"""

import argparse
import importlib.util
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from labelmint.bundle import open_bundle
from labelmint.tables import read_interpreter_tables
from labelmint_service.engine.fused.gpu_plan import GpuPlan, Launch, make_plan
from labelmint_service.engine.fused.weights import InterpreterWeights, weights_from_tables

SOURCE = Path(__file__).parent / "interpreter_gpu.py"
ARCHITECTURES = (80, 90)
WARP_SIZE = 32
_POINTERS: Mapping[str, str] = {"half": "*fp16", "float32": "*fp32", "uint8": "*u8"}


def read_weights(bundle_path: Path) -> InterpreterWeights:
    """The interpreter of a bundle."""
    bundle = open_bundle(bundle_path)
    manifest = bundle.manifest
    channels = Counter[int]()
    for tap in manifest.taps:
        channels[tap.resolution] += tap.channels
    size = manifest.frame.label_height * manifest.backbone.resolution // manifest.frame.image_height
    return weights_from_tables(read_interpreter_tables(bundle), channels, size, manifest.vote_rule)


def compile_plan(plan: GpuPlan, out: Path, architectures: tuple[int, ...] = ARCHITECTURES) -> list[dict[str, Any]]:
    """Compile every launch of a plan; returns what stands in kernels.json.

    Args:
        plan: Of one bundle and batch.
        out: Folder of the binaries; made if missing.
        architectures: Compute capabilities, 80 for sm_80.
    """
    kernels = _load_kernels()
    out.mkdir(parents=True, exist_ok=True)
    records = []
    for number, launch in enumerate(plan.launches):
        function = getattr(kernels, launch.kernel)
        record: dict[str, Any] = {
            "kernel": launch.kernel,
            "grid": launch.grid,
            "arguments": launch.arguments,
            "constants": dict(launch.constants),
            "binaries": {},
        }
        for architecture in architectures:
            source = ASTSource(function, **_signature(function, launch, plan))
            compiled = triton.compile(source, target=GPUTarget("cuda", architecture, WARP_SIZE))
            name = f"{number:02d}-{launch.kernel}-sm{architecture}"
            (out / f"{name}.cubin").write_bytes(compiled.asm["cubin"])
            if architecture == max(architectures):
                (out / f"{name}.ptx").write_text(compiled.asm["ptx"])
            record["binaries"][f"sm_{architecture}"] = {
                "file": f"{name}.cubin",
                "entry": compiled.metadata.name,
                "shared_bytes": compiled.metadata.shared,
                "num_warps": compiled.metadata.num_warps,
            }
        records.append(record)
    (out / "kernels.json").write_text(json.dumps(records, indent=1) + "\n")
    return records


def _signature(function: Any, launch: Launch, plan: GpuPlan) -> dict[str, Any]:  # Any: Triton's kernel
    """Types of the arguments, by their names in the kernel, and the constants by their places."""
    names = function.arg_names
    types = {}
    for name, argument in zip(names, launch.arguments, strict=False):
        if isinstance(argument, int):
            types[name] = "i32"
        elif argument in plan.buffers:
            types[name] = _POINTERS[plan.buffers[argument].dtype]
        else:
            types[name] = "*fp32" if argument in plan.tables else "*fp16"
    types |= dict.fromkeys(launch.constants, "constexpr")
    constants = {(names.index(name),): value for name, value in launch.constants.items()}
    return {"signature": {name: types[name] for name in names}, "constexprs": constants}


def _load_kernels() -> ModuleType:
    spec = importlib.util.spec_from_file_location("labelmint_gpu_kernels", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Compile the GPU kernels of the interpreter for one bundle.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--architectures", type=int, nargs="+", default=ARCHITECTURES, help="80 for sm_80")
    parsed = parser.parse_args()
    plan = make_plan(read_weights(parsed.bundle), parsed.batch_size)
    for record in compile_plan(plan, parsed.out, tuple(parsed.architectures)):
        sizes = {name: binary["shared_bytes"] for name, binary in record["binaries"].items()}
        print(f"{record['kernel']}: grid {record['grid']}, shared memory {sizes}")


if __name__ == "__main__":
    main()
