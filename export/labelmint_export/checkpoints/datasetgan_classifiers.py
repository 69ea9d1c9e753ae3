"""Interpreters out of the state dicts of DatasetGAN's pixel classifiers.

Legend: M members, D features, h1 and h2 hidden widths, O classes.
"""

from collections.abc import Sequence

import torch

from labelmint_export.checkpoints.state_dicts import StateDict, StateDictReader
from labelmint_export.errors import CheckpointError, TrainingError
from labelmint_export.generator import TapSpec
from labelmint_export.interpreter.ensemble import Interpreter, InterpreterConfig, PixelEnsemble

LAYER_NAMES = {
    "linear1.weight": "layers.0.weight",
    "linear1.bias": "layers.0.bias",
    "norm1.scale": "layers.2.weight",
    "norm1.shift": "layers.2.bias",
    "norm1.mean": "layers.2.running_mean",
    "norm1.variance": "layers.2.running_var",
    "linear2.weight": "layers.3.weight",
    "linear2.bias": "layers.3.bias",
    "norm2.scale": "layers.5.weight",
    "norm2.shift": "layers.5.bias",
    "norm2.mean": "layers.5.running_mean",
    "norm2.variance": "layers.5.running_var",
    "linear3.weight": "layers.6.weight",
    "linear3.bias": "layers.6.bias",
}
UNUSED_LAYER_NAMES = ("layers.2.num_batches_tracked", "layers.5.num_batches_tracked")


def ensemble_from_state_dicts(members: Sequence[StateDict]) -> PixelEnsemble:
    """Make an ensemble of DatasetGAN's pixel classifiers; batch normalisations stay what they are.

    Args:
        members: The `model_state_dict` of each `model_{i}.pth`: `module.layers.{0,2,3,5,6}.*` -> array, with or without
            `module.`.

    Returns:
        The ensemble in evaluation mode, float32, on the CPU, without gradients.

    Raises:
        CheckpointError: There is no member, or an array is missing, left over, of another shape than in the first
            member or not finite; `field` names it.
    """
    if not members:
        raise CheckpointError("members is empty, expected the state dict of at least one classifier", field="members")
    readers = [_member_reader(member, index) for index, member in enumerate(members)]
    prefixes = ["module." if any(key.startswith("module.") for key in member) else "" for member in members]
    h1, features = readers[0].shape(prefixes[0] + "layers.0.weight", 2)
    h2, _ = readers[0].shape(prefixes[0] + "layers.3.weight", 2)
    outputs, _ = readers[0].shape(prefixes[0] + "layers.6.weight", 2)
    with torch.device("meta"):
        described = PixelEnsemble(1, features, (h1, h2), outputs)
    shapes = {name: tuple(tensor.shape[1:]) for name, tensor in described.state_dict().items()}
    for reader, prefix in zip(readers, prefixes, strict=True):
        for name, shape in shapes.items():
            key = prefix + LAYER_NAMES[name]
            reader.check(key, [shape])
            if name.endswith(".variance") and bool((reader.tensor(key, shape) < 0).any()):
                reader.refuse(key, "holds negative values", "variances")
        known = {prefix + name for name in (*LAYER_NAMES.values(), *UNUSED_LAYER_NAMES)}
        for key in reader.tensors:
            if key not in known:
                reader.refuse(key, "has no place", "only what Linear, ReLU, BN, Linear, ReLU, BN, Linear need")
    ensemble = PixelEnsemble(len(members), features, (h1, h2), outputs)
    ensemble.load_state_dict(
        {
            name: torch.stack(
                [
                    reader.tensor(prefix + LAYER_NAMES[name], shape)
                    for reader, prefix in zip(readers, prefixes, strict=True)
                ]
            )
            for name, shape in shapes.items()
        }
    )
    return ensemble.eval().requires_grad_(False)


def interpreter_from_state_dicts(
    members: Sequence[StateDict], *, taps: tuple[TapSpec, ...], label_resolution: int
) -> Interpreter:
    """Make an interpreter of masks out of DatasetGAN's pixel classifiers.

    Args:
        members: The `model_state_dict` of each `model_{i}.pth`.
        taps: In the order in which their channels were concatenated; a StyleGAN1 generator's `tap_specs`.
        label_resolution: Side of the masks, pixels.

    Returns:
        The interpreter in evaluation mode, without keypoints.

    Raises:
        CheckpointError: See `ensemble_from_state_dicts`; or the classifiers take another number of features than the
            taps have.
    """
    ensemble = ensemble_from_state_dicts(members)
    num_members, h1, features = ensemble.linear1.weight.shape
    _, num_classes, h2 = ensemble.linear3.weight.shape
    key = next(key for key in members[0] if key.endswith("layers.0.weight"))
    available = sum(tap.channels for tap in taps)
    if features != available:
        advice = "give the taps of the generator that the classifiers were trained on"
        reader = StateDictReader(members[0], advice, "model_0.")
        reader.refuse(key, f"takes {features} features", f"the {available} of the taps")
    try:
        config = InterpreterConfig(
            taps=taps,
            label_resolution=label_resolution,
            num_classes=num_classes,
            num_members=num_members,
            hidden_widths=(h1, h2),
        )
    except TrainingError as error:
        raise CheckpointError(f"the classifiers make no interpreter: {error}", field=error.field) from error
    interpreter = Interpreter(config).eval().requires_grad_(False)
    interpreter.classifiers.load_state_dict(ensemble.state_dict())
    return interpreter


def _member_reader(member: StateDict, index: int) -> StateDictReader:
    advice = "give the model_state_dict of a pixel classifier as DatasetGAN's program writes it"
    return StateDictReader(member, advice, f"model_{index}.")
