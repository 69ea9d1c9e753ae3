"""Writes the server's settings into the chart's schema of values, so that Helm refuses a misspelt or impossible one.

Run it after a change of the settings: `python -m deploy.helm.settings_schema`, or `make chart-schema`.
"""

import json
from pathlib import Path
from typing import Any

from labelmint_service.settings import ServiceSettings

SCHEMA_FILE = Path(__file__).parent / "labelmint" / "values.schema.json"
SET_BY_THE_CHART = frozenset(
    {"bundle", "model_repository", "host", "port", "metrics", "metrics_host", "metrics_port", "quota_file"}
)
WITHOUT_A_PLACE = frozenset({"ready_file"})
"""Files that the server writes, for which a pod has no place."""


def settings_schema() -> dict[str, Any]:  # Any: JSON
    """Describe what may stand under `settings` in the values."""
    schema = ServiceSettings.model_json_schema()
    properties = {
        name: {key: value for key, value in field.items() if key not in {"title", "default"}}
        for name, field in schema["properties"].items()
        if name not in SET_BY_THE_CHART | WITHOUT_A_PLACE
    }
    return {"type": "object", "additionalProperties": False, "properties": properties}


def schema_with_settings(text: str) -> str:
    """Replace the settings in the text of a schema of values.

    Args:
        text: The schema, JSON.

    Returns:
        The same with the settings that the server has now.
    """
    schema = json.loads(text)
    schema["properties"]["settings"] = settings_schema()
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema_with_settings(SCHEMA_FILE.read_text(encoding="utf-8")), encoding="utf-8")
