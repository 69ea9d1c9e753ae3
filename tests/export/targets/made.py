"""Targets of the small bundles, and their outputs."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from labelmint_export.cli import main
from labelmint_export.generator import Generator
from labelmint_export.generator.snapshots import save_generator
from labelmint_export.interpreter.storage import save_interpreter
from labelmint_export.precision import Precision
from labelmint_export.targets.deployed import TargetModel, make_target_model
from labelmint_export.targets.onnx_target import write_onnx
from labelmint_export.targets.tensorrt_builder import RTX, PlanBuilder, RejectedNode
from tests.export.built_bundle import Arrays, BuiltBundle, Feeds
from tests.shared_work import made_once


def onnx_once(factory: pytest.TempPathFactory, built: BuiltBundle, precision: Precision) -> Path:
    """The folder with the model's ONNX graph, for tests that only read it: exporting takes seconds."""

    def write(folder: Path) -> None:
        folder.mkdir()
        write_onnx(make_model(built, precision), folder)

    return made_once(factory, f"onnx-{built.settings.name}-{precision}", write)


def rejected_nodes(path: Path) -> list[RejectedNode]:
    """The nodes of a graph, whose weights lie beside it, that TensorRT-RTX's parser does not take; needs no GPU."""
    return PlanBuilder(RTX).parse(path)


def make_model(built: BuiltBundle, precision: Precision) -> TargetModel:
    return make_target_model(built.generator, built.interpreter, built.manifest, precision)


@torch.no_grad()
def run_module(model: TargetModel, feeds: Feeds) -> Arrays:
    """The deployed module itself, with no engine around it."""
    outputs = model.module(*[torch.from_numpy(feeds[name]) for name in model.inputs])
    return {name: tensor.numpy() for name, tensor in zip(model.output_names, outputs, strict=True)}


def save_sources(built: BuiltBundle, folder: Path) -> list[str]:
    """Write what a bundle was built from; the options of the command line that name it."""
    generator, interpreter = folder / "generator.safetensors", folder / "interpreter.safetensors"
    assert isinstance(built.generator, Generator)
    save_generator(built.generator, generator)
    save_interpreter(built.interpreter, interpreter, {})
    return ["--generator", str(generator), "--interpreter", str(interpreter)]


def run_command(*arguments: object) -> tuple[int, str, str]:
    """Exit status, output and errors of a command."""
    printed, complained = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complained):
        status = main([str(argument) for argument in arguments])
    return status, printed.getvalue(), complained.getvalue()


class WatchedOperations(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's class has no types
    """Notes the dtypes that every operation of torch reads and makes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's class has no types
        self.dtypes: dict[str, set[torch.dtype]] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]  # torch's own
        result = function(*args, **(kwargs or {}))
        values = [*args, *(result if isinstance(result, tuple | list) else [result])]
        name = str(function.overloadpacket).removeprefix("aten.")
        self.dtypes.setdefault(name, set()).update(v.dtype for v in values if isinstance(v, torch.Tensor))
        return result
