"""The one definition of the graph that every target is written from."""

from dataclasses import dataclass

import torch

from labelmint.v1 import bundle_pb2
from labelmint_export.bundle.deployed_conv import DeployedConv
from labelmint_export.bundle.graphs import (
    InterpreterGraph,
    MappingGraph,
    ModelGraph,
    SynthesisGraph,
    bake_gains,
    crop_of_manifest,
    noise_of_manifest,
)
from labelmint_export.generator import Backbone
from labelmint_export.generator.stylegan2 import ModulatedConv
from labelmint_export.interpreter.ensemble import Interpreter
from labelmint_export.precision import DTYPES, Precision


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TargetModel:
    """The deployed model, ready to be written as any target."""

    module: ModelGraph
    """In evaluation mode, on the CPU."""
    precision: Precision
    """Of its feature maps."""
    inputs: dict[str, torch.Tensor]
    """Example inputs by name, a batch of two, in the order of forward."""
    manifest: bundle_pb2.Manifest
    """Of the bundle that says how the model is put together."""

    @property
    def output_names(self) -> list[str]:
        """Names in the order of the outputs."""
        return self.module.output_names


def make_target_model(
    generator: Backbone, interpreter: Interpreter, manifest: bundle_pb2.Manifest, precision: Precision
) -> TargetModel:
    """Put the deployed model together.

    Args:
        generator: As trained, float32.
        interpreter: As trained on that generator's taps, float32.
        manifest: Of the bundle that was built from both.
        precision: Of feature maps and matrix products.
    """
    dtype = DTYPES[precision]
    crop = crop_of_manifest(manifest)
    deployed = deploy_generator(generator, dtype)
    module = ModelGraph(
        MappingGraph(deployed, manifest.truncation.cutoff or None),
        SynthesisGraph(deployed, interpreter.config.taps, noise_of_manifest(manifest), crop, dtype),
        InterpreterGraph(interpreter, manifest.vote_rule, generator.config.resolution, crop, dtype),
    )
    inputs = {"z": torch.zeros(2, generator.config.z_dim), "truncation_psi": torch.ones(2)}
    inputs["z"][:, 0] = 1.0
    if generator.config.c_dim:
        inputs["c"] = torch.eye(generator.config.c_dim)[[0, 0]]
    return TargetModel(
        module=module.eval().requires_grad_(False), precision=precision, inputs=inputs, manifest=manifest
    )


def deploy_generator(generator: Backbone, dtype: torch.dtype) -> Backbone:
    """Copy a generator with gains baked in and its convolutions in the form and precision in which they run."""
    baked = bake_gains(generator)
    for module in list(baked.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, ModulatedConv):
                setattr(module, name, DeployedConv(child, dtype))
    return baked
