"""The catalog: what a reference means while versions come and go, against a plain model of it."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelmint_service.errors import ModelNotReadyError, RepositoryStateError, ServiceError, VersionFolderError
from labelmint_service.models.catalog import ModelCatalog, Version, VersionState
from labelmint_service.models.references import read_reference, tell_some, version_order
from labelmint_service.models.served import ServedModel, load_model
from labelmint_service.repository.folders import scan
from labelmint_service.repository.model_file import ModelFile, read_model_file, write_model_file

NAMES = ("1", "2", "3")
ALIASES = ("default", "stable")
STATES = tuple(VersionState)


@pytest.fixture(scope="module")
def models(bundles: dict[str, Path]) -> dict[str, ServedModel]:
    return {name: load_model(bundles["tiny"]) for name in NAMES}


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.sampled_from(NAMES), st.sampled_from(STATES)),
            st.tuples(st.just("drop"), st.sampled_from(NAMES)),
            st.tuples(st.just("point"), st.dictionaries(st.sampled_from(ALIASES), st.sampled_from(NAMES))),
        ),
        max_size=30,
    )
)
def test_references_mean_what_a_plain_model_says(
    models: dict[str, ServedModel], steps: list[Any]
) -> None:  # Any: tuples
    catalog = ModelCatalog()
    states: dict[str, VersionState] = {}
    wanted: dict[str, str] = {}
    standing: dict[str, str | None] = {}
    for step in steps:
        match step:
            case ("put", name, state):
                model = models[name] if state is VersionState.READY else None
                states[name] = state
                catalog.put("tiny", Version(name=name, state=state, model=model))
            case ("drop", name) if name in states:
                del states[name]
                catalog.drop("tiny", name)
            case ("point", aliases):
                wanted = aliases
        catalog.point("tiny", wanted)
        ready = [name for name in states if states[name] is VersionState.READY]
        if not states:
            standing = {}
            continue
        standing = {
            alias: version if version in ready else before if (before := standing.get(alias)) in ready else None
            for alias, version in wanted.items()
        }
        latest = max(ready, default=None)
        expected = {"latest": latest, "default": latest} | standing
        assert catalog.aliases("tiny") == {alias: name for alias, name in expected.items() if name is not None}
        for alias, version in expected.items():
            if version is None:
                with pytest.raises(ModelNotReadyError):
                    catalog.find(f"tiny@{alias}", field="model")
            else:
                found = catalog.find(f"tiny@{alias}", field="model")
                assert found[0] is models[version]
                assert set(found) == {models[name] for name in ready}
        for name in ready:
            assert catalog.find(f"tiny@{name}", field="model") == [models[name]]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "expected one of m000"),
        ("other", "expected one of m000"),
        ("hidden", "which your token does not open, expected one of m000"),
        ("m000@other", "no such version or alias, expected one of 001"),
        ("m000@000", "or ask for m000"),
        ("m001", "which is not ready (200"),
    ],
)
def test_errors_name_a_few_of_many_models_and_versions(models: dict[str, ServedModel], text: str, told: str) -> None:
    catalog, rest = ModelCatalog(), 61 * "a"
    ready = Version(name="1" + rest, state=VersionState.READY, model=models["1"])
    failed = Version(name="000", state=VersionState.FAILED, brief_reason="an error of the server")
    for number in range(200):
        catalog.put(f"m{number:03}" + "a" * 60, ready)
        catalog.put("m000", replace(ready, name=f"{number + 1:03}" + rest))
        catalog.put("m001", replace(failed, name=f"{number + 1:03}" + rest))
    catalog.put("m000", failed)
    catalog.put("hidden", ready)
    with pytest.raises(ServiceError) as caught:
        catalog.limited_to(frozenset(catalog.names) - {"hidden"}).find(text, field="model")

    assert told in str(caught.value)
    assert re.search(r" and 19\d more", str(caught.value))
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(("count", "told"), [(0, ""), (1, "0"), (8, "0, 1, 2, 3, 4, 5, 6, 7")])
def test_few_things_are_all_told(count: int, told: str) -> None:
    assert tell_some(range(count)) == told
    assert tell_some(range(9)) == "0, 1, 2, 3, 4, 5, 6, 7 and 1 more"


@pytest.mark.parametrize(
    "ascending",
    [
        ["1", "2", "9", "10", "11"],
        ["v1.2", "v1.10", "v2"],
        ["2024-01-31", "2024-02-01", "2024-10-01"],
        ["1", "1.0", "1.1"],
        ["a", "b"],
    ],
)
def test_newer_versions_come_after_older_ones(ascending: list[str]) -> None:
    keys = [version_order(version) for version in ascending]
    assert all(older < newer for older, newer in pairwise(keys))


@given(st.lists(st.text(), min_size=1))
def test_any_texts_can_be_ordered(versions: list[str]) -> None:
    keys = sorted(map(version_order, versions))
    assert all(older <= newer for older, newer in pairwise(keys))


@given(st.text())
def test_no_reference_leaves_a_folder(text: str) -> None:
    reference = read_reference(text)
    if reference is not None:
        assert str(reference) == text
        for part in (reference.name, reference.version):
            assert "/" not in part
            assert "\\" not in part
            assert not part.startswith(".")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"aliases": {"stable": 1}}',
        '{"aliases": {"latest": "1"}}',
        '{"aliases": {"../x": "1"}}',
        '{"aliases": {"stable": "../1"}}',
        '{"memory_limit_bytes": 0}',
        '{"memory_limit_bytes": "1"}',
        '{"alias": {}}',
        "{" * 100_000,
        "\udcff",
    ],
)
def test_model_file_that_is_wrong_is_refused_with_its_path(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.json").write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(VersionFolderError, match=r"model\.json"):
        read_model_file(tmp_path)


def test_model_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    content = ModelFile(aliases={"default": "2", "stable": "1.0"}, memory_limit_bytes=7)
    write_model_file(tmp_path, content)

    assert read_model_file(tmp_path) == content
    assert [path.name for path in tmp_path.iterdir()] == ["model.json"]


def test_folder_that_cannot_be_written_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(RepositoryStateError, match="cannot be written"):
        write_model_file(tmp_path / "none", ModelFile())


def test_scan_leaves_out_what_is_hidden_or_no_folder(tmp_path: Path) -> None:
    for name in ("tiny/1", "tiny/10", "tiny/2", "tiny/.3", "tiny/latest", ".hidden/1", "Bad Name/1"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "tiny" / "4").write_text("a file", encoding="utf-8")
    (tmp_path / "README").write_text("a file", encoding="utf-8")

    found = scan(tmp_path)
    assert list(found) == ["tiny"]
    assert list(found["tiny"].versions) == ["10", "2", "1"]


def test_stamp_tells_of_a_file_that_grew_and_of_one_that_was_replaced(tmp_path: Path) -> None:
    version = tmp_path / "tiny" / "1"
    version.mkdir(parents=True)
    (version / "weights.bin").write_bytes(b"a")
    stamps = [scan(tmp_path)["tiny"].versions["1"].stamp]
    (version / "weights.bin").write_bytes(b"ab")
    stamps.append(scan(tmp_path)["tiny"].versions["1"].stamp)
    other = version / "other"
    other.write_bytes(b"cd")
    other.replace(version / "weights.bin")
    stamps.append(scan(tmp_path)["tiny"].versions["1"].stamp)

    assert len(set(stamps)) == 3
