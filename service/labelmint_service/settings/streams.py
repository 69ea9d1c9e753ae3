"""Settings of streams: how many there may be, how long they may wait, what they may hold; part of the server's."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings

_MIB = 2**20


class StreamSettings(BaseSettings):
    """What bounds streams."""

    max_streams: int = Field(
        default=64,
        ge=1,
        le=100_000,
        description="Most Generate and Label streams of one model at a time; more get RESOURCE_EXHAUSTED.",
    )
    max_waiting_streams: int = Field(
        default=256,
        ge=1,
        le=100_000,
        description="Most streams of all models together that may wait for their turn at an engine; more get "
        "RESOURCE_EXHAUSTED, with the time after which to try again.",
    )
    max_wait_s: float = Field(
        default=60.0,
        gt=0.0,
        le=86400.0,
        description="Longest time that a new stream may have to wait for its first sample; beyond it the stream gets "
        "RESOURCE_EXHAUSTED.",
    )
    stream_queue_batches: int = Field(
        default=3,
        ge=2,
        le=64,
        description="Engine batches of samples that one stream may have in work or waiting for its reader.",
    )
    encode_threads: int = Field(default=2, ge=1, le=256, description="Threads that score and encode samples.")
    progress_interval_s: float = Field(
        default=2.0,
        gt=0.0,
        le=3600.0,
        description="Time between empty messages while a filter rejects everything.",
    )
    first_message_timeout_s: float = Field(
        default=30.0,
        gt=0.0,
        le=3600.0,
        description="Time that a call has for its first message; one without is no stream yet.",
    )
    stall_limit_s: float = Field(
        default=3600.0,
        gt=0.0,
        le=604800.0,
        description="Time after which a stream ends whose caller takes none of its messages, or sends no latents, "
        "although it waits for nothing else.",
    )
    max_message_bytes: int = Field(
        default=256 * _MIB,
        ge=_MIB,
        le=2**31 - 1,
        description="Largest output.max_message_bytes a request may ask for.",
    )
    shared_memory_folder: Path | None = Field(
        default=None,
        description="Folder in which callers on this machine may name files for RAW arrays, such as /dev/shm.",
    )
    grace_s: float = Field(
        default=20.0,
        ge=0.0,
        le=3600.0,
        description="Time that streams get to end when the server is told to stop.",
    )
