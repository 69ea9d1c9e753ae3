"""StyleGAN2 snapshots in the layout of NVIDIA's PyTorch programs, as the records that reading gives."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from labelmint_export.checkpoints import ModuleRecord
from labelmint_export.generator import Generator
from labelmint_export.generator.layers import binomial_filter

Tensors = Mapping[str, torch.Tensor]


def module(
    class_name: str,
    parameters: Tensors | None = None,
    buffers: Tensors | None = None,
    modules: Mapping[str, ModuleRecord] | None = None,
    attributes: Mapping[str, object] | None = None,
    **more: object,
) -> ModuleRecord:
    return ModuleRecord(
        class_name=class_name,
        module="torch_utils.persistence",
        parameters={name: tensor.numpy() for name, tensor in (parameters or {}).items()},
        buffers={name: tensor.numpy() for name, tensor in (buffers or {}).items()},
        modules=dict(modules or {}),
        attributes={"training": False, **(attributes or {}), **more},
        init_args=(),
        init_kwargs={},
    )


def linear(weights: Tensors, name: str, activation: str = "linear", multiplier: float = 1) -> ModuleRecord:
    matrix = weights[f"{name}.weight"]
    return module(
        "FullyConnectedLayer",
        {"weight": matrix, "bias": weights[f"{name}.bias"]},
        activation=activation,
        weight_gain=multiplier / math.sqrt(matrix.shape[1]),
        bias_gain=multiplier,
    )


def nvidia_record(
    generator: Generator,
    *,
    use_noise: bool = True,
    fp16_from: int = 10**6,
    filter_taps: tuple[float, ...] = (1.0, 3.0, 3.0, 1.0),
) -> ModuleRecord:
    """What `G_ema` of a snapshot becomes whose weights are those of a generator of ours."""
    config, weights = generator.config, generator.state_dict()
    clamp = None if config.conv_clamp is None else int(config.conv_clamp)
    shared: dict[str, object] = {"w_dim": config.w_dim, "num_ws": config.num_ws}
    kernel = binomial_filter(filter_taps)

    def layer(name: str, r: int, up: int) -> ModuleRecord:
        start = f"synthesis.blocks.{name}"
        parameters = {"weight": weights[f"{start}.conv.weight"], "bias": weights[f"{start}.bias"]}
        buffers = {"resample_filter": kernel}
        if use_noise:
            parameters["noise_strength"] = weights[f"{start}.noise_strength"]
            buffers["noise_const"] = weights[f"{start}.noise_const"]
        inner = {"affine": linear(weights, f"{start}.affine")}
        gains: dict[str, object] = {"act_gain": math.sqrt(2), "conv_clamp": clamp, "padding": 1, "use_noise": use_noise}
        return module(
            "SynthesisLayer", parameters, buffers, inner, activation="lrelu", attributes=gains, resolution=r, up=up
        )

    def colours(name: str, width: int) -> ModuleRecord:
        start = f"synthesis.blocks.{name}"
        parameters = {"weight": weights[f"{start}.conv.weight"], "bias": weights[f"{start}.bias"]}
        inner = {"affine": linear(weights, f"{start}.affine")}
        return module("ToRGBLayer", parameters, {}, inner, conv_clamp=clamp, weight_gain=1 / math.sqrt(width))

    def block(r: int) -> ModuleRecord:
        width, is_last = config.channels[r], r == config.resolution
        inner: dict[str, ModuleRecord] = {} if r == 4 else {"conv0": layer(f"b{r}.conv0", r, 2)}
        inner["conv1"] = layer(f"b{r}.conv1", r, 1)
        if is_last or config.architecture == "skip":
            inner["torgb"] = colours(f"b{r}.torgb", width)
        if r > 4 and config.architecture == "resnet":
            pixel = {"weight": weights[f"synthesis.blocks.b{r}.skip.weight"]}
            inner["skip"] = module(
                "Conv2dLayer", pixel, {"resample_filter": kernel}, activation="linear", up=2, down=1, conv_clamp=None
            )
        const = {"const": weights["synthesis.blocks.b4.constant_input"]} if r == 4 else {}
        return module(
            "SynthesisBlock",
            const,
            {"resample_filter": kernel},
            inner,
            resolution=r,
            architecture=config.architecture,
            is_last=is_last,
            use_fp16=r >= fp16_from,
        )

    synthesis = module(
        "SynthesisNetwork",
        modules={f"b{r}": block(r) for r in config.block_resolutions},
        img_resolution=config.resolution,
        img_channels=config.image_channels,
        attributes=shared,
    )
    layers = {
        f"fc{index}": linear(weights, f"mapping.layers.{index}", "lrelu", config.mapping_lr_multiplier)
        for index in range(config.mapping_layers)
    }
    if config.c_dim:
        layers["embed"] = linear(weights, "mapping.embed")
    mapping = module(
        "MappingNetwork",
        buffers={"w_avg": weights["mapping.w_avg"]},
        modules=layers,
        z_dim=config.z_dim,
        c_dim=config.c_dim,
        num_layers=config.mapping_layers,
        attributes=shared,
    )
    return module("Generator", modules={"synthesis": synthesis, "mapping": mapping})
