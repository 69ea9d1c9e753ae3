"""The worker: reads a checkpoint, or reads it and writes the graphs of a bundle, and says what that took."""

import tempfile
import time
from pathlib import Path

import torch

from benchmarks.processes.memory import peak_rss_bytes
from benchmarks.processes.worker import Answer, answer_requests
from benchmarks.reporting.files import Document
from labelmint_export import load_generator
from labelmint_export.bundle.graphs import CropWindow, MappingGraph, SynthesisGraph, bake_gains
from labelmint_export.bundle.onnx_graphs import export_module


def read(path: Path) -> Document:
    """Read the generator."""
    began, before = time.perf_counter(), peak_rss_bytes()
    generator = load_generator(path)
    return {
        "seconds": round(time.perf_counter() - began, 2),
        "imports_rss_bytes": before,
        "peak_rss_bytes": peak_rss_bytes(),
        "num_parameters": sum(parameter.numel() for parameter in generator.parameters()),
    }


def export(path: Path) -> Document:
    """Write mapping and synthesis of a bundle, all taps among the outputs, as ONNX files."""
    loaded = load_generator(path)
    began, before = time.perf_counter(), peak_rss_bytes()
    generator = bake_gains(loaded)
    mapping = MappingGraph(generator, None)
    side = generator.config.resolution
    synthesis = SynthesisGraph(
        generator, generator.tap_specs, "const", CropWindow(top=0, left=0, height=side, width=side)
    )
    z, psi = torch.randn(2, generator.config.z_dim), torch.tensor([0.7, 1.0])
    num_bytes = 0
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        ws = mapping(z, psi)
        for name, model in (
            ("mapping", export_module(mapping, (z, psi), ["z", "truncation_psi"], ["ws"])),
            ("synthesis", export_module(synthesis, (ws,), ["ws"], synthesis.output_names)),
        ):
            num_bytes += Path(folder, f"{name}.onnx").write_bytes(model.SerializeToString())
    return {
        "seconds": round(time.perf_counter() - began, 2),
        "reading_rss_bytes": before,
        "peak_rss_bytes": peak_rss_bytes(),
        "num_bytes": num_bytes,
    }


def _prepare() -> tuple[Document, Answer]:
    def answer(request: Document) -> Document:
        torch.set_num_threads(int(request["threads"]) or torch.get_num_threads())
        return {"read": read, "export": export}[request["stage"]](Path(request["path"]))

    return {}, answer


if __name__ == "__main__":
    answer_requests(_prepare)
