"""Several annotation folders as one set."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from labelmint_export.annotations import AnnotatedSet, files_of, read_joined, write_annotations
from labelmint_export.cli import main
from labelmint_export.errors import AnnotationError
from labelmint_export.generator import Generator
from labelmint_export.generator.snapshots import save_generator
from labelmint_export.stored import sha256_of_files
from tests.export.tiny_parts import make_annotated, make_generator, make_schema


@pytest.fixture(scope="module")
def generator() -> Generator:
    return make_generator(16)


@pytest.fixture
def first(generator: Generator) -> AnnotatedSet:
    return make_annotated(generator, 3, seed=4)


@pytest.fixture
def folders(generator: Generator, first: AnnotatedSet, tmp_path: Path) -> list[Path]:
    made = [tmp_path / "drawn", tmp_path / "more"]
    write_annotations(first, made[0])
    write_annotations(make_annotated(generator, 2, seed=5), made[1])
    return made


def test_pictures_of_all_folders_come_in_their_order(
    generator: Generator, first: AnnotatedSet, folders: list[Path]
) -> None:
    second = make_annotated(generator, 2, seed=5)
    joined = read_joined(folders)
    assert len(joined) == 5
    for name in ("pictures", "masks", "keypoints"):
        both = np.concatenate([getattr(first, name), getattr(second, name)])
        np.testing.assert_allclose(getattr(joined, name), both, atol=0.01)
    assert torch.equal(joined.ws, torch.cat([first.ws, second.ws]))
    assert torch.equal(joined.z, torch.cat([first.z, second.z]))
    assert read_joined(folders[:1]).names == ("00", "01", "02")


def test_other_pictures_classes_and_generators_are_refused(
    generator: Generator, first: AnnotatedSet, folders: list[Path], tmp_path: Path
) -> None:
    larger = make_generator(32)
    others = {
        "classes": replace(first, schema=make_schema(2), keypoints=first.keypoints[:, :2]),
        "pictures": make_annotated(larger, 2),
        "ws": replace(first, ws=first.ws[:, :-1]),
        "z": replace(first, z=first.z[:, :-1]),
    }
    for field, other in others.items():
        folder = tmp_path / field
        write_annotations(other, folder)
        with pytest.raises(AnnotationError, match=f"of {folder}") as caught:
            read_joined([folders[0], folder])
        assert caught.value.field == field


def test_folder_named_twice_is_refused(folders: list[Path]) -> None:
    with pytest.raises(AnnotationError, match="named twice") as caught:
        read_joined([folders[0], folders[1], folders[0] / ".." / folders[0].name])
    assert caught.value.field == "annotations"


def test_interpreter_learns_from_several_folders(generator: Generator, folders: list[Path], tmp_path: Path) -> None:
    save_generator(generator, tmp_path / "generator.safetensors", {})
    arguments = ["--generator", tmp_path / "generator.safetensors", "--annotations", *folders, "--members", 2]
    arguments += ["--hidden", 6, 4, "--steps", 2, "--out", tmp_path / "interpreter.safetensors"]
    assert main(["train-interpreter", *map(str, arguments)]) == 0
    provenance = json.loads((tmp_path / "interpreter.json").read_text())["provenance"]
    assert provenance["num_annotated_images"] == 5
    assert provenance["annotations_sha256"] == sha256_of_files(files_of(folders))
