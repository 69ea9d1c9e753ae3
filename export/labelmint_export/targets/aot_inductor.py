"""AOTInductor package: `model.pt2` with a compiled library, which runs without Python. Compiled when it is written."""

import platform
import shutil
import warnings
from importlib import metadata
from pathlib import Path

import torch

from labelmint_export.errors import BuildError, CannotRunError
from labelmint_export.targets.deployed import TargetModel
from labelmint_export.targets.exported_program import export_program
from labelmint_export.targets.protocol import Device, Engine, Target, Written
from labelmint_export.targets.settings import TargetSettings
from labelmint_export.targets.torch_engine import run_with_arrays, save_archive

MODEL_FILE = "model.pt2"


def find_compiler() -> str:
    """Find the C++ compiler that torch would call.

    Raises:
        BuildError: There is none.
    """
    from torch._inductor import config  # noqa: PLC0415  # slow to import, and only this target needs it

    wanted = [str(name) for name in config.cpp.cxx if name]
    for name in wanted:
        found = shutil.which(name)
        if found is not None:
            return found
    raise BuildError(
        f"AOTInductor compiles when it writes, and none of {wanted} is a C++ compiler on the path; install one (apt "
        "install g++), name one in CXX, or take target 'program', which needs none",
        field="target",
    )


def _write(model: TargetModel, _settings: TargetSettings, folder: Path) -> Written:
    compiler = find_compiler()
    from torch._inductor import aoti_compile_and_package  # noqa: PLC0415
    from torch._inductor.exc import InductorError  # noqa: PLC0415

    program = export_program(model)
    try:
        with warnings.catch_warnings():
            for category in (FutureWarning, DeprecationWarning):  # of torch about itself
                warnings.filterwarnings("ignore", category=category)
            save_archive(lambda file: aoti_compile_and_package(program, package_path=file), folder / MODEL_FILE)
    except (InductorError, RuntimeError) as error:
        raise BuildError(f"AOTInductor does not compile the model with {compiler}: {error}", field="target") from error
    return Written(
        versions={"torch": metadata.version("torch")},
        device={
            "kind": "cpu",
            "machine": platform.machine(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
        },
        details={"compiler": Path(compiler).name},
    )


def _load(folder: Path, model: TargetModel, device: Device) -> Engine:
    if device != "cpu":
        raise CannotRunError("the package was compiled for a CPU")
    from torch._inductor import aoti_load_package  # noqa: PLC0415

    package = aoti_load_package(str(folder / MODEL_FILE))
    return Engine(
        run=run_with_arrays(package, model, device),
        computes="AOTInductor, cpu" + ("" if model.precision == "float32" else ", rounded between fused kernels"),
        rounds=True,
    )


TARGET = Target(
    name="aotinductor", summary="AOTInductor package, compiled for this processor (needs g++)", write=_write, load=_load
)
