"""Writing ONNX graphs that share one file of weights.

Every tensor of at least a kilobyte is stored once, in `weights.bin`, aligned to 4096 bytes so that an engine may map
it; equal tensors of different graphs point to the same place.
"""

import contextlib
import hashlib
import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import onnx
import onnx.compose
import onnx.external_data_helper
import torch
from onnx import TensorProto, helper, numpy_helper

from labelmint.graphs import BATCH_DIMENSION
from labelmint.v1 import bundle_pb2

OPSET = 20
WEIGHTS_FILE = "weights.bin"
MIN_SHARED_BYTES = 1024
ALIGNMENT = 4096


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence what torch's exporter says about its own insides: deprecations, and torchvision, which is not used."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", message=".*The axis name.*", category=UserWarning)
            yield
    finally:
        logger.setLevel(level)


def export_module(
    module: torch.nn.Module,
    inputs: tuple[torch.Tensor, ...],
    input_names: Sequence[str],
    output_names: Sequence[str],
    opset: int = OPSET,
) -> onnx.ModelProto:
    """Trace a module to ONNX with a dynamic batch.

    Args:
        module: In evaluation mode; its forward takes positional tensors whose first axis is the batch, one a parameter
            or all of them as `*stacks`.
        inputs: Example tensors with a batch of at least 2.
        input_names: One an input.
        output_names: One an output.
        opset: Version of ONNX's operators.

    Returns:
        The checked model; its weights are inside.
    """
    batch = torch.export.Dim(BATCH_DIMENSION, min=1, max=4096)
    shapes: tuple[object, ...] = tuple({0: batch} for _ in inputs)
    kinds = [parameter.kind for parameter in inspect.signature(module.forward).parameters.values()]
    if kinds == [inspect.Parameter.VAR_POSITIONAL]:
        shapes = (shapes,)  # torch takes shapes by parameter
    with _quiet_exporter():
        program = torch.onnx.export(
            module.eval(),
            inputs,
            input_names=list(input_names),
            output_names=list(output_names),
            dynamic_shapes=shapes,
            opset_version=opset,
            dynamo=True,
            verbose=False,
            optimize=True,
        )
    assert program is not None
    model = program.model_proto
    model.producer_name, model.producer_version = "labelmint", ""
    del model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.checker.check_model(model)
    return model


def compose_model(
    mapping: onnx.ModelProto, synthesis: onnx.ModelProto, interpreter: onnx.ModelProto, stack_names: Sequence[str]
) -> onnx.ModelProto:
    """Join the three graphs to one: z, (c), truncation_psi -> everything the service sends.

    Returns:
        The checked model; `finite` holds where both synthesis and interpreter are finite.
    """
    parts = {
        prefix: onnx.compose.add_prefix(graph, f"{prefix}/")
        for prefix, graph in (("mapping", mapping), ("synthesis", synthesis), ("interpreter", interpreter))
    }
    model = onnx.compose.merge_models(parts["mapping"], parts["synthesis"], io_map=[("mapping/ws", "synthesis/ws")])
    joined = [(f"synthesis/{name}", f"interpreter/{name}") for name in stack_names]
    outputs = ["synthesis/image", "synthesis/finite", *(o.name for o in parts["interpreter"].graph.output)]
    model = onnx.compose.merge_models(model, parts["interpreter"], io_map=joined, outputs=outputs)
    model.graph.node.append(helper.make_node("And", ["synthesis/finite", "interpreter/finite"], ["finite"]))
    rename = {value.name: value.name.split("/", 1)[1] for value in model.graph.input}
    rename |= {name: name.split("/", 1)[1] for name in outputs if not name.endswith("/finite")}
    for node in model.graph.node:
        node.input[:] = [rename.get(name, name) for name in node.input]
        node.output[:] = [rename.get(name, name) for name in node.output]
    kept = [value for value in model.graph.output if not value.name.endswith("/finite")]
    for value in (*model.graph.input, *kept):
        value.name = rename.get(value.name, value.name)
        value.type.tensor_type.shape.dim[0].dim_param = BATCH_DIMENSION
    del model.graph.output[:]
    model.graph.output.extend([*kept, helper.make_tensor_value_info("finite", TensorProto.BOOL, [BATCH_DIMENSION])])
    del model.graph.value_info[:]  # inferred anew by the engine
    model.graph.name = "model"
    model.producer_name, model.producer_version = "labelmint", ""
    onnx.checker.check_model(model)
    return model


class _WeightsFile:
    """Stores arrays once each, by their content."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._places: dict[str, tuple[int, int]] = {}

    def put(self, data: bytes) -> tuple[int, int]:
        """Return (offset, length) of these bytes, which are written unless they are there already."""
        key = hashlib.sha256(data).hexdigest()
        if key not in self._places:
            self._file.write(b"\0" * (-self._file.tell() % ALIGNMENT))
            self._places[key] = (self._file.tell(), len(data))
            self._file.write(data)
        return self._places[key]


def write_graphs(
    graphs: Mapping[str, onnx.ModelProto], folder: Path, tables: Mapping[str, npt.NDArray[np.float32]] | None = None
) -> list[bundle_pb2.Table]:
    """Write graphs as `NAME.onnx` and their large tensors, each once, as `weights.bin`.

    Args:
        graphs: Name -> model with its weights inside; the weights are moved out.
        folder: Where to write; exists.
        tables: Name -> array that the same file shall hold for readers of tables; most are a graph's tensor anyway.

    Returns:
        Where the tables are.
    """
    with (folder / WEIGHTS_FILE).open("wb") as file:
        weights = _WeightsFile(file)
        for model in graphs.values():
            for tensor in model.graph.initializer:
                data = np.ascontiguousarray(numpy_helper.to_array(tensor)).tobytes()
                if len(data) >= MIN_SHARED_BYTES:
                    _move_out(tensor, *weights.put(data))
        places = [
            bundle_pb2.Table(
                name=name,
                path=WEIGHTS_FILE,
                offset=weights.put(np.ascontiguousarray(table, dtype="<f4").tobytes())[0],
                shape=table.shape,
            )
            for name, table in (tables or {}).items()
        ]
    for name, model in graphs.items():
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))
    return places


def _move_out(tensor: TensorProto, offset: int, length: int) -> None:
    """Turn a tensor's data into a reference to the weights file."""
    for name in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data"):
        tensor.ClearField(name)
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    for entry, value in (("location", WEIGHTS_FILE), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=entry, value=value)
