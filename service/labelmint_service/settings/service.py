"""All settings of the server, checked together."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from labelmint.hosts import is_loopback
from labelmint_service.settings.connections import ConnectionSettings
from labelmint_service.settings.models import ModelSettings
from labelmint_service.settings.repository import RepositorySettings
from labelmint_service.settings.streams import StreamSettings
from labelmint_service.settings.watching import WatchingSettings

ENV_PREFIX = "LABELMINT_SERVE_"


class ServiceSettings(WatchingSettings, StreamSettings, ConnectionSettings, RepositorySettings, ModelSettings):
    """Everything an operator may choose. Frozen; units are in the names. --help shows the last base's fields first."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    @model_validator(mode="after")
    def _check_repository(self) -> Self:
        """What the settings of the repository ask of the others, and these of them."""
        if self.model_repository is not None:
            for name in ("bundle", "expect_digest"):
                if name in self.model_fields_set:
                    raise PydanticCustomError(
                        name,
                        f"{name} is set beside model_repository, which says what is served; leave one of them out, or "
                        "put the bundle into the repository",
                    )
        is_open = self.tokens is None or self.tls_certificate is None
        if self.admin_port is not None and is_open and not is_loopback(self.admin_host):
            raise PydanticCustomError(
                "admin_host",
                f"admin_host is {self.admin_host!r}, where only tokens over TLS keep others out; give tokens, "
                "tls_certificate and tls_key, or leave it on loopback",
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Constructing settings reads nothing; load_settings merges the sources and remembers which value is whose."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)
