import json
import os
from pathlib import Path

import pytest

from labelmint.bundle import open_bundle, write_manifest
from labelmint.errors import (
    BundleError,
    BundleNotFoundError,
    DigestMismatchError,
    IntegrityError,
    LabelmintError,
    ManifestError,
)
from tests.protos.manifests import valid_manifest, write_bundle

MANIFEST = "manifest.json"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle").root


def test_written_bundle_opens_as_it_was_written(tmp_path: Path) -> None:
    written = write_bundle(tmp_path / "bundle")
    opened = open_bundle(str(tmp_path / "bundle"), expect_digest=written.digest)
    assert opened.manifest == written.manifest
    assert (opened.name, opened.digest, opened.root) == ("test-model", written.digest, written.root)
    paths = [file.path for file in opened.manifest.files]
    assert paths == ["interpreter.onnx", "mapping.onnx", "model.onnx", "synthesis.onnx", "weights/data.bin"]


def test_writing_leaves_the_given_manifest_alone_and_nothing_but_the_manifest_behind(tmp_path: Path) -> None:
    manifest = valid_manifest()
    write_bundle(tmp_path / "bundle", manifest)
    assert manifest == valid_manifest()
    assert sorted(path.name for path in (tmp_path / "bundle").iterdir()) == [
        "interpreter.onnx", "manifest.json", "mapping.onnx", "model.onnx", "synthesis.onnx", "weights",
    ]  # fmt: skip


def test_writing_twice_gives_the_same_bytes(root: Path) -> None:
    first = (root / MANIFEST).read_bytes()
    (root / ".manifest.json.unfinished").write_bytes(b"left by a crash")
    write_manifest(root, valid_manifest())
    assert (root / MANIFEST).read_bytes() == first


def test_invalid_manifest_leaves_the_earlier_one_in_place(root: Path) -> None:
    before = (root / MANIFEST).read_bytes()
    manifest = valid_manifest()
    manifest.licence.weights = ""
    with pytest.raises(ManifestError, match=r"licence\.weights"):
        write_manifest(root, manifest)
    assert (root / MANIFEST).read_bytes() == before


def test_badly_named_file_is_not_written_into_a_manifest(root: Path) -> None:
    (root / "weights" / "a file.bin").write_bytes(b"")
    with pytest.raises(ManifestError, match=r"files\[4\].path is 'weights/a file.bin'.*rename the file"):
        write_manifest(root, valid_manifest())


def test_manifest_that_grew_too_large_is_not_written(root: Path) -> None:
    manifest = valid_manifest()
    for number in range(12_000):
        manifest.provenance.versions[f"{number:0128d}"] = "v" * 256
    with pytest.raises(ManifestError, match="shorten it"):
        write_manifest(root, manifest)
    open_bundle(root)


@pytest.mark.parametrize("name", ["missing", "file", "empty", "nul\0byte"])
def test_path_without_a_bundle_is_not_found(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleNotFoundError, match=r"manifest\.json is missing; pass the folder"):
        open_bundle(tmp_path / name)


def test_writing_into_a_missing_folder_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFoundError):
        write_manifest(tmp_path / "missing", valid_manifest())


def test_other_digest_than_expected_is_refused_with_both(root: Path) -> None:
    digest = open_bundle(root).digest
    with pytest.raises(DigestMismatchError, match=f"has digest {digest}, expected {'0' * 64}"):
        open_bundle(root, expect_digest="0" * 64)


@pytest.mark.parametrize("name", ["model.onnx", "weights/data.bin"])
def test_missing_file_is_named(root: Path, name: str) -> None:
    (root / name).unlink()
    with pytest.raises(IntegrityError, match=f"{name}.*missing") as caught:
        open_bundle(root, verify_files=False)
    assert caught.value.field == f"files[{name}]"


@pytest.mark.parametrize("verify_files", [True, False])
def test_truncated_file_is_named(root: Path, verify_files: bool) -> None:
    content = (root / "weights/data.bin").read_bytes()
    (root / "weights/data.bin").write_bytes(content[:-1])
    with pytest.raises(IntegrityError, match=r"weights/data\.bin.* has 10239 bytes, expected 10240 bytes"):
        open_bundle(root, verify_files=verify_files)


def test_single_altered_bit_is_found(root: Path) -> None:
    content = bytearray((root / "weights/data.bin").read_bytes())
    content[5000] ^= 1
    (root / "weights/data.bin").write_bytes(content)
    with pytest.raises(IntegrityError, match=r"weights/data\.bin.* has sha256"):
        open_bundle(root)
    assert open_bundle(root, verify_files=False).name == "test-model"


def test_folder_in_place_of_a_file_is_refused(root: Path) -> None:
    (root / "model.onnx").unlink()
    (root / "model.onnx").mkdir()
    with pytest.raises(IntegrityError, match="no regular file"):
        open_bundle(root)


def test_named_pipe_in_place_of_a_file_is_refused_without_waiting(root: Path) -> None:
    (root / "model.onnx").unlink()
    os.mkfifo(root / "model.onnx")
    with pytest.raises(IntegrityError, match="no regular file"):
        open_bundle(root)


@pytest.mark.parametrize("name", ["model.onnx", MANIFEST])
def test_link_out_of_the_bundle_is_refused(root: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    (root / name).rename(outside)
    (root / name).symlink_to(outside)
    with pytest.raises(IntegrityError, match=r"is a link to .*, expected a file inside the bundle"):
        open_bundle(root)


def test_linked_folder_inside_the_bundle_cannot_leave_it(root: Path, tmp_path: Path) -> None:
    (root / "weights").rename(tmp_path / "weights")
    (root / "weights").symlink_to(tmp_path / "weights")
    with pytest.raises(IntegrityError, match="is a link to"):
        open_bundle(root)


def test_link_loop_is_refused(root: Path) -> None:
    (root / "model.onnx").unlink()
    (root / "model.onnx").symlink_to("model.onnx")
    with pytest.raises(IntegrityError):
        open_bundle(root)


def test_bundle_opens_through_a_link_to_its_folder(root: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(root)
    assert open_bundle(tmp_path / "current").root == root


def test_link_is_not_written_into_a_manifest(root: Path) -> None:
    (root / "linked.onnx").symlink_to("model.onnx")
    with pytest.raises(IntegrityError, match="symbolic link"):
        write_manifest(root, valid_manifest())


def test_unlisted_file_is_ignored_and_cannot_be_located(root: Path) -> None:
    (root / "notes.txt").write_text("not of the bundle")
    bundle = open_bundle(root)
    assert bundle.path_of("weights/data.bin") == root / "weights" / "data.bin"
    for relative in ("notes.txt", MANIFEST, "../outside", "/etc/passwd", "./model.onnx", ""):
        with pytest.raises(IntegrityError, match="is not a file of bundle"):
            bundle.path_of(relative)


def test_file_that_became_a_link_after_opening_is_refused(root: Path, tmp_path: Path) -> None:
    bundle = open_bundle(root)
    (root / "model.onnx").rename(tmp_path / "model.onnx")
    (root / "model.onnx").symlink_to(tmp_path / "model.onnx")
    with pytest.raises(IntegrityError, match="is a link to"):
        bundle.path_of("model.onnx")


def altered(root: Path, **fields: object) -> None:
    document = json.loads((root / MANIFEST).read_text())
    (root / MANIFEST).write_text(json.dumps(document | fields))


def test_altered_manifest_does_not_keep_its_digest(root: Path) -> None:
    altered(root, description="Another text.")
    with pytest.raises(IntegrityError, match="it was altered") as caught:
        open_bundle(root)
    assert caught.value.field == "digest"


def test_manifest_without_a_digest_is_refused(root: Path) -> None:
    altered(root, digest="")
    with pytest.raises(IntegrityError, match="states digest none"):
        open_bundle(root)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd", "../outside.onnx", "weights/../../outside", "a//b", "./model.onnx", "a\\b", "C:/model",
        "C:model", "", "weights/", ".hidden", "nul", "COM1.onnx", "a/LPT9", "trailing.", "ünicode", "new\nline",
        "nul\0byte", "~root", "a" * 241, "a/b/c/d/e/f/g/h/i",
    ],
)  # fmt: skip
def test_wild_path_is_refused_by_name(root: Path, path: str) -> None:
    document = json.loads((root / MANIFEST).read_text())
    document["files"][0]["path"] = path
    altered(root, files=document["files"])
    with pytest.raises(ManifestError, match=r"files\[0\]\.path is .*, expected a relative path") as caught:
        open_bundle(root)
    assert caught.value.field == "files[0].path"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_is_named(root: Path) -> None:
    (root / "model.onnx").chmod(0)
    with pytest.raises(IntegrityError, match=r"cannot read .*model\.onnx .*permissions"):
        open_bundle(root)


def test_every_bundle_error_is_a_labelmint_error() -> None:
    for error in (BundleNotFoundError, ManifestError, IntegrityError, DigestMismatchError):
        assert issubclass(error, BundleError)
        assert issubclass(error, LabelmintError)
        assert not error("text").field
