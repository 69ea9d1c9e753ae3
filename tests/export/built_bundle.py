"""A built bundle together with what it was built from, and its outputs by the plain algorithms."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from onnx import TensorProto

from labelmint.addresses import class_indices, latents
from labelmint.bundle import open_bundle
from labelmint.v1 import bundle_pb2
from labelmint_export.bundle.build import build_bundle
from labelmint_export.bundle.settings import BuildSettings
from labelmint_export.generator import Backbone, Generator
from labelmint_export.interpreter.ensemble import Interpreter
from labelmint_service.engine import LatentInputs
from tests.export.plain_interpreter import plain_labels
from tests.export.plain_stylegan import plain_mapping, plain_synthesis, plain_truncation
from tests.export.tiny_parts import make_provenance, make_schema

Feeds = dict[str, npt.NDArray[np.float32]]
# Any: arrays of every dtype, by the names of the graph's outputs.
Arrays = dict[str, npt.NDArray[Any]]


def engine_inputs(feeds: Feeds, rows: list[int]) -> LatentInputs:
    """Rows of what goes into the graphs, as an engine of the service takes them."""
    classes = feeds["c"][rows].argmax(axis=1) if "c" in feeds else None
    return LatentInputs(z=feeds["z"][rows], truncation_psi=feeds["truncation_psi"][rows], class_indices=classes)


@dataclass(frozen=True, slots=True)
class BuiltBundle:
    """A bundle on disk and its parts."""

    path: Path
    generator: Backbone
    interpreter: Interpreter
    settings: BuildSettings

    @classmethod
    def build(cls, path: Path, generator: Backbone, interpreter: Interpreter, settings: BuildSettings) -> BuiltBundle:
        schema = make_schema(interpreter.config.num_keypoints)
        build_bundle(generator, interpreter, schema, settings, make_provenance(), path)
        return cls(path, generator, interpreter, settings)

    @property
    def manifest(self) -> bundle_pb2.Manifest:
        return open_bundle(self.path).manifest

    def session(self, name: str) -> onnxruntime.InferenceSession:
        """One graph in onnxruntime, opened as the manifest says."""
        wanted = self.manifest.runtime.onnxruntime
        options = onnxruntime.SessionOptions()
        assert wanted.graph_optimization_level == "all"
        assert wanted.execution_mode == "sequential"
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.intra_op_num_threads = wanted.intra_op_num_threads
        options.inter_op_num_threads = wanted.inter_op_num_threads
        for key, value in wanted.config_entries.items():
            options.add_session_config_entry(key, value)
        path = self.path / getattr(self.manifest.graphs, name)
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(self, name: str, feeds: Arrays | Feeds) -> Arrays:
        session = self.session(name)
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, dict(feeds)), strict=True))

    def feeds(self, seed: int, indices: range, psi: float, class_index: int | None = None) -> Feeds:
        """Inputs of the `model` graph for addresses."""
        places = np.arange(indices.start, indices.stop, dtype=np.uint64)
        backbone = self.manifest.backbone
        feeds: Feeds = {
            "z": latents(seed, places, backbone.z_dim),
            "truncation_psi": np.full(len(places), psi, np.float32),
        }
        if backbone.c_dim:
            chosen = class_indices(seed, places, np.array(self.manifest.class_distribution))
            if class_index is not None:
                chosen = np.full(len(places), class_index)
            feeds["c"] = np.eye(backbone.c_dim, dtype=np.float32)[chosen]
        return feeds

    def plain_outputs(self, feeds: Feeds) -> Arrays:
        """What the `model` graph should give, in float64, from weights and definitions alone."""
        assert isinstance(self.generator, Generator), "there is no plain synthesis of the other families here"
        double = copy.deepcopy(self.generator).double()
        z, psi = torch.from_numpy(feeds["z"]).double(), torch.from_numpy(feeds["truncation_psi"]).double()
        c = torch.from_numpy(feeds["c"]).double() if "c" in feeds else None
        ws = plain_truncation(double, plain_mapping(double, z, c), psi, self.settings.truncation_cutoff)
        picture, taps = plain_synthesis(double, ws, self.settings.noise_mode)
        labels = plain_labels(self.interpreter, taps, self.settings.vote_rule)

        side, label_side = picture.shape[2], self.interpreter.config.label_resolution
        ratio = label_side // side
        crop = self.settings.crop
        top, left, height, width = (
            (crop.top, crop.left, crop.height, crop.width) if crop is not None else (0, 0, side, side)
        )
        image = torch.floor((127.5 * picture + 128).clamp(0, 255)).expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
        rows = slice(top * ratio, (top + height) * ratio)
        columns = slice(left * ratio, (left + width) * ratio)
        keypoints = labels.keypoints.clone()
        keypoints[..., 0] = keypoints[..., 0] / ratio - left
        keypoints[..., 1] = keypoints[..., 1] / ratio - top
        outside = (keypoints[..., :2] < 0).any(-1) | (keypoints[..., 0] > width) | (keypoints[..., 1] > height)
        keypoints[..., 3] = torch.where(outside, 0.0, keypoints[..., 3])
        return {
            "image": image[:, top : top + height, left : left + width].numpy(),
            "label": labels.label[:, rows, columns].numpy(),
            "uncertainty_map": labels.uncertainty_map[:, rows, columns].numpy(),
            "keypoints": keypoints.numpy(),
            "finite": np.ones(len(z), bool),
        }


def external_place(tensor: TensorProto) -> tuple[str, int, int]:
    """File, offset and length of a tensor that lies outside its graph."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    return entries["location"], int(entries["offset"]), int(entries["length"])
