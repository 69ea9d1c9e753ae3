"""TorchScript, torch.export program and AOTInductor package: what was loaded again equals the module."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch._inductor import config

from labelmint_export.errors import BuildError, CannotRunError
from labelmint_export.precision import Precision
from labelmint_export.targets.registry import find_target
from labelmint_export.targets.settings import TargetSettings
from tests.export.built_bundle import BuiltBundle
from tests.export.targets.made import make_model, run_module

PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "bfloat16")


def check_equals_module(built: BuiltBundle, name: str, precision: Precision, folder: Path, exact: bool) -> None:
    target, model = find_target(name, precision), make_model(built, precision)
    target.write(model, TargetSettings(), folder)
    engine = target.load(folder, model, "cpu")
    for count in (1, 3):
        feeds = built.feeds(seed=4, indices=range(count), psi=0.6)
        got, expected = engine.run(feeds), run_module(model, feeds)
        assert got.keys() == expected.keys()
        for output, array in expected.items():
            assert got[output].dtype == array.dtype
            tolerance = 0.0 if exact else {"image": 1.0, "label": 0.0, "finite": 0.0}.get(output, 4e-3)
            np.testing.assert_allclose(
                np.asarray(got[output], float), array.astype(float), rtol=0, atol=tolerance, err_msg=output
            )


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        *(("torchscript", precision) for precision in PRECISIONS),
        ("program", "float32"),
        *(pytest.param("program", precision, marks=pytest.mark.thorough) for precision in PRECISIONS[1:]),
    ],
)
def test_stored_program_equals_the_module(
    plain_built: BuiltBundle, name: str, precision: Precision, tmp_path: Path
) -> None:
    check_equals_module(plain_built, name, precision, tmp_path, exact=precision != "float32")


@pytest.mark.parametrize("name", ["torchscript", "program"])
def test_stored_program_takes_classes_and_crops(unusual_built: BuiltBundle, name: str, tmp_path: Path) -> None:
    check_equals_module(unusual_built, name, "float32", tmp_path, exact=False)


@pytest.mark.thorough
def test_stored_program_names_no_file_of_ours(plain_built: BuiltBundle, tmp_path: Path) -> None:
    find_target("program", "float32").write(make_model(plain_built, "float32"), TargetSettings(), tmp_path)
    content = (tmp_path / "model.pt2").read_bytes()
    assert b"labelmint_export/" not in content


@pytest.mark.slow
@pytest.mark.thorough
def test_compiled_package_equals_the_module(plain_built: BuiltBundle, tmp_path: Path) -> None:
    try:
        check_equals_module(plain_built, "aotinductor", "float32", tmp_path, exact=False)
    except BuildError as error:
        if "is a C++ compiler on the path" in str(error):
            pytest.skip(str(error))
        raise


def test_missing_compiler_is_named(plain_built: BuiltBundle, tmp_path: Path) -> None:
    with (
        config.patch({"cpp.cxx": (None, "no-such-compiler")}),
        pytest.raises(BuildError, match=r"no-such-compiler.*apt install g\+\+"),
    ):
        find_target("aotinductor", "float32").write(make_model(plain_built, "float32"), TargetSettings(), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["torchscript", "program", "aotinductor"])
def test_program_for_the_processor_refuses_another_device(plain_built: BuiltBundle, name: str, tmp_path: Path) -> None:
    with pytest.raises(CannotRunError, match="CPU"):
        find_target(name, "float32").load(tmp_path, make_model(plain_built, "float32"), "cuda")
