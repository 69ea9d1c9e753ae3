"""Settings of bundles and of the engines that run them; part of the server's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode

EMBEDDED_BUNDLE = Path(__file__).parent.parent / "bundles" / "toonhead"
"""The bundle that the package brings along."""

_Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class ModelSettings(BaseSettings):
    """Which bundles are served, if no repository is, and what runs them."""

    bundle: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(EMBEDDED_BUNDLE,),
        min_length=1,
        description="Folder of a bundle to serve. As a flag repeatable, as a variable separated like PATH.",
    )
    verify_files: bool = Field(default=True, description="Compare the sha256 of each bundle file before serving it.")
    expect_digest: Annotated[tuple[_Digest, ...], NoDecode] = Field(
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

    @field_validator("bundle", "expect_digest", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(value.split(os.pathsep)) if isinstance(value, str) else value

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
