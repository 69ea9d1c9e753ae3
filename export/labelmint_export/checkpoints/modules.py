"""Pickled modules -> records. The source code that the pickles carry is dropped unread."""

import numpy as np

from labelmint_export.checkpoints.fields import show
from labelmint_export.checkpoints.limits import ADVICE, MAX_KEY_LENGTH, Budget
from labelmint_export.checkpoints.records import Array, ModuleRecord, TflibNetwork
from labelmint_export.errors import CheckpointError

PERSISTENCE_MODULE = "torch_utils.persistence"
PERSISTENCE_VERSION = 6
TFLIB_VERSIONS = (2, 3, 4, 5)
"""Of StyleGAN (2, 3), StyleGAN2 (4) and StyleGAN2-ADA (5)."""


class PendingNetwork:
    """A TensorFlow network whose state comes later in the pickle."""


def _refuse(problem: str) -> CheckpointError:
    return CheckpointError(f"{problem}; {ADVICE}", field="module")


def _get_text(record: dict[str, object], key: str) -> str:
    value = record.get(key)
    if type(value) is not str:
        raise _refuse(f"a pickled module has {type(value).__name__} for {key}, expected str")
    return value


def _get_names(value: object, what: str, budget: Budget) -> dict[str, object]:
    """Copy a dict with names for keys, so that the rest of the pickle cannot change it."""
    if type(value) is not dict or not all(type(key) is str for key in value):
        raise _refuse(f"a pickled module has {type(value).__name__} for {what}, expected a dict with names for keys")
    budget.spend_operations(len(value))
    return dict(value)


def rebuild_persistent(arguments: tuple[object, ...], budget: Budget) -> ModuleRecord:
    """Stand in for `torch_utils.persistence._reconstruct_persistent_obj`, which would execute their source.

    Args:
        arguments: One dict with type, version, module_src, class_name and state.
        budget: Pays for it.

    Raises:
        CheckpointError: The dict is of another version or malformed.
    """
    meta = _get_names(arguments[0] if len(arguments) == 1 else None, "its description", budget)
    kind, version = meta.get("type"), meta.get("version")
    if type(kind) is not str or kind != "class" or type(version) is not int or version != PERSISTENCE_VERSION:
        raise CheckpointError(
            f"a pickled module is of version {show(version)}, expected a class of version {PERSISTENCE_VERSION}; "
            "save the snapshot with stylegan2-ada-pytorch or stylegan3",
            field="module",
        )
    state = _get_names(meta.get("state"), "its state", budget)
    init_args = state.get("_init_args", ())
    if type(init_args) is not tuple:
        raise _refuse(f"a pickled module has {type(init_args).__name__} for _init_args, expected tuple")
    return ModuleRecord(
        class_name=_get_text(meta, "class_name"),
        module=PERSISTENCE_MODULE,
        parameters=_get_arrays(state, "_parameters", budget),
        buffers=_get_arrays(state, "_buffers", budget),
        modules=_get_modules(state, budget),
        attributes={name: value for name, value in state.items() if not name.startswith("_")},
        init_args=init_args,
        init_kwargs=_get_names(state.get("_init_kwargs", {}), "_init_kwargs", budget),
    )


def _get_members(state: dict[str, object], key: str, budget: Budget) -> dict[str, object]:
    """Copy a dict of parameters, buffers or modules without those that are None."""
    members = _get_names(state.get(key, {}), key, budget)
    for name in members:
        if not name or "." in name:
            raise _refuse(f"a pickled module has {name[:40]!r} in {key}, expected a name without dots")
    return {name: member for name, member in members.items() if member is not None}


def _get_arrays(state: dict[str, object], key: str, budget: Budget) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for name, member in _get_members(state, key, budget).items():
        if not isinstance(member, np.ndarray):
            raise _refuse(f"a pickled module has {type(member).__name__} for {name[:40]!r} in {key}, expected a tensor")
        arrays[name] = member
    return arrays


def _get_modules(state: dict[str, object], budget: Budget) -> dict[str, ModuleRecord]:
    modules: dict[str, ModuleRecord] = {}
    for name, member in _get_members(state, "_modules", budget).items():
        if not isinstance(member, ModuleRecord):
            raise _refuse(f"a pickled module has {type(member).__name__} for {name[:40]!r}, expected a module")
        modules[name] = member
    return modules


# --- TensorFlow -------------------------------------------------------------------------------------------------------


def make_pending_network(arguments: tuple[object, ...], budget: Budget) -> PendingNetwork:
    """Stand in for `dnnlib.tflib.network.Network` before it gets its state."""
    del budget
    if arguments:
        raise _refuse(f"a TensorFlow network is made of {len(arguments)} values, expected none")
    return PendingNetwork()


def build_network(pending: object, state: object, budget: Budget) -> TflibNetwork:
    """Stand in for `Network.__setstate__`, which would execute the source in the state.

    Raises:
        CheckpointError: The state is of another version or malformed.
    """
    del pending
    record = _get_names(state, "its state", budget)
    version = record.get("version")
    if type(version) is not int or version not in TFLIB_VERSIONS:
        raise CheckpointError(
            f"a TensorFlow network is of version {show(version)}, expected one of {TFLIB_VERSIONS}; save it "
            "again with the StyleGAN programs",
            field="module",
        )
    components: dict[str, TflibNetwork] = {}
    for name, component in _get_names(record.get("components", {}), "components", budget).items():
        if not isinstance(component, TflibNetwork):
            raise _refuse(f"a TensorFlow network has {type(component).__name__} for {name[:40]!r}, expected a network")
        components[name] = component
    return TflibNetwork(
        name=_get_text(record, "name"),
        version=version,
        static_kwargs=_get_names(record.get("static_kwargs", {}), "static_kwargs", budget),
        build_func_name=_get_text(record, "build_func_name"),
        variables=_get_variables(record.get("variables"), budget),
        components=components,
    )


def _get_variables(pairs: object, budget: Budget) -> dict[str, Array]:
    if type(pairs) is not list:
        raise _refuse(f"a TensorFlow network has {type(pairs).__name__} for variables, expected a list of pairs")
    budget.spend_operations(len(pairs))
    variables: dict[str, Array] = {}
    for pair in pairs:
        if type(pair) is not tuple or len(pair) != 2 or type(pair[0]) is not str or len(pair[0]) > MAX_KEY_LENGTH:
            raise _refuse("a TensorFlow network has variables that are no pairs of a name and an array")
        name, value = pair
        if name in variables:
            raise _refuse(f"a TensorFlow network has two variables of the name {show(name)}")
        if type(value) in {bool, int, float}:  # a numpy scalar, see make_scalar
            value = np.asarray(value, np.float32)
            value.flags.writeable = False
        if not isinstance(value, np.ndarray):
            raise _refuse(f"a TensorFlow network has {type(value).__name__} for {name[:40]!r}, expected an array")
        variables[name] = value
    return variables
