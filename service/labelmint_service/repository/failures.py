"""Why a version failed, in words for every caller: no path, number or setting of the server's. Its log has the rest."""

from __future__ import annotations

from labelmint.errors import BundleError, BundleNotFoundError, ManifestError
from labelmint_service.errors import EngineStartError, LoadTimeoutError, ModelMemoryError, VersionFolderError

_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (BundleNotFoundError, "there is no bundle in its folder"),
    (ManifestError, "its manifest is malformed, or newer than the server"),
    (BundleError, "a file of its bundle is missing, altered or cannot be read"),
    (ModelMemoryError, "it needs more memory than it may have"),
    (VersionFolderError, "its bundle is that of another model"),
    (LoadTimeoutError, "it was not loaded and warm in time"),
    (EngineStartError, "the engine of the server does not run it"),
)


def brief_reason(error: Exception) -> str:
    """Say in a few words why a version could not be loaded."""
    return next((reason for kind, reason in _REASONS if isinstance(error, kind)), "an error of the server")
