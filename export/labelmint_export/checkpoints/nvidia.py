"""What the pickles of NVIDIA's StyleGAN2 and StyleGAN3 have in common: linear layers and the mapping network."""

import math
import re
from typing import TypedDict

from labelmint_export.checkpoints.fields import RecordReader
from labelmint_export.generator.config import MAX_MAPPING_LAYERS, BackboneConfig


def check_linear(layer: RecordReader, activation: str, lr_multiplier: float) -> None:
    """Check that a fully connected layer scales its weights as ours does."""
    _, in_features = layer.shape("weight", 2)
    layer.agree("activation", layer.value("activation"), activation)
    gains = {"bias_gain": lr_multiplier, "weight_gain": lr_multiplier / math.sqrt(max(in_features, 1))}
    for name, expected in gains.items():
        if not math.isclose(layer.real(name), expected, rel_tol=1e-6):
            layer.refuse(name, f"is {layer.real(name)}", f"{expected}")


class MappingShape(TypedDict):
    """The fields of a config that tell of the mapping network."""

    z_dim: int
    w_dim: int
    c_dim: int
    mapping_layers: int
    mapping_lr_multiplier: float
    embed_dim: int | None
    hidden_dim: int | None


def read_mapping(mapping: RecordReader) -> MappingShape:
    """Read the shape of a mapping network.

    Raises:
        CheckpointError: Something is missing, of another type or out of range.
    """
    layers, c_dim = mapping.whole("num_layers"), mapping.whole("c_dim")
    if not 1 <= layers <= MAX_MAPPING_LAYERS:
        mapping.refuse("num_layers", f"is {layers}", f"1 to {MAX_MAPPING_LAYERS}")
    lr_multiplier = mapping.child("fc0", "FullyConnectedLayer").real("bias_gain")
    for index in range(layers):
        check_linear(mapping.child(f"fc{index}", "FullyConnectedLayer"), "lrelu", lr_multiplier)
    embed_dim = None
    if c_dim:
        embed = mapping.child("embed", "FullyConnectedLayer")
        check_linear(embed, "linear", 1.0)
        embed_dim = embed.shape("weight", 2)[0]
    return MappingShape(
        z_dim=mapping.whole("z_dim"),
        w_dim=mapping.whole("w_dim"),
        c_dim=c_dim,
        mapping_layers=layers,
        mapping_lr_multiplier=lr_multiplier,
        embed_dim=embed_dim,
        hidden_dim=mapping.child("fc0", "FullyConnectedLayer").shape("weight", 2)[0] if layers > 1 else None,
    )


def check_networks(mapping: RecordReader, synthesis: RecordReader, config: BackboneConfig) -> None:
    """Check that both networks agree on ws.

    Raises:
        CheckpointError: They do not.
    """
    for network in (mapping, synthesis):
        network.agree("num_ws", network.whole("num_ws"), config.num_ws)
        network.agree("w_dim", network.whole("w_dim"), config.w_dim)


def rename_mapping(name: str) -> str:
    """Our name of a mapping layer's tensor: `mapping.fc0.weight` -> `mapping.layers.0.weight`; others stay."""
    return re.sub(r"^mapping\.fc(\d+)\.", r"mapping.layers.\1.", name)
