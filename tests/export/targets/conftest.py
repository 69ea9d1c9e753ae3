"""Graphs that the tests of the targets share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import onnx
import pytest

from labelmint_export.targets import onnx_target
from labelmint_export.targets.deployed import TargetModel
from tests.shared_work import made_once


@pytest.fixture(autouse=True, scope="module")
def exported_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The same weights for the same bundle give the same graph, whoever asks: only the first export takes seconds."""
    export = onnx_target.make_onnx

    def make(model: TargetModel) -> onnx.ModelProto:
        path = made_once(
            tmp_path_factory,
            f"graph-{digest_of(model)}.onnx",
            lambda unfinished: unfinished.write_bytes(export(model).SerializeToString()),
        )
        return onnx.load_model_from_string(path.read_bytes())

    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(onnx_target, "make_onnx", make)
        yield


def digest_of(model: TargetModel) -> str:
    """Of all that the graph follows from."""
    content = hashlib.sha256(f"{model.manifest.digest} {model.precision}".encode())
    for name, tensor in model.module.state_dict().items():
        content.update(f" {name} {tensor.dtype} {list(tensor.shape)} ".encode())
        content.update(tensor.contiguous().flatten().double().numpy().tobytes())
    return content.hexdigest()
