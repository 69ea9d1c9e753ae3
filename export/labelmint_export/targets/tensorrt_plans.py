"""TensorRT plans: `model.plan`, from the ONNX graph, for native TensorRT and for TensorRT-RTX."""

import functools
from pathlib import Path
from typing import Any

import torch

from labelmint_export.errors import BuildError, CannotRunError
from labelmint_export.targets.deployed import TargetModel
from labelmint_export.targets.onnx_target import MODEL_FILE, write_onnx
from labelmint_export.targets.protocol import Device, Engine, Target, Written
from labelmint_export.targets.settings import TargetSettings
from labelmint_export.targets.tensorrt_builder import (
    NATIVE,
    RTX,
    TIMING_CACHE_FILE,
    Flavour,
    PlanBuilder,
    import_tensorrt,
    make_logger,
)
from labelmint_export.targets.torch_engine import run_with_arrays

PLAN_FILE = "model.plan"


def _write(model: TargetModel, settings: TargetSettings, folder: Path, flavour: Flavour) -> Written:
    builder = PlanBuilder(flavour)
    builder.check(settings)
    written = write_onnx(model, folder)
    refused = builder.parse(folder / MODEL_FILE)
    if refused:
        first = refused[0]
        raise BuildError(
            f"{flavour.title} takes {len(refused)} node(s) of the graph not, the first {first.name!r} "
            f"({first.operator}): {first.reason}",
            field="target",
        )
    plan, timings, device = builder.build(settings)
    for path in sorted(folder.iterdir()):  # the plan holds the weights
        path.unlink()
    (folder / PLAN_FILE).write_bytes(plan)
    if timings:
        (folder / TIMING_CACHE_FILE).write_bytes(timings)
    return Written(
        versions={**written.versions, flavour.module: str(builder.trt.__version__)},
        device=device,
        details={**written.details, "num_layers": int(builder.network.num_layers)},
    )


def _load(folder: Path, model: TargetModel, device: Device, flavour: Flavour) -> Engine:
    if device != "cuda":
        raise CannotRunError("a TensorRT plan runs on an NVIDIA GPU only")
    if not torch.cuda.is_available():
        raise CannotRunError("torch, which holds the plan's inputs and outputs, sees no CUDA device")
    try:
        trt: Any = import_tensorrt(flavour)  # Any: the library has no types
    except BuildError as error:
        raise CannotRunError(str(error)) from error
    messages: list[str] = []
    logger = make_logger(trt, messages)
    engine = trt.Runtime(logger).deserialize_cuda_engine((folder / PLAN_FILE).read_bytes())
    if engine is None:
        raise CannotRunError(f"{flavour.title} does not load the plan on this GPU: {'; '.join(messages[-3:])}")
    context = engine.create_execution_context()
    dtypes = {
        trt.DataType.FLOAT: torch.float32,
        trt.DataType.HALF: torch.float16,
        trt.DataType.UINT8: torch.uint8,
        trt.DataType.BOOL: torch.bool,
    }

    def call(*tensors: torch.Tensor) -> list[torch.Tensor]:
        for name, tensor in zip(model.inputs, tensors, strict=True):
            context.set_input_shape(name, tuple(tensor.shape))
            context.set_tensor_address(name, tensor.data_ptr())
        outputs = []
        for name in model.output_names:
            shape, dtype = tuple(context.get_tensor_shape(name)), dtypes[engine.get_tensor_dtype(name)]
            outputs.append(torch.empty(shape, dtype=dtype, device="cuda"))
            context.set_tensor_address(name, outputs[-1].data_ptr())
        stream = torch.cuda.current_stream()
        if not context.execute_async_v3(stream.cuda_stream):
            raise BuildError(f"{flavour.title} failed to run: {'; '.join(messages[-3:])}", field="engine")
        stream.synchronize()
        return outputs

    return Engine(run=run_with_arrays(call, model, device), computes=f"{flavour.title}, cuda", rounds=True)


TENSORRT = Target(
    name="tensorrt",
    summary="TensorRT plan for the GPU of this machine",
    write=functools.partial(_write, flavour=NATIVE),
    load=functools.partial(_load, flavour=NATIVE),
)
TENSORRT_RTX = Target(
    name="tensorrt-rtx",
    summary="TensorRT-RTX plan; builds without a GPU",
    write=functools.partial(_write, flavour=RTX),
    load=functools.partial(_load, flavour=RTX),
)
