"""Result files: written whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS_FOLDER = Path(__file__).resolve().parents[1] / "results"
"""Where results go that belong into the repository."""

Document = dict[str, Any]
"""Of JSON; Any, because a reader takes out what it expects."""


def write_json(path: Path, document: Mapping[str, object]) -> None:
    """Write a document; its folder is made if need be. A number that JSON does not know is a ValueError."""
    write_text(path, json.dumps(document, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text; its folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
