"""Settings of bundles and of the engines that run them; part of the server's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode

from labelmint_service.engine import EngineChoice
from labelmint_service.settings.lists import AT_COMMAS, LIKE_PATH

EMBEDDED_BUNDLE = Path(__file__).parent.parent / "bundles" / "toonhead"
"""The bundle that the package brings along."""

_Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_Device = Annotated[int, Field(ge=0, le=1023)]


class ModelSettings(BaseSettings):
    """Which bundles are served, if no repository is, and what runs them."""

    bundle: Annotated[tuple[Path, ...], NoDecode, LIKE_PATH] = Field(
        default=(EMBEDDED_BUNDLE,),
        min_length=1,
        description="Folder of a bundle to serve. As a flag repeatable, as a variable separated like PATH.",
    )
    verify_files: bool = Field(default=True, description="Compare the sha256 of each bundle file before serving it.")
    expect_digest: Annotated[tuple[_Digest, ...], NoDecode, LIKE_PATH] = Field(
        default=(),
        description="Digest that a bundle must have: one for each bundle, in their order. Repeatable as bundle is.",
    )
    engine: Literal["onnxruntime", "fused"] = Field(
        default="onnxruntime",
        description="onnxruntime runs the graphs as they are; fused runs the interpreter in a kernel of its own.",
    )
    kernel: Literal["auto", "avx2", "avx512", "avx512bf16"] = Field(
        default="auto",
        description="Form of the fused kernel on a processor. auto: the fastest whose labels agree with float32.",
    )
    provider: Literal["cpu", "cuda"] = Field(
        default="cpu",
        description="What the engine runs on. It runs there or the server does not start.",
    )
    algorithms: Literal["repeatable", "fast"] = Field(
        default="repeatable",
        description="How cuDNN computes, with provider cuda. repeatable: the same latents always give the same bits, "
        "or the server does not start. fast: last bits may differ from run to run.",
    )
    replicas: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Engines of each version, on each of the devices; batches go to one that is free.",
    )
    devices: Annotated[tuple[_Device, ...], NoDecode, AT_COMMAS] = Field(
        default=(),
        description="Numbers of the GPUs that each version runs on, with provider cuda. As a flag repeatable, as a "
        "variable separated by commas (default: the first one).",
    )
    model_memory_bytes: int | None = Field(
        default=None,
        ge=1,
        description="Most that the process may grow by while a version is loaded and warmed up; one that takes more is "
        "not served.",
    )
    engine_timeout_s: float = Field(
        default=120.0,
        gt=0.0,
        le=3600.0,
        description="Time that a run of an engine may take; one that takes longer ends the server.",
    )
    load_timeout_s: float = Field(
        default=600.0,
        gt=0.0,
        le=86400.0,
        description="Time that a bundle may take to be verified, loaded and warm; one that takes longer has failed.",
    )

    @model_validator(mode="after")
    def _check_devices(self) -> Self:
        if self.devices and self.provider == "cpu":
            raise PydanticCustomError(
                "devices", f"devices is {self.devices}, but provider is 'cpu', which has none; choose provider 'cuda'"
            )
        return self

    @model_validator(mode="after")
    def _check_digests(self) -> Self:
        if self.expect_digest and len(self.expect_digest) != len(self.bundle):
            raise PydanticCustomError(
                "expect_digest",
                f"expect_digest has {len(self.expect_digest)} digests for {len(self.bundle)} bundles; give one for "
                "each, in the same order, or none",
            )
        if self.expect_digest and not self.verify_files:
            raise PydanticCustomError(
                "expect_digest",
                "expect_digest is given and verify_files is false, so that only the manifest would be compared; leave "
                "verify_files true, or give no digest",
            )
        return self

    @property
    def engine_choice(self) -> EngineChoice:
        """The engines of each version."""
        devices = tuple(device for device in (self.devices or (None,)) for _ in range(self.replicas))
        return EngineChoice(
            engine=self.engine,
            provider=self.provider,
            kernel=self.kernel,
            algorithms=self.algorithms,
            devices=devices,
        )
