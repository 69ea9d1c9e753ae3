"""Loading as the settings say: the bundles of a fixed server, or whatever a repository asks for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from labelmint.bundle import Bundle
from labelmint_service.models.served import ServedModel, load_model
from labelmint_service.repository.lifecycle import LoadModel
from labelmint_service.settings import ServiceSettings
from labelmint_service.structured_logs import log_event

_log = logging.getLogger(__name__)


def make_loader(settings: ServiceSettings) -> LoadModel:
    """A loader for versions of the repository. The limit of a model can only lower that of the server."""

    def load(
        path: Path,
        *,
        memory_limit_bytes: int | None,
        on_verified: Callable[[Bundle], None],
        on_made: Callable[[], None],
    ) -> ServedModel:
        limits = [limit for limit in (memory_limit_bytes, settings.model_memory_bytes) if limit is not None]
        return load_model(
            path,
            settings.engine_choice,
            memory_limit_bytes=min(limits, default=None),
            on_verified=on_verified,
            on_made=on_made,
        )

    return load


def load_models(settings: ServiceSettings) -> list[ServedModel]:
    """Load every bundle of the settings; none if there is a repository.

    Raises:
        BundleError: A bundle is missing, malformed or altered.
        DigestMismatchError: A bundle is not the expected one.
        StartError: An engine does not run, or a model needs too much memory.
    """
    if settings.model_repository is not None:
        return []
    models = []
    digests = settings.expect_digest or (None,) * len(settings.bundle)
    for path, digest in zip(settings.bundle, digests, strict=True):
        model = load_model(
            path,
            settings.engine_choice,
            memory_limit_bytes=settings.model_memory_bytes,
            verify_files=settings.verify_files,
            expect_digest=digest,
        )
        log_event(
            _log,
            logging.INFO,
            "model.loaded",
            model=model.name,
            digest=model.bundle.digest,
            memory_bytes=model.memory_bytes,
            path=str(path),
        )
        models.append(model)
    return models
