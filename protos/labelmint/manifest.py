"""The manifest as text, and its digest. "Bundles" in protos/README.md has the form of both."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from google.protobuf import json_format

from labelmint.errors import ManifestError
from labelmint.v1 import bundle_pb2

__all__ = [
    "MAX_MANIFEST_BYTES",
    "SCHEMA_VERSION",
    "manifest_digest",
    "manifest_from_json",
    "manifest_to_json",
]

SCHEMA_VERSION = 1
"""The newest manifest schema that this release reads, and the one it writes."""

MAX_MANIFEST_BYTES = 4 * 2**20
_MAX_DEPTH = 16
_MAX_QUOTED = 400


def manifest_to_json(manifest: bundle_pb2.Manifest) -> str:
    """Write a manifest as it stands in `manifest.json`: indented, keys in the order of the schema."""
    return json.dumps(_document(manifest), indent=2, ensure_ascii=False) + "\n"


def manifest_digest(manifest: bundle_pb2.Manifest) -> str:
    """Compute the digest of a manifest, whatever its `digest` field holds.

    Returns:
        64 lower-case hexadecimal digits.
    """
    document = _document(manifest)
    document.pop("digest", None)
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def manifest_from_json(text: bytes) -> bundle_pb2.Manifest:
    """Parse `manifest.json`; nothing in it is trusted, and its values are not yet checked.

    Args:
        text: UTF-8, at most 4 MiB, nested at most 16 deep.

    Raises:
        ManifestError: The text is no manifest, or one of a newer schema.
    """
    if len(text) > MAX_MANIFEST_BYTES:
        raise ManifestError(
            f"the manifest has {len(text)} bytes, expected at most {MAX_MANIFEST_BYTES}; rebuild the bundle"
        )
    try:
        document = json.loads(text.decode("utf-8"), object_pairs_hook=_object, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise ManifestError(f"the manifest is not JSON ({_short(error)}); copy or rebuild the bundle") from error
    if not isinstance(document, dict):
        raise ManifestError("the manifest is not a JSON object; copy or rebuild the bundle")
    _check_schema_version(document)
    manifest = bundle_pb2.Manifest()
    try:
        # An escape may stand for half a character, over which protobuf stumbles.
        json.dumps(document, ensure_ascii=False).encode("utf-8")
        json_format.ParseDict(document, manifest, max_recursion_depth=_MAX_DEPTH)
    except (json_format.ParseError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        # ParseDict lets some type errors through for values of the wrong JSON type.
        raise ManifestError(f"the manifest does not fit its schema ({_short(error)}); rebuild the bundle") from error
    return manifest


def _short(error: Exception) -> str:
    """What an error says, but no more of the values that it quotes than a reader wants."""
    text = str(error)
    return text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}..."


def _document(manifest: bundle_pb2.Manifest) -> dict[str, Any]:  # Any: a JSON document
    return json_format.MessageToDict(manifest, preserving_proto_field_name=True)


def _check_schema_version(document: dict[str, Any]) -> None:  # Any: a JSON document
    version = document.get("schema_version", document.get("schemaVersion", 0))
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise ManifestError(
            f"schema_version is {version}, expected at most {SCHEMA_VERSION}; upgrade labelmint to read this bundle",
            field="schema_version",
        )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:  # Any: a JSON document
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("an object names a key twice")
    return document


def _refuse_constant(name: str) -> Any:  # Any: the signature that json.loads asks for
    raise ValueError(f"{name} is not a JSON number")
