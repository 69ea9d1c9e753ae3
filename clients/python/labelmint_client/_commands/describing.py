"""`labelmint models` and `labelmint show`."""

import json

from google.protobuf import json_format

from labelmint_client._model import Model
from labelmint_client._sync import Client

_COLUMNS = ("name", "version", "digest", "numerics_id", "description")


def models_text(client: Client, *, as_json: bool) -> str:
    """List the models of a server.

    Args:
        client: Connected to it.
        as_json: As a JSON list instead of a table.

    Raises:
        ClientError: The server does not answer.
    """
    rows = [{column: getattr(model, column) for column in _COLUMNS} for model in client.list_models()]
    if as_json:
        return json.dumps(rows, indent=2, ensure_ascii=False)
    for row in rows:
        row |= {column: row[column][:12] for column in ("digest", "numerics_id")}
    return _table([dict.fromkeys(_COLUMNS, "") | {column: column for column in _COLUMNS}, *rows])


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


def _table(rows: list[dict[str, str]]) -> str:
    widths = {column: max(len(row[column]) for row in rows) for column in _COLUMNS}
    return "\n".join("  ".join(row[column].ljust(widths[column]) for column in _COLUMNS).rstrip() for row in rows)
