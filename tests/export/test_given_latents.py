"""`sample --z` and `sample --w`: pictures that were annotated with another program, painted from its latents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from labelmint_export.annotations import AnnotatedSet, read_pictures
from labelmint_export.cli import main
from labelmint_export.generator.snapshots import save_generator
from tests.export.tiny_parts import make_generator

RANDOM = np.random.default_rng(5)
Z = RANDOM.standard_normal([3, 8])
PSI = ["--truncation-psi", "0.7", "--truncation-cutoff", "2"]


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gan") / "generator.safetensors"
    save_generator(make_generator(), path)
    return path


def sample(generator: Path, out: Path, *arguments: str) -> AnnotatedSet:
    command = ["sample", "--generator", str(generator), "--out", str(out), "--classes", "ground", "thing", *arguments]
    assert main(command) == 0
    return read_pictures(out)


def save(path: Path, array: npt.NDArray[np.generic]) -> str:
    np.save(path, array)
    return str(path)


def test_pictures_of_given_z_are_those_that_the_generator_paints_of_them(generator: Path, tmp_path: Path) -> None:
    drawn = sample(generator, tmp_path / "drawn", "--seed", "7", "--count", "3", *PSI)
    z = save(tmp_path / "z.npy", drawn.z.numpy().astype(np.float64))
    given = sample(generator, tmp_path / "given", "--z", z, *PSI)

    assert np.array_equal(given.pictures, drawn.pictures)
    assert given.z.equal(drawn.z)
    assert given.ws.equal(drawn.ws)


def test_given_w_is_taken_as_it_is_for_one_layer_or_all(generator: Path, tmp_path: Path) -> None:
    drawn = sample(generator, tmp_path / "drawn", "--count", "3")
    ws = drawn.ws.numpy()
    longer = np.concatenate([ws, ws[:, :2] + 1.0], axis=1)  # DatasetGAN's program has 18 for every generator
    for name, array in {"one": ws[:, 0], "all": ws, "longer": longer}.items():
        given = sample(generator, tmp_path / name, "--w", save(tmp_path / f"{name}.npy", array))
        assert np.array_equal(given.pictures, drawn.pictures), name
        assert not given.z.any()


def test_sets_without_z_do_not_hide_each_others_pictures(generator: Path, tmp_path: Path) -> None:
    ws = sample(generator, tmp_path / "drawn", "--count", "4").ws.numpy()
    first = save(tmp_path / "first.npy", ws[:2])
    second = save(tmp_path / "second.npy", ws[2:])
    sample(generator, tmp_path / "a", "--w", first)

    assert len(sample(generator, tmp_path / "b", "--w", second, "--annotated", str(tmp_path / "a"))) == 2


def test_given_z_of_a_conditional_generator_are_of_the_class_that_is_named(tmp_path: Path) -> None:
    generator = tmp_path / "generator.safetensors"
    save_generator(make_generator(c_dim=3), generator)
    drawn = sample(generator, tmp_path / "drawn", "--count", "2", "--generator-class", "1")
    z = save(tmp_path / "z.npy", drawn.z.numpy())
    given = sample(generator, tmp_path / "given", "--z", z, "--generator-class", "1")

    assert np.array_equal(given.pictures, drawn.pictures)
    command = ["sample", "--generator", str(generator), "--out", str(tmp_path / "no"), "--classes", "a", "b"]
    assert main([*command, "--z", z]) == 1


@pytest.mark.parametrize(
    ("kind", "array", "more", "expected"),
    [
        ("z", Z[:, :5], [], "shape [3, 5], expected [N, 8]"),
        ("z", Z[:0], [], "shape [0, 8]"),
        ("z", Z.astype(np.int64), [], "int64 or not finite"),
        ("z", np.where(Z > 0, Z, np.nan), [], "not finite"),
        ("z", Z, ["--count", "2"], "--count is 2 and --z holds 3 latents"),
        ("z", Z, ["--generator-class", "1"], "generator class is 1, expected none"),
        ("w", Z, [], "expected [N, 10] or [N, "),
        ("w", RANDOM.standard_normal([3, 2, 10]), [], "shape [3, 2, 10]"),
        ("w", RANDOM.standard_normal([3, 10]), PSI, "--truncation-psi is 0.7, but --w is taken as it is"),
    ],
)
def test_what_does_not_fit_is_refused(
    generator: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    array: npt.NDArray[np.generic],
    more: list[str],
    expected: str,
) -> None:
    given = save(tmp_path / "given.npy", array)
    command = ["sample", "--generator", str(generator), "--out", str(tmp_path / "out"), "--classes", "a", "b"]

    assert main([*command, f"--{kind}", given, *more]) == 1
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_pickle_is_not_read(generator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "z.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    command = ["sample", "--generator", str(generator), "--out", str(tmp_path / "out"), "--classes", "a", "b"]

    assert main([*command, "--z", str(tmp_path / "z.npy")]) == 1
    assert "z.npy cannot be read" in capsys.readouterr().err
