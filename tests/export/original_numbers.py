"""How far our numbers are from those of the original programs, array by array.

    python -m tests.export.original_numbers FOLDER

walks over every `.npz` of a folder of reference cases, computes each of its arrays with the generator in the file
beside it (pictures and taps from the ws that stand there), and prints the largest difference. An array that nobody
computes is an error.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from labelmint_export.checkpoints.archives import read_checkpoint
from labelmint_export.checkpoints.datasetgan_classifiers import interpreter_from_state_dicts
from labelmint_export.checkpoints.datasetgan_stylegan1 import stylegan1_from_state_dict
from labelmint_export.checkpoints.loading import AnyGenerator, load_generator
from labelmint_export.checkpoints.records import Array
from labelmint_export.generator import Generator
from labelmint_export.generator.layers import upsample_2x
from labelmint_export.interpreter.reference import concatenate_taps, interpret_reference
from tests.export.plain_half import half_blocks

Arrays = dict[str, npt.NDArray[Any]]  # Any: arrays of every dtype
GIVEN = ("z", "c", "avg_latent", "latent_avg", "noise/")
"""What goes in. `latent_avg` of rosinality's file stands in the checkpoint too."""
MAPPED = {"ws_psi_1": (1.0, None), "ws_psi_0_7": (0.7, None), "ws_psi_0_5_cutoff_4": (0.5, 4)}
STYLEGAN1_CUTOFFS = {32: 6, 128: 8}
HALF_FROM = 16
"""Resolution from which the program of `stylegan2_ada_32` computed in float16."""
STRIDE = slice(1, None, 5)  # the taps of StyleGAN3 in tests/data hold every fifth row and column


class Row(NamedTuple):
    """One array."""

    case: str
    array: str
    how: str
    shape: tuple[int, ...]
    largest: float
    """Of the original's values, absolute."""
    error: float
    """Largest absolute difference."""


def compare(case: str, name: str, expected: npt.NDArray[Any], got: torch.Tensor, how: str = "float32") -> Row:
    if got.shape != expected.shape:
        got = got[:, :, STRIDE, STRIDE]
    wanted, found = expected.astype(np.float64), got.double().numpy()
    return Row(case, name, how, expected.shape, float(np.abs(wanted).max()), float(np.abs(found - wanted).max()))


def read_arrays(path: Path) -> Arrays:
    with np.load(path) as file:
        return dict(file)


def read_state(path: Path) -> dict[str, Array]:
    content: Any = read_checkpoint(path)  # Any: a record of whatever the file holds
    return dict(content.get("model_state_dict", content))


def rows_of_generator(case: str, generator: AnyGenerator, arrays: Arrays, noise: Arrays) -> Iterator[Row]:
    z = torch.from_numpy(arrays["z"])
    c = torch.from_numpy(arrays["c"]) if "c" in arrays else None
    cutoff = STYLEGAN1_CUTOFFS[generator.config.resolution] if noise else None
    if "w" in arrays:
        yield compare(case, "w", arrays["w"], generator.mapping.map_to_w(z))
    for name, (psi, leading) in MAPPED.items():
        if name in arrays:
            yield compare(case, name, arrays[name], generator.mapping(z, c, psi, leading or cutoff))
    if "latent_avg" in arrays:
        yield compare(case, "latent_avg", arrays["latent_avg"], generator.mapping.w_avg[None])
    ws = torch.from_numpy(arrays["ws_psi_0_7"])
    planes = {name: torch.from_numpy(array) for name, array in noise.items()}
    named: dict[str, Any] = {"noise": planes} if planes else {}  # Any: StyleGAN3 has no such argument
    output = generator.synthesis(ws, "const", **named)
    whole = generator.synthesis(generator.mapping(z, c, 0.7, cutoff), "const", **named)
    image = next(name for name in arrays if name.startswith("img"))
    yield compare(case, image, arrays[image], output.image)
    yield compare(case, f"{image} from z", arrays[image], whole.image)
    names = [name for name in arrays if name.startswith("tap/")]
    for name, tap in zip(names, output.taps.values(), strict=True):
        yield compare(case, name, arrays[name], tap[:1])


def rows_of_half(case: str, generator: Generator, arrays: Arrays) -> Iterator[Row]:
    """The first picture again, its float16 blocks in the arithmetic of the original."""
    ws = torch.from_numpy(arrays["ws_psi_0_7"][:1])
    x = {r: torch.from_numpy(arrays[f"tap/b{r}.conv1"]) for r in (4, 8)}
    taps, colours = half_blocks(generator, x[8], ws, HALF_FROM)
    for name, tap in taps.items():
        yield compare(case, f"tap/{name}", arrays[f"tap/{name}"], tap, "float16")
    colours |= {r: generator.synthesis.block(r).torgb(x[r], ws[:, 2 * r.bit_length() - 5]) for r in (4, 8)}  # type: ignore[misc]  # blocks of this architecture have colours
    image = colours[4]
    for r in (8, 16, 32):
        image = upsample_2x(image, generator.synthesis.block(r).resample_filter) + colours[r]
    name = "img_psi_0_7_noise_const"
    yield compare(case, f"{name} first", arrays[name][:1], image, "float16")


def rows_of_classifiers(folder: Path, generator: AnyGenerator, arrays: Arrays) -> Iterator[Row]:
    expected = read_arrays(folder / "expected.npz")
    members = [read_state(path) for path in sorted(folder.glob("model_*.pth"))]
    interpreter = interpreter_from_state_dicts(members, taps=generator.tap_specs, label_resolution=32)
    taps = {spec.name: torch.from_numpy(arrays[f"tap/{i:02}"]) for i, spec in enumerate(generator.tap_specs)}
    pixels = concatenate_taps(taps, tuple(taps), 32).permute(0, 2, 3, 1).reshape(1, 1024, -1)
    logits = interpreter.classifiers(pixels.expand(len(members), -1, -1))
    output = interpret_reference(interpreter, taps)
    score = output.uncertainty_map.flatten().sort(descending=True).values[: 1024 // 10].mean()
    got = {
        "logits": logits,
        "votes": logits.argmax(dim=2).T.reshape(32, 32, -1),
        "label": output.label[0],
        "js": output.uncertainty_map[0],
        "uncertainty_score": score,
    }
    assert got.keys() == expected.keys()
    for name, tensor in got.items():
        yield compare(folder.name, name, expected[name], tensor)


def stylegan1(path: Path, arrays: Arrays) -> tuple[AnyGenerator, Arrays]:
    """The generator, and the noise that stands beside the numbers by the names of our layers."""
    noise: Arrays = {}
    for name in arrays:
        if name.startswith("noise/"):
            _, block, layer, *_ = name.split(".")
            noise[f"b{block.split('x')[0]}.{layer}"] = arrays[name]
    return stylegan1_from_state_dict(read_state(path), mean_latent=arrays["avg_latent"]), noise


@torch.no_grad()
def walk(folder: Path) -> list[Row]:
    """Compare every array of a folder of reference cases.

    Raises:
        AssertionError: An array was compared with nothing.
    """
    rows: list[Row] = []
    for path in sorted(folder.glob("*.npz")):
        checkpoint = next((other for other in folder.glob(f"{path.stem}.p*") if other != path), None)
        if checkpoint is None:  # a case of another layout, which has a test of its own
            continue
        arrays = read_arrays(path)
        if "avg_latent" in arrays:
            generator, noise = stylegan1(checkpoint, arrays)
        else:
            generator, noise = load_generator(checkpoint), {}
        made = list(rows_of_generator(path.stem, generator, arrays, noise))
        seen = {row.array for row in made}
        left = [name for name in arrays if name not in seen and not name.startswith(GIVEN)]
        assert not left, f"{path.name} holds {left}, which nothing was compared with"
        if isinstance(generator, Generator) and any(array.dtype == np.float16 for array in arrays.values()):
            made += rows_of_half(path.stem, generator, arrays)
        classifiers = folder / "datasetgan_interpreter_32"
        if path.stem == "stylegan1_datasetgan_32" and classifiers.is_dir():
            made += rows_of_classifiers(classifiers, generator, arrays)
        rows += made
    return rows


def main() -> None:
    rows = walk(Path(sys.argv[1]))
    print(f"{'case':26} {'array':30} {'computed in':11} {'shape':20} {'largest':>9} {'error':>9}")
    for row in rows:
        shape = " x ".join(map(str, row.shape))
        print(f"{row.case:26} {row.array:30} {row.how:11} {shape:20} {row.largest:9.4f} {row.error:9.1e}")
    beyond = [row for row in rows if row.error > 1e-4]
    print(f"{len(rows)} comparisons, {len(beyond)} beyond 1e-4")


if __name__ == "__main__":
    main()
