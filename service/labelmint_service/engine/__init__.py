"""Engines: what turns latents into labelled pictures.

protocol            what an engine owes the scheduler, and what goes in and comes out
loading             which engine was asked for; opens it
onnxruntime_engine  runs the graphs of a bundle as they are
fused               the same with a compiled kernel in place of the interpreter's graph
graph_runs          what goes into one graph, and its run
sessions            graphs in onnxruntime, on the provider that was asked for
processor, graphics names of this machine's processor and GPUs, on which the last bits depend

Example, with the batch size and sizes of the manifest:

    bundle = labelmint.bundle.open_bundle(path)
    engine = load_engine(bundle)
    batch = engine.run(LatentInputs(z=z, truncation_psi=psi))
"""

from labelmint_service.engine.loading import DEFAULT_CHOICE, EngineChoice, load_engine
from labelmint_service.engine.protocol import (
    Engine,
    EngineBatch,
    EngineInputs,
    JsonValue,
    LatentInputs,
    StyleInputs,
    join_rows,
)

__all__ = [
    "DEFAULT_CHOICE",
    "Engine",
    "EngineBatch",
    "EngineChoice",
    "EngineInputs",
    "JsonValue",
    "LatentInputs",
    "StyleInputs",
    "join_rows",
    "load_engine",
]
