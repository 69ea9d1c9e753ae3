"""TorchScript: `model.pt`, for libtorch and programs that have not moved on to torch.export."""

import functools
import warnings
from importlib import metadata
from pathlib import Path

import torch

from labelmint_export.targets.deployed import TargetModel
from labelmint_export.targets.protocol import Device, Engine, Target, Written
from labelmint_export.targets.settings import TargetSettings
from labelmint_export.targets.torch_engine import check_traced_device, run_with_arrays, save_archive

MODEL_FILE = "model.pt"


def _write(model: TargetModel, _settings: TargetSettings, folder: Path) -> Written:
    with warnings.catch_warnings():
        # torch prefers torch.export, a target as well, and warns of our checks of shapes, which do not vary.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]  # torch.jit has no types
            model.module, tuple(model.inputs.values()), check_trace=False
        )
        save_archive(functools.partial(torch.jit.save, torch.jit.freeze(traced)), folder / MODEL_FILE)
    return Written(versions={"torch": metadata.version("torch")}, device={"kind": "cpu"})


def _load(folder: Path, model: TargetModel, device: Device) -> Engine:
    check_traced_device(device)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        path = str(folder / MODEL_FILE)
        module = torch.jit.load(path, map_location=device)  # type: ignore[no-untyped-call]  # torch.jit has no types
    return Engine(run=run_with_arrays(module, model, device), computes=f"TorchScript, {device}", rounds=True)


TARGET = Target(name="torchscript", summary="TorchScript, for libtorch", write=_write, load=_load)
