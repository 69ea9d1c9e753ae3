"""Snapshots in the layout of the TensorFlow StyleGAN programs: (G, D, Gs), each a pickled tflib network."""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Variables = dict[str, npt.NDArray[Any]]  # Any: arrays of every float dtype


@contextmanager
def fake_dnnlib() -> Iterator[types.SimpleNamespace]:
    """Classes under the names of NVIDIA's, so that Python's pickler writes what theirs wrote."""

    class EasyDict(dict[str, object]):
        pass

    class Network:
        def __init__(self, **state: object) -> None:
            self.__dict__.update(state)

    modules = {name: types.ModuleType(name) for name in ("dnnlib", "dnnlib.tflib", "dnnlib.util")}
    modules["dnnlib.tflib.network"] = types.ModuleType("dnnlib.tflib.network")
    for cls, module in ((EasyDict, "dnnlib.util"), (Network, "dnnlib.tflib.network")):
        cls.__module__, cls.__qualname__ = module, cls.__name__
        setattr(modules[module], cls.__name__, cls)
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield types.SimpleNamespace(EasyDict=EasyDict, Network=Network)
    finally:
        for name, original in before.items():
            if original is None:
                del sys.modules[name]
            else:
                sys.modules[name] = original


def write_snapshot(path: Path, variables: Variables, options: Mapping[str, object], *, version: int = 4) -> Path:
    """Write (G, D, Gs); only Gs has these variables, those of the others are noise.

    Args:
        path: Of the `.pkl`.
        variables: Names as of the whole network, such as `G_synthesis/4x4/Const/const`.
        options: The networks' static_kwargs.
        version: Of the pickled form: 3 of StyleGAN, 4 of StyleGAN2, 5 of StyleGAN2-ADA.
    """
    trap = path.with_suffix(".trap")
    source = f"open({str(trap)!r}, 'w').close()"
    with fake_dnnlib() as dnnlib:

        def network(name: str, function: str, own: Variables, **components: object) -> object:
            kind = dict if version == 5 else dnnlib.EasyDict
            shapes: dict[str, object] = (
                {}
                if version < 5
                else {
                    "input_shapes": [[None, 6], [None, 0]],
                    "output_shapes": [[None, 3, 16, 16]],
                    "input_names": ["latents_in", "labels_in"],
                    "output_names": ["images_out"],
                }
            )
            return dnnlib.Network(
                version=version,
                name=name,
                static_kwargs=kind(options),
                components=kind(components),
                build_module_src=source,
                build_func_name=function,
                variables=[(key, np.float32(array) if array.ndim == 0 else array) for key, array in own.items()],
                **shapes,
            )

        def generator(name: str, values: Variables) -> object:
            parts = {
                part: {key.removeprefix(f"G_{part}/"): a for key, a in values.items() if key.startswith(f"G_{part}/")}
                for part in ("synthesis", "mapping")
            }
            own = {key: array for key, array in values.items() if "/" not in key}
            made = {part: network(f"G_{part}", f"G_{part}", values) for part, values in parts.items()}
            return network(name, "G_main", own, **made)

        other = {key: np.zeros_like(array) for key, array in variables.items()}
        discriminator = network("D", "D_stylegan2", {"Output/bias": np.zeros(1, np.float32)})
        path.write_bytes(pickle.dumps((generator("G", other), discriminator, generator("Gs", variables)), 4))
    return path


def draw_mapping(random: np.random.Generator, widths: tuple[int, ...], w_dim: int) -> Variables:
    """Dense layers whose outputs have unit size, and a mean w."""
    variables: Variables = {"lod": np.zeros(()), "dlatent_avg": random.normal(size=w_dim)}
    for index in range(len(widths) - 1):
        variables[f"G_mapping/Dense{index}/weight"] = 100 * random.normal(size=widths[index : index + 2])
        variables[f"G_mapping/Dense{index}/bias"] = 30 * random.normal(size=widths[index + 1])
    return variables


def as_float32(variables: Variables) -> Variables:
    return {name: np.asarray(array, np.float32) for name, array in variables.items()}


def make_stylegan1(
    channels: Mapping[int, int], *, widths: tuple[int, ...] = (6, 7, 5), classes: int = 0, seed: int = 0
) -> Variables:
    """Random variables of `G_style`, in which every one matters."""
    random = np.random.default_rng(seed)
    w_dim = widths[-1]
    inputs = widths[0] * (2 if classes else 1)  # the class is embedded to the length of the latent
    variables = draw_mapping(random, (inputs, *widths[1:]), w_dim) | {"G_synthesis/lod": np.zeros(())}
    if classes:
        variables["G_mapping/LabelConcat/weight"] = random.normal(size=(classes, widths[0]))
    incoming, index, stages = 0, 0, len(channels)
    for stage, (r, width) in enumerate(channels.items()):
        scope = f"G_synthesis/{r}x{r}"
        for name, inputs in (
            ("Const" if r == 4 else "Conv0_up", incoming),
            ("Conv" if r == 4 else "Conv1", width),
        ):
            layer = f"{scope}/{name}"
            if name == "Const":
                variables[f"{layer}/const"] = random.normal(size=(1, width, 4, 4))
            else:
                variables[f"{layer}/weight"] = random.normal(size=(3, 3, inputs, width))
            variables[f"{layer}/bias"] = 0.3 * random.normal(size=width)
            variables[f"{layer}/Noise/weight"] = 0.3 * random.normal(size=width)
            variables[f"{layer}/StyleMod/weight"] = random.normal(size=(w_dim, 2 * width))
            variables[f"{layer}/StyleMod/bias"] = 0.3 * random.normal(size=2 * width)
            variables[f"G_synthesis/noise{index}"] = random.normal(size=(1, 1, r, r))
            index += 1
        colours = f"G_synthesis/ToRGB_lod{stages - 1 - stage}"
        variables[f"{colours}/weight"] = random.normal(size=(1, 1, width, 3))
        variables[f"{colours}/bias"] = 0.3 * random.normal(size=3)
        incoming = width
    return as_float32(variables)


def make_stylegan2(
    channels: Mapping[int, int],
    *,
    widths: tuple[int, ...] = (6, 7, 5),
    architecture: str = "skip",
    label: tuple[str, int, int] | None = None,
    image_channels: int = 3,
    seed: int = 0,
) -> Variables:
    """Random variables of `G_main`; architecture "grown" is that of the configurations B to D.

    `label` is (LabelConcat or LabelEmbed, classes, embedded length).
    """
    random = np.random.default_rng(seed)
    w_dim, resolution = widths[-1], max(channels)
    variables = draw_mapping(random, (widths[0] + (label[2] if label else 0), *widths[1:]), w_dim)
    if label:
        variables[f"G_mapping/{label[0]}/weight"] = random.normal(size=label[1:])
        if label[0] == "LabelEmbed":
            variables["G_mapping/LabelEmbed/bias"] = random.normal(size=label[2])

    def modulated(layer: str, kernel: int, inputs: int, outputs: int) -> None:
        variables[f"{layer}/weight"] = random.normal(size=(kernel, kernel, inputs, outputs))
        variables[f"{layer}/mod_weight"] = random.normal(size=(w_dim, inputs))
        variables[f"{layer}/mod_bias"] = 0.3 * random.normal(size=inputs)
        variables[f"{layer}/bias"] = 0.3 * random.normal(size=outputs)

    incoming, index = channels[4], 0
    variables["G_synthesis/4x4/Const/const"] = random.normal(size=(1, incoming, 4, 4))
    for r, width in channels.items():
        scope = f"G_synthesis/{r}x{r}"
        for name, inputs in (("Conv", width),) if r == 4 else (("Conv0_up", incoming), ("Conv1", width)):
            modulated(f"{scope}/{name}", 3, inputs, width)
            variables[f"{scope}/{name}/noise_strength"] = np.array(0.3 + 0.1 * index)
            variables[f"G_synthesis/noise{index}"] = random.normal(size=(1, 1, r, r))
            index += 1
        if architecture == "grown":
            modulated(f"G_synthesis/ToRGB_lod{(resolution // r).bit_length() - 1}", 1, width, image_channels)
        elif architecture == "skip" or r == resolution:
            modulated(f"{scope}/ToRGB", 1, width, image_channels)
        if architecture == "resnet" and r > 4:
            variables[f"{scope}/Skip/weight"] = random.normal(size=(1, 1, incoming, width))
        incoming = width
    if architecture == "grown":
        variables["G_synthesis/lod"] = np.zeros(())
    return as_float32(variables)
