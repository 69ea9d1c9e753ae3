"""The numerics id: outputs of one id are bit-identical.

It is the sha256 (hex) of the canonical JSON (keys sorted, no white space, ASCII) of all that the output bits depend on.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from labelmint.bundle import Bundle
from labelmint_service.engine import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Numerics:
    """What makes outputs repeatable.

    Attributes:
        id: 64 lower-case hexadecimal digits.
        document: The canonical JSON that `id` is the hash of.
    """

    id: str
    document: str


def describe_numerics(bundle: Bundle, engine: Engine, *, promises_bits: bool = True) -> Numerics:
    """Name the numerics of an engine that runs a bundle on this machine.

    Args:
        bundle: What is run.
        engine: What runs it.
        promises_bits: Whether the same latents always give the same bits; if not, the document says so.
    """
    described = {"bundle_digest": bundle.digest, "precision": bundle.manifest.precision, "engine": engine.describe()}
    document = json.dumps(
        described if promises_bits else {**described, "repeatable": False},
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=True,
    )
    return Numerics(id=hashlib.sha256(document.encode("ascii")).hexdigest(), document=document)
