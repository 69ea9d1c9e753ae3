"""Renders the chart with Helm's own library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import helm_python
import yaml

Object = dict[str, Any]  # Any: YAML

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CHART = ROOT / "deploy" / "helm" / "labelmint"
RELEASE = "mint"
NAMESPACE = "gan"
NAME = f"{RELEASE}-labelmint"

DEFAULTS: Object = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
FULL: Object = yaml.safe_load((HERE / "full_values.yaml").read_text(encoding="utf-8"))
GPU: Object = {"gpu": {"enabled": True, "runtimeClassName": "nvidia"}, "settings": {"engine": "onnxruntime"}}
# What FULL cannot have besides bundles.
REPOSITORY: Object = {
    "repository": {"volume": {"persistentVolumeClaim": {"claimName": "models"}}, "folder": "gans/live"},
    "settings": {"poll_interval_s": 30.0, "admin_port": 50052},
    "probes": {"readinessModel": "cars"},
}
TLS: Object = {"tls_certificate": "/etc/labelmint/tls/tls.crt", "tls_key": "/etc/labelmint/tls/tls.key"}
# Nor a server of its own counts.
QUOTAS: Object = {
    "replicas": 1,
    "strategy": {"type": "Recreate"},
    "quotas": {"enabled": True, "size": "1Gi", "storageClass": "fast"},
    "settings": {**TLS, "tokens": "/etc/labelmint/tokens/clients.toml"},
    "probes": {"tls": {"rootCa": "/etc/labelmint/tls/ca.crt"}},
}
CLAIM: Object = {**QUOTAS, "quotas": {"enabled": True, "existingClaim": "counts"}}
CASES: dict[str, Object] = {
    "defaults": {},
    "gpu": GPU,
    "full": FULL,
    "repository": REPOSITORY,
    "quotas": QUOTAS,
    "claim": CLAIM,
}


def render(values: Object) -> dict[str, Object]:
    """Check values against the schema and render the chart.

    Args:
        values: What differs from values.yaml.

    Returns:
        The objects by "kind/name", without the notes.
    """
    with helm_python.Chart.load(CHART) as chart:
        chart.validate_schema(values)
        files = chart.render(values, name=RELEASE, namespace=NAMESPACE)
    documents = [
        document
        for name, text in sorted(files.items())
        if name.endswith(".yaml")
        for document in yaml.safe_load_all(text)
        if document is not None
    ]
    objects = {f"{document['kind']}/{document['metadata']['name']}": document for document in documents}
    assert len(objects) == len(documents), "two objects have one name"
    return objects


def notes(values: Object) -> str:
    """What Helm prints after an installation."""
    with helm_python.Chart.load(CHART) as chart:
        return chart.render(values, name=RELEASE, namespace=NAMESPACE)["labelmint/templates/NOTES.txt"]


def pod(objects: dict[str, Object]) -> Object:
    """The pod that the Deployment makes: its metadata and spec."""
    template: Object = objects[f"Deployment/{NAME}"]["spec"]["template"]
    return template


def container(objects: dict[str, Object]) -> Object:
    """Its only container."""
    (only,) = pod(objects)["spec"]["containers"]
    found: Object = only
    return found


def settings_of(objects: dict[str, Object]) -> Object:
    """What the server's file says."""
    parsed: Object = json.loads(pod(objects)["metadata"]["annotations"]["labelmint/serve.json"])
    return parsed
