"""What a user installs: the wheel's contents, and what imports without the optional packages."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from email.parser import HeaderParser
from pathlib import Path

import pytest

from labelmint.bundle import open_bundle

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "labelmint": ROOT / "protos/labelmint",
    "labelmint_export": ROOT / "export/labelmint_export",
    "labelmint_service": ROOT / "service/labelmint_service",
    "labelmint_client": ROOT / "clients/python/labelmint_client",
}
EMBEDDED_BUNDLE = "labelmint_service/bundles/toonhead"
MAX_BUNDLE_BYTES = 12_000_000

# Top-level modules that neither grpcio nor protobuf nor numpy brings along.
SERVER_LIBRARIES = ["grpc_health", "grpc_reflection", "prometheus_client", "pydantic", "pydantic_settings", "dotenv"]
ENGINES = ["onnxruntime", "tensorrt", "tensorrt_rtx", "cuda", "triton"]
TRAINING = [
    "defusedxml",
    "torch",
    "onnx",
    "onnxscript",
    "safetensors",
    "scipy",
    "dicebear",
    "dicebear_styles",
    "resvg_py",
    "rich",
]
PICTURES = ["PIL", "simplejpeg", "zstandard", "tqdm"]
TRACING = ["opentelemetry"]
DEVELOPMENT = ["pytest", "hypothesis", "mpmath", "pycocotools"]

IMPORT_ALL = """
import importlib, pathlib, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is not part of this installation")

sys.meta_path.insert(0, Refuse())
num_modules = 0
for name in PACKAGES:
    package = importlib.import_module(name)
    folder = pathlib.Path(package.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        module = ".".join([name, *path.relative_to(folder).with_suffix("").parts]).removesuffix(".__init__")
        if not module.startswith(tuple(EXEMPT)):
            importlib.import_module(module)
            num_modules += 1
loaded = sorted({name.partition(".")[0] for name in sys.modules} & set(BLOCKED))
print(num_modules, loaded)
"""


def import_all(packages: list[str], blocked: list[str], exempt: Sequence[str] = ()) -> tuple[int, str]:
    """Import every submodule, but those whose name starts like an exempt one, where some packages are missing.

    Returns:
        The number of modules and the text of the missing packages that got loaded all the same.
    """
    code = f"PACKAGES = {packages}\nBLOCKED = {blocked}\nEXEMPT = {list(exempt)}\n{IMPORT_ALL}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    number, loaded = done.stdout.split(maxsplit=1)
    return int(number), loaded.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next(target.glob("*.whl")))


def source_files() -> set[str]:
    return {
        f"{package}/{path.relative_to(folder).as_posix()}"
        for package, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_wheel_holds_the_four_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    contents = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert contents == source_files()


@pytest.mark.parametrize("package", PACKAGES)
def test_wheel_says_that_its_packages_are_typed(wheel: zipfile.ZipFile, package: str) -> None:
    assert f"{package}/py.typed" in wheel.namelist()


def test_wheel_carries_licence_and_notice(wheel: zipfile.ZipFile) -> None:
    folder = next(name for name in wheel.namelist() if name.endswith("dist-info/METADATA")).rpartition("/")[0]
    assert "Apache License" in wheel.read(f"{folder}/licenses/LICENSE").decode()
    assert "CC BY 4.0" in wheel.read(f"{folder}/licenses/NOTICE").decode()
    metadata = HeaderParser().parsestr(wheel.read(f"{folder}/METADATA").decode())
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == "<3.14,>=3.11"


def test_base_installation_needs_grpc_protobuf_and_numpy_only(wheel: zipfile.ZipFile) -> None:
    name = next(name for name in wheel.namelist() if name.endswith("dist-info/METADATA"))
    requirements = HeaderParser().parsestr(wheel.read(name).decode()).get_all("Requires-Dist", [])
    base = {requirement.partition(">")[0] for requirement in requirements if "extra ==" not in requirement}
    assert base == {"grpcio", "numpy", "protobuf"}


def test_embedded_bundle_is_sound_small_and_in_the_wheel(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    members = [name for name in wheel.namelist() if name.startswith(f"{EMBEDDED_BUNDLE}/")]
    wheel.extractall(tmp_path, members)
    bundle = open_bundle(tmp_path / EMBEDDED_BUNDLE)
    assert bundle.name == "toonhead"
    assert len(members) == len(bundle.manifest.files) + 1
    assert sum(wheel.getinfo(name).file_size for name in members) <= MAX_BUNDLE_BYTES


def test_contract_and_client_import_with_the_base_installation() -> None:
    blocked = SERVER_LIBRARIES + ENGINES + TRAINING + PICTURES + TRACING + DEVELOPMENT
    num_modules, loaded = import_all(["labelmint", "labelmint_client"], blocked)
    assert num_modules > 10
    assert loaded == "[]"


def test_service_imports_without_an_engine_torch_and_traces() -> None:
    # The modules that are an engine need it, and nothing imports them before that engine is asked for.
    engine = "labelmint_service.engine"
    exempt = [
        f"{engine}.{name}"
        for name in (
            "onnxruntime_engine",
            "sessions",
            "graph_runs",
            "fused.engine",
            "fused.gpu.engine",
            "fused.gpu.graphs",
        )
    ]
    exempt.append("labelmint_service.tracing.telemetry")
    num_modules, loaded = import_all(["labelmint_service"], ENGINES + TRAINING + TRACING + DEVELOPMENT, exempt)
    assert num_modules > 10
    assert loaded == "[]"


def test_export_imports_without_the_avatars_and_the_server() -> None:
    avatars = ["dicebear", "dicebear_styles", "resvg_py", "matplotlib"]
    num_modules, loaded = import_all(["labelmint_export"], avatars + SERVER_LIBRARIES + DEVELOPMENT)
    assert num_modules > 10
    assert loaded == "[]"


@pytest.mark.parametrize("package", ["labelmint_service", "labelmint_export"])
def test_onnxruntime_of_the_package_leaves_nothing_in_a_home(tmp_path: Path, package: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    program = f"import {package}, onnxruntime; onnxruntime.get_available_providers()"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120, env=environment | {"HOME": str(tmp_path)})

    assert not list(tmp_path.iterdir())
