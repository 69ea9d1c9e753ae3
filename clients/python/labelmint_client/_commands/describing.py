"""`labelmint models` and `labelmint show`."""

import json
from dataclasses import asdict

from google.protobuf import json_format

from labelmint_client._commands.tables import table
from labelmint_client._model import Model, ModelSummary, ModelVersion
from labelmint_client._sync import Client

_COLUMNS = ("name", "version", "digest", "numerics_id", "description")
_VERSION_COLUMNS = ("version", "state", "aliases", "reason")


def models_text(client: Client, *, as_json: bool) -> str:
    """List the models of a server; below them their versions, where there are several or one is not ready.

    Args:
        client: Connected to it.
        as_json: As a JSON list instead of tables.

    Raises:
        ClientError: The server does not answer.
    """
    models = client.list_models()
    if as_json:
        return json.dumps([asdict(model) for model in models], indent=2, ensure_ascii=False)
    text = table(_COLUMNS, [_model_row(model) for model in models])
    rows = [_version_row(model, version) for model in models if _has_more(model) for version in model.versions]
    return f"{text}\n\n{table(_VERSION_COLUMNS, rows)}" if rows else text


def model_text(client: Client, name: str, *, as_json: bool) -> str:
    """Describe a model.

    Args:
        client: Connected to its server.
        name: Name of the model.
        as_json: The whole manifest as JSON instead of a summary.

    Raises:
        ClientError: There is no such model, or the server does not answer.
    """
    model = client.get_model(name)
    if as_json:
        manifest = json_format.MessageToDict(model.manifest, preserving_proto_field_name=True)
        return json.dumps({"numerics_id": model.numerics_id, "manifest": manifest}, indent=2, ensure_ascii=False)
    return "\n".join(f"{label + ':':<18}{value}" for label, value in _facts(model) if value)


def _has_more(model: ModelSummary) -> bool:
    """Whether there is more to be said of a model than its line does."""
    return len(model.versions) > 1 or not model.is_ready


def _model_row(model: ModelSummary) -> dict[str, str]:
    row: dict[str, str] = {column: getattr(model, column) for column in _COLUMNS}
    return row | {column: row[column][:12] for column in ("digest", "numerics_id")}


def _version_row(model: ModelSummary, version: ModelVersion) -> dict[str, str]:
    return {
        "version": f"{model.name}@{version.version}",
        "state": version.state,
        "aliases": ",".join(version.aliases),
        "reason": version.reason,
    }


def _facts(model: Model) -> list[tuple[str, str]]:
    manifest = model.manifest
    backbone, truncation, licence = manifest.backbone, manifest.truncation, manifest.licence
    height, width = model.image_size
    label_height, label_width = model.label_size
    swatches = [
        f"{name} #{r:02x}{g:02x}{b:02x}" for name, (r, g, b) in zip(model.class_names, model.palette, strict=True)
    ]
    return [
        ("model", f"{model.name} {model.version}".strip()),
        ("description", manifest.description),
        ("digest", model.digest),
        ("numerics id", model.numerics_id),
        ("generator", f"{backbone.family} {backbone.architecture}, {backbone.num_parameters:,} parameters"),
        ("images", f"{width} x {height} pixels"),
        ("masks", f"{label_width} x {label_height} pixels, {len(model.class_names)} classes"),
        ("classes", ", ".join(swatches)),
        ("keypoints", ", ".join(model.keypoint_names)),
        ("conditional on", f"{backbone.c_dim} classes" if backbone.c_dim else ""),
        ("z", f"{backbone.z_dim} numbers; w: {backbone.w_dim}, w_plus: {backbone.num_ws} x {backbone.w_dim}"),
        ("truncation psi", f"{truncation.default_psi:g} unless asked otherwise, at most {truncation.max_psi:g}"),
        ("interpreter", f"{manifest.segmentation.num_members} members, vote rule {manifest.vote_rule}"),
        ("data licence", licence.data),
        ("weights licence", licence.weights),
        ("attribution", licence.attribution),
        ("terms", licence.url),
    ]
