"""What server and client have to agree on beside the messages of labelmint/v1: names, keys and sizes."""

from __future__ import annotations

import re

__all__ = [
    "ADMIN_SERVICE_NAME",
    "AUTHORIZATION_KEY",
    "DEFAULT_MESSAGE_BYTES",
    "ERROR_DETAIL_KEY",
    "MAX_FRAME_BYTES",
    "REQUEST_ID_KEY",
    "RING_ALIGNMENT",
    "RING_END_BYTES",
    "RING_HEAD_BYTES",
    "RING_NAME",
    "RING_PREFIX",
    "SERVICE_NAME",
    "STATUS_DETAILS_KEY",
    "ring_bytes",
]

SERVICE_NAME = "labelmint.v1.LabelMint"
ADMIN_SERVICE_NAME = "labelmint.v1.LabelMintAdmin"

# Keys of metadata.
AUTHORIZATION_KEY = "authorization"
REQUEST_ID_KEY = "labelmint-request-id"
ERROR_DETAIL_KEY = "labelmint-error-bin"
"""A serialised `ErrorDetail`."""
STATUS_DETAILS_KEY = "grpc-status-details-bin"
"""A serialised `google.rpc.Status`."""

MAX_FRAME_BYTES = 2**24 - 1
"""Largest frame that HTTP/2 allows: messages of megabytes then travel in few of them."""
DEFAULT_MESSAGE_BYTES = 4 * 2**20
"""Largest message of a stream, if the request does not say."""

# The ring of shared memory; `SharedMemory` in service.proto has its layout.
RING_PREFIX = "labelmint-"
RING_NAME = re.compile(f"{RING_PREFIX}[0-9a-f]{{32}}")
RING_HEAD_BYTES = 64
RING_END_BYTES = 8
"""At the start of the head: how far the caller has read, little-endian."""
RING_ALIGNMENT = 64


def ring_bytes(num_bytes: int) -> int:
    """Bytes of a ring that an array takes."""
    return -(-num_bytes // RING_ALIGNMENT) * RING_ALIGNMENT
