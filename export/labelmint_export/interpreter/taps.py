"""Which features an interpreter looks at, by the names of layers or by the name of a paper's selection."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from labelmint_export.errors import TrainingError
from labelmint_export.generator import Backbone, TapSpec


def _layers(generator: Backbone) -> tuple[TapSpec, ...]:
    names = {tap.name for tap in generator.tap_specs}
    return tuple(spec for spec in generator.feature_specs if spec.name in names)


def _everything(generator: Backbone) -> tuple[TapSpec, ...]:
    return generator.feature_specs


class TapSet(NamedTuple):
    """A selection that has a name."""

    family: str | None
    """Backbone that it is for; None for all."""
    choose: Callable[[Backbone], tuple[TapSpec, ...]]
    """What is taken of a generator."""
    vote_rule: str
    """How the members of such interpreters decide where nobody says otherwise."""


ALL_LAYERS = "layers"
TAP_SETS: Mapping[str, TapSet] = MappingProxyType(
    {
        # The output of every layer.
        ALL_LAYERS: TapSet(None, _layers, "majority"),
        # Of each block the output of the second AdaIN and that of the convolution in front of it, as the program does.
        "datasetgan": TapSet("stylegan1", _layers, "majority"),
        # The constant input and the output of every styled convolution (Ling et al. 2021, "EditGAN").
        "editgan": TapSet("stylegan2", _everything, "mean_logits"),
    }
)
"""Selections by name."""


def select_taps(generator: Backbone, names: Sequence[str] | None) -> tuple[TapSpec, ...]:
    """Pick features, in the order of synthesis.

    Args:
        generator: Whose features they are.
        names: Names of layers, or one name of `TAP_SETS`; None takes the output of every layer.

    Returns:
        Name, channels and resolution of each, without margins.

    Raises:
        TrainingError: A name is unknown, or the selection is another backbone's.
    """
    names = [ALL_LAYERS] if names is None else names
    if len(names) == 1 and names[0] in TAP_SETS:
        chosen = TAP_SETS[names[0]]
        if chosen.family not in (None, generator.family):
            raise TrainingError(
                f"taps is {names[0]!r}, a selection for {chosen.family}, but the generator is a {generator.family}; "
                f"name layers, or {ALL_LAYERS!r} for all of them",
                field="taps",
            )
        return chosen.choose(generator)
    known = {spec.name for spec in generator.feature_specs}
    for name in names:
        if name not in known:
            raise TrainingError(
                f"tap {name!r} is unknown, expected some of {sorted(known)}, or one of {', '.join(TAP_SETS)}",
                field="taps",
            )
    return tuple(spec for spec in generator.feature_specs if spec.name in names)
