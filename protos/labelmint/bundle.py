"""Bundles: folders with a manifest, ONNX graphs and their weights, the only thing export hands to the service.

A bundle is trusted only after `open_bundle`: the manifest fits its schema, its digest is that of its content, each
listed file lies inside the folder and has the listed size and sha256. Files that the manifest does not list are
ignored: `Bundle.path_of` refuses them, and the graphs, which are hashed, name the weights they load (a build lists
those, and onnxruntime itself refuses external data outside the folder of its graph).
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path

from labelmint.errors import BundleNotFoundError, DigestMismatchError, IntegrityError, ManifestError
from labelmint.manifest import MAX_MANIFEST_BYTES, manifest_digest, manifest_from_json, manifest_to_json
from labelmint.v1 import bundle_pb2
from labelmint.validation import validate_manifest

__all__ = [
    "MANIFEST_NAME",
    "Bundle",
    "manifest_digest",
    "manifest_from_json",
    "manifest_to_json",
    "open_bundle",
    "sha256_of_file",
    "validate_manifest",
    "write_manifest",
]

MANIFEST_NAME = "manifest.json"
_UNFINISHED_NAME = ".manifest.json.unfinished"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bundle:
    """An opened bundle.

    Attributes:
        root: The folder, absolute, without symbolic links.
        manifest: The checked manifest; do not change it.
    """

    root: Path
    manifest: bundle_pb2.Manifest

    @property
    def digest(self) -> str:
        """64 hexadecimal digits that stand for the manifest and, through the hashes in it, for every file."""
        return self.manifest.digest

    @property
    def name(self) -> str:
        """The model name that requests use."""
        return self.manifest.name

    def path_of(self, relative: str) -> Path:
        """Locate a file of the bundle.

        Args:
            relative: A path as it stands in the manifest's `files`.

        Raises:
            IntegrityError: The manifest does not list it, or it lies outside the bundle or is no regular file.
        """
        if all(file.path != relative for file in self.manifest.files):
            raise IntegrityError(
                f"{relative!r} is not a file of bundle {self.root}, expected one of "
                f"{sorted(file.path for file in self.manifest.files)}; rebuild the bundle with it",
                field="files",
            )
        return _located(self.root, relative)


def open_bundle(path: str | os.PathLike[str], *, expect_digest: str | None = None, verify_files: bool = True) -> Bundle:
    """Open a bundle and verify it.

    Args:
        path: The bundle's folder.
        expect_digest: If given, the only digest that is accepted.
        verify_files: Whether to read each file and compare its sha256. Sizes are always compared.

    Returns:
        The bundle.

    Raises:
        BundleNotFoundError: There is no bundle at the path.
        ManifestError: The manifest is malformed, of a newer schema, or contradicts itself.
        IntegrityError: The manifest or a file was truncated, altered or removed, or lies outside the bundle.
        DigestMismatchError: The bundle is sound but is not the expected one.
    """
    manifest = manifest_from_json(_read_manifest(Path(path)))
    validate_manifest(manifest)
    digest = manifest_digest(manifest)
    if manifest.digest != digest:
        raise IntegrityError(
            f"the manifest of bundle {path} states digest {manifest.digest or 'none'}, expected {digest}, that of its "
            "content: it was altered; copy or rebuild the bundle",
            field="digest",
        )
    if expect_digest is not None and expect_digest != digest:
        raise DigestMismatchError(
            f"bundle {path} has digest {digest}, expected {expect_digest}; point to the other bundle or accept this "
            "digest",
            field="digest",
        )
    root = Path(path).resolve()
    for file in manifest.files:
        _check_file(root, file, read_content=verify_files)
    return Bundle(root=root, manifest=manifest)


def write_manifest(root: str | os.PathLike[str], manifest: bundle_pb2.Manifest) -> Bundle:
    """Turn a folder of graphs and weights into a bundle: list its files, compute the digest, write `manifest.json`.

    The manifest appears at once and whole, replacing an earlier one, or not at all.

    Args:
        root: A folder that holds every file of the bundle and nothing else.
        manifest: Everything but `files` and `digest`, which are filled in (in a copy).

    Returns:
        The bundle.

    Raises:
        BundleNotFoundError: The folder does not exist.
        ManifestError: A value is wrong, a file is badly named, or the manifest grew too large.
        IntegrityError: The folder holds a symbolic link or something else that is no regular file.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise BundleNotFoundError(f"{root} is not a folder; write the graphs there first")
    folder = folder.resolve()
    complete = bundle_pb2.Manifest()
    complete.CopyFrom(manifest)
    del complete.files[:]
    complete.files.extend(_described(folder, path) for path in _listed(folder))
    complete.digest = manifest_digest(complete)
    validate_manifest(complete)
    text = manifest_to_json(complete).encode()
    if len(text) > MAX_MANIFEST_BYTES:
        raise ManifestError(f"the manifest has {len(text)} bytes, expected at most {MAX_MANIFEST_BYTES}; shorten it")
    _write_atomically(folder, text)
    return Bundle(root=folder, manifest=complete)


def sha256_of_file(path: Path) -> str:
    """Hash a file, as manifests state it: 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_manifest(root: Path) -> bytes:
    try:
        if not (root / MANIFEST_NAME).exists():
            raise BundleNotFoundError(
                f"there is no bundle at {root}: {MANIFEST_NAME} is missing; pass the folder that holds it"
            )
        with _located(root.resolve(), MANIFEST_NAME).open("rb") as file:
            # One byte more than allowed, so that the parser sees that there is more.
            return file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise _unreadable(root / MANIFEST_NAME, error) from error


def _located(root: Path, relative: str) -> Path:
    """Return the path of a regular file inside the resolved root, or raise IntegrityError."""
    path = Path(os.path.realpath(root / relative))
    if not path.is_relative_to(root):
        raise IntegrityError(
            f"file {relative!r} of bundle {root} is a link to {path}, expected a file inside the bundle; copy the "
            "bundle with its links followed",
            field=f"files[{relative}]",
        )
    if not path.is_file():
        raise IntegrityError(
            f"file {relative!r} of bundle {root} is missing or no regular file; copy the bundle again",
            field=f"files[{relative}]",
        )
    return path


def _check_file(root: Path, file: bundle_pb2.BundleFile, *, read_content: bool) -> None:
    try:
        path = _located(root, file.path)
        num_bytes = path.stat().st_size
        if num_bytes != file.num_bytes:
            raise _altered(root, file.path, f"{num_bytes} bytes", f"{file.num_bytes} bytes")
        sha256 = sha256_of_file(path) if read_content else file.sha256
        if sha256 != file.sha256:
            raise _altered(root, file.path, f"sha256 {sha256}", file.sha256)
    except OSError as error:
        raise _unreadable(root / file.path, error) from error


def _listed(root: Path) -> list[str]:
    """List the files below a folder but its manifest, sorted, as paths with forward slashes."""
    relatives = []
    for path in sorted(root.rglob("*")):
        if path.is_symlink():
            raise IntegrityError(
                f"{path} is a symbolic link, expected files only; put a copy of {path.resolve()} in its place",
                field="files",
            )
        if not path.is_dir():
            relatives.append(path.relative_to(root).as_posix())
    return [relative for relative in relatives if relative not in {MANIFEST_NAME, _UNFINISHED_NAME}]


def _described(root: Path, relative: str) -> bundle_pb2.BundleFile:
    path = _located(root, relative)
    return bundle_pb2.BundleFile(path=relative, sha256=sha256_of_file(path), num_bytes=path.stat().st_size)


def _write_atomically(root: Path, content: bytes) -> None:
    unfinished = root / _UNFINISHED_NAME
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(root / MANIFEST_NAME)
    finally:
        unfinished.unlink(missing_ok=True)


def _altered(root: Path, relative: str, got: str, expected: str) -> IntegrityError:
    return IntegrityError(
        f"file {relative!r} of bundle {root} has {got}, expected {expected}: it was truncated or altered; copy the "
        "bundle again",
        field=f"files[{relative}]",
    )


def _unreadable(path: Path, error: OSError) -> IntegrityError:
    return IntegrityError(f"cannot read {path} ({error.strerror}); check the file and its permissions", field="files")
