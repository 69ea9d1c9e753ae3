"""The model repository of Triton: its configuration, parsed with Triton's own schema, fits the graph beside it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from google.protobuf import text_format

from labelmint_export.targets import triton
from labelmint_export.targets.registry import find_target
from labelmint_export.targets.settings import BatchProfile, TargetSettings
from labelmint_export.targets.triton import model_folder, version_of
from tests.export.built_bundle import BuiltBundle
from tests.export.targets.made import make_model

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    schema = pytest.importorskip(
        "tritonclient.grpc.model_config_pb2", reason="tritonclient and python-rapidjson are not installed"
    )

SETTINGS = TargetSettings(profile=BatchProfile(min_batch=1, opt_batch=2, max_batch=6), queue_delay_us=700)
DTYPES = {"tensor(float)": "TYPE_FP32", "tensor(float16)": "TYPE_FP16", "tensor(uint8)": "TYPE_UINT8"}
DTYPES |= {"tensor(bool)": "TYPE_BOOL"}


@pytest.fixture(params=["plain_built", pytest.param("unusual_built", marks=pytest.mark.thorough)], scope="module")
def repository(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[BuiltBundle, Path]:
    built: BuiltBundle = request.getfixturevalue(request.param)
    folder = tmp_path_factory.mktemp("triton")
    find_target("triton", "float16").write(make_model(built, "float16"), SETTINGS, folder)
    return built, folder


def parse(built: BuiltBundle, folder: Path) -> Any:  # Any: Triton's messages have no types
    text = (model_folder(folder, make_model(built, "float16")) / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, schema.ModelConfig())


def test_configuration_parses_and_says_what_was_asked_for(repository: tuple[BuiltBundle, Path]) -> None:
    built, folder = repository
    config = parse(built, folder)
    assert config.name == built.manifest.name == next((folder / "repository").iterdir()).name
    assert config.backend == "onnxruntime"
    assert config.max_batch_size == 6
    assert list(config.dynamic_batching.preferred_batch_size) == [2, 6]
    assert config.dynamic_batching.max_queue_delay_microseconds == 700
    assert [entry.batch_size for entry in config.model_warmup] == [1, 2, 6]
    assert config.parameters["weights_licence"].string_value == built.manifest.licence.weights
    assert config.parameters["attribution"].string_value == built.manifest.licence.attribution


def test_configuration_fits_the_graph(repository: tuple[BuiltBundle, Path]) -> None:
    """Names, dtypes and shapes as onnxruntime sees them, with the batch that Triton adds in front."""
    built, folder = repository
    config, model = parse(built, folder), make_model(built, "float16")
    path = model_folder(folder, model) / version_of(model) / config.default_model_filename
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feeds = built.feeds(seed=1, indices=range(3), psi=1.0)
    outputs = session.run(None, feeds)
    shapes = {value.name: array.shape for value, array in zip(session.get_outputs(), outputs, strict=True)}
    shapes |= {name: array.shape for name, array in feeds.items()}
    for described, values in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert [entry.name for entry in described] == [value.name for value in values]
        for entry, value in zip(described, values, strict=True):
            assert schema.DataType.Name(entry.data_type) == DTYPES[value.type]
            inner = entry.reshape.shape if entry.HasField("reshape") else entry.dims
            assert (3, *inner) == shapes[entry.name]
            assert np.prod(entry.dims) == np.prod(inner, initial=1), "a reshape keeps the number of values"


@pytest.mark.parametrize(("version", "number"), [("7", "7"), ("2024.1", "1"), ("0", "1")])
def test_folder_of_the_graph_is_the_version_if_that_is_a_number(
    plain_built: BuiltBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, number: str
) -> None:
    model = make_model(plain_built, "float32")
    model.manifest.version = version
    monkeypatch.setattr(triton, "write_onnx", lambda _, folder: (folder / "model.onnx").touch())
    find_target("triton", "float32").write(model, SETTINGS, tmp_path)
    assert [path.name for path in model_folder(tmp_path, model).iterdir() if path.is_dir()] == [number]
    assert (tmp_path / "repository" / "tiny" / number / "model.onnx").is_file()


def test_warm_up_feeds_every_input(repository: tuple[BuiltBundle, Path]) -> None:
    built, folder = repository
    config = parse(built, folder)
    for entry in config.model_warmup:
        assert set(entry.inputs) == {described.name for described in config.input}
        for described in config.input:
            fed = entry.inputs[described.name]
            assert fed.data_type == described.data_type
            assert list(fed.dims) == list(described.dims)
