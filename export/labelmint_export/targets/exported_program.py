"""torch.export program: `model.pt2`, the graph that torch's compilers start from."""

import functools
from importlib import metadata
from pathlib import Path

import torch

from labelmint_export.targets.deployed import TargetModel
from labelmint_export.targets.protocol import Device, Engine, Target, Written
from labelmint_export.targets.settings import MAX_BATCH, TargetSettings
from labelmint_export.targets.torch_engine import check_traced_device, run_with_arrays, save_archive

MODEL_FILE = "model.pt2"


def export_program(model: TargetModel) -> torch.export.ExportedProgram:
    """Trace a model with any batch. What the trace remembers of our source files is left out."""
    batch = torch.export.Dim("N", min=1, max=MAX_BATCH)
    shapes = tuple({0: batch} for _ in model.inputs)
    program = torch.export.export(model.module, tuple(model.inputs.values()), dynamic_shapes=shapes)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def _write(model: TargetModel, _settings: TargetSettings, folder: Path) -> Written:
    save_archive(functools.partial(torch.export.save, export_program(model)), folder / MODEL_FILE)
    return Written(versions={"torch": metadata.version("torch")}, device={"kind": "cpu"})


def _load(folder: Path, model: TargetModel, device: Device) -> Engine:
    check_traced_device(device)
    module = torch.export.load(folder / MODEL_FILE).module()
    return Engine(run=run_with_arrays(module, model, device), computes="torch.export program, cpu", rounds=True)


TARGET = Target(name="program", summary="torch.export program (.pt2)", write=_write, load=_load)
