import json
import re
import textwrap
from pathlib import Path

import pytest

from labelmint.errors import ManifestError
from labelmint.manifest import MAX_MANIFEST_BYTES, manifest_digest, manifest_from_json, manifest_to_json
from labelmint.v1 import bundle_pb2
from tests.protos.manifests import valid_manifest, write_bundle

# Of `valid_manifest`, the same under protobuf 6.31.1 and 7.36.2. A change would orphan every bundle that was built.
VALID_MANIFEST_DIGEST = "125716634a7ab89f7f6a6526bf4804e28c01acdf58e3f3ca67eb48d8577f29c3"


def test_manifest_survives_its_text() -> None:
    manifest = valid_manifest()
    assert manifest_from_json(manifest_to_json(manifest).encode()) == manifest


def test_digest_of_a_known_manifest_never_changes() -> None:
    assert manifest_digest(valid_manifest()) == VALID_MANIFEST_DIGEST


def test_digest_can_be_computed_from_the_file_as_the_readme_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (Path(__file__).parents[2] / "protos" / "README.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    assert example
    bundle = write_bundle(tmp_path / "bundle")
    monkeypatch.chdir(bundle.root)
    names: dict[str, object] = {}
    exec(textwrap.dedent(example[1]), names)  # the example, word for word
    assert names["stated"] == bundle.digest


def test_digest_ignores_the_digest_field_and_nothing_else() -> None:
    manifest = valid_manifest()
    digest = manifest_digest(manifest)
    manifest.digest = "0" * 64
    assert manifest_digest(manifest) == digest
    manifest.provenance.num_annotated_images += 1
    assert manifest_digest(manifest) != digest


@pytest.mark.parametrize("value", [0.1, 0.7, 1 / 3, 1e-7, 123456.789, 3e38])
def test_floats_are_written_as_the_shortest_decimal_that_gives_them_back(value: float) -> None:
    manifest = bundle_pb2.Manifest(truncation=bundle_pb2.Truncation(default_psi=value))
    text = manifest_to_json(manifest)
    assert manifest_from_json(text.encode()) == manifest
    written = json.loads(text)["truncation"]["default_psi"]
    assert len(f"{written:.9g}") <= len(f"{manifest.truncation.default_psi:.9g}")


def test_floats_of_the_wire_and_of_the_file_have_one_digest() -> None:
    manifest = bundle_pb2.Manifest.FromString(valid_manifest().SerializeToString())
    assert manifest_digest(manifest) == VALID_MANIFEST_DIGEST


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe{}", "is not JSON"),
        (b'{"name": NaN}', "NaN is not a JSON number"),
        (b'{"name": "a", "name": "b"}', "names a key twice"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"name":' * 100_000, "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b"null", "is not a JSON object"),
        (b"7" * 10_000, "is not JSON"),
        (b'{"surprise": 1}', "does not fit its schema"),
        (b'{"name": 1}', "does not fit its schema"),
        (b'{"taps": {}}', "does not fit its schema"),
        (b'{"taps": [null]}', "does not fit its schema"),
        (b'{"backbone": [1]}', "does not fit its schema"),
        (b'{"backbone": "text"}', "does not fit its schema"),
        (b'{"schema_version": -1}', "does not fit its schema"),
        (b'{"ignore_label": 1e999}', "does not fit its schema"),
        (b'{"class_distribution": [[]]}', "does not fit its schema"),
        (b'{"name": "\\ud800"}', "does not fit its schema"),
        (b'{"provenance": {"versions": [1]}}', "does not fit its schema"),
        (b" " * (MAX_MANIFEST_BYTES + 1), "expected at most 4194304"),
    ],
    ids=range(22),
)
def test_text_that_is_no_manifest_is_refused(text: bytes, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        manifest_from_json(text)


def test_newer_schema_asks_for_an_upgrade_before_anything_else() -> None:
    with pytest.raises(ManifestError, match=r"schema_version is 2, expected at most 1; upgrade labelmint") as caught:
        manifest_from_json(b'{"schema_version": 2, "a_field_of_the_future": []}')
    assert caught.value.field == "schema_version"
