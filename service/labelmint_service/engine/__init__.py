"""Engines: what turns latents into labelled pictures.

Example, with the batch size, sizes and class count of the manifest:

    bundle = labelmint.bundle.open_bundle(path)
    engine = load_engine(bundle)
    batch = engine.run(z, class_onehot, truncation_psi)
"""

from labelmint_service.engine.loading import load_engine
from labelmint_service.engine.protocol import Engine, EngineBatch, EngineInputs, JsonValue, LatentInputs, StyleInputs

__all__ = ["Engine", "EngineBatch", "EngineInputs", "JsonValue", "LatentInputs", "StyleInputs", "load_engine"]
