"""Triton Inference Server model repository: `repository/NAME/config.pbtxt` and a version folder with the ONNX graph.

    tritonserver --model-repository=FOLDER/repository

The configuration names no batch axis: Triton adds it, fills batches up, and warms the model up when it loads.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from google.protobuf import text_encoding

from labelmint.graphs import TensorSpec, input_specs, output_specs
from labelmint_export.targets.deployed import TargetModel
from labelmint_export.targets.onnx_target import MODEL_FILE, load_onnx, write_onnx
from labelmint_export.targets.protocol import Device, Engine, Target, Written
from labelmint_export.targets.settings import TargetSettings

REPOSITORY = "repository"
CONFIG_FILE = "config.pbtxt"

_TYPES = {"float32": "TYPE_FP32", "float16": "TYPE_FP16", "uint8": "TYPE_UINT8", "bool": "TYPE_BOOL"}
"""numpy's name -> Triton's."""


def make_config(model: TargetModel, settings: TargetSettings) -> str:
    """Write a model's configuration in protobuf's text format."""
    manifest, profile = model.manifest, settings.profile
    inputs, outputs = input_specs(manifest), output_specs(manifest)
    preferred = sorted({profile.opt_batch, profile.max_batch})
    lines = [
        f"name: {_quote(manifest.name)}",
        'backend: "onnxruntime"',
        f'default_model_filename: "{MODEL_FILE}"',
        f"max_batch_size: {profile.max_batch}",
        *(line for spec in inputs for line in _tensor("input", spec)),
        *(line for spec in outputs for line in _tensor("output", spec)),
        "dynamic_batching {",
        f"  preferred_batch_size: {preferred}",
        f"  max_queue_delay_microseconds: {settings.queue_delay_us}",
        "}",
        "instance_group { count: 1 kind: KIND_AUTO }",
        *(line for size in sorted({1, *preferred}) for line in _warmup(size, inputs)),
    ]
    terms = {
        "weights_licence": manifest.licence.weights,
        "data_licence": manifest.licence.data,
        "attribution": manifest.licence.attribution,
        "bundle_digest": manifest.digest,
        "precision": model.precision,
    }
    lines += [
        f"parameters {{ key: {_quote(key)} value {{ string_value: {_quote(value)} }} }}" for key, value in terms.items()
    ]
    return "\n".join(lines) + "\n"


def _tensor(role: str, spec: TensorSpec) -> Iterator[str]:
    yield f"{role} {{"
    yield f"  name: {_quote(spec.name)}"
    yield f"  data_type: {_TYPES[spec.dtype]}"
    if spec.shape:
        yield f"  dims: {list(spec.shape)}"
    else:  # Triton wants at least one dimension; the graph has one number an image
        yield "  dims: [1]"
        yield "  reshape { shape: [] }"
    yield "}"


def _warmup(batch: int, inputs: Sequence[TensorSpec]) -> Iterator[str]:
    yield "model_warmup {"
    yield f'  name: "batch_{batch}"'
    yield f"  batch_size: {batch}"
    for spec in inputs:
        data = "random_data: true" if spec.shape else "zero_data: true"
        dims = list(spec.shape) or [1]
        yield f"  inputs {{ key: {_quote(spec.name)} value {{ data_type: {_TYPES[spec.dtype]} dims: {dims} {data} }} }}"
    yield "}"


def _quote(text: str) -> str:
    return f'"{text_encoding.CEscape(text.encode(), as_utf8=False)}"'


def model_folder(folder: Path, model: TargetModel) -> Path:
    """The model's folder inside the target's."""
    return folder / REPOSITORY / model.manifest.name


def version_of(model: TargetModel) -> str:
    """The number of the version folder: the bundle's version if it is a number, else 1."""
    version = model.manifest.version
    return str(int(version)) if version.isascii() and version.isdigit() and int(version) > 0 else "1"


def _write(model: TargetModel, settings: TargetSettings, folder: Path) -> Written:
    graph_folder = model_folder(folder, model) / version_of(model)
    graph_folder.mkdir(parents=True)
    written = write_onnx(model, graph_folder)
    (model_folder(folder, model) / CONFIG_FILE).write_text(make_config(model, settings), encoding="utf-8")
    return written


def _load(folder: Path, model: TargetModel, device: Device) -> Engine:
    """Run the graph as Triton's onnxruntime backend does."""
    return load_onnx(model_folder(folder, model) / version_of(model) / MODEL_FILE, model.precision, device)


TARGET = Target(
    name="triton",
    summary="model repository of Triton Inference Server, on its onnxruntime backend",
    write=_write,
    load=_load,
    precisions=("float32", "float16"),
)
