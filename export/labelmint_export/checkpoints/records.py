"""What is read from foreign checkpoints: plain records of names, numbers and arrays. Nothing in them can run."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from labelmint_export.checkpoints.limits import ADVICE, MAX_DEPTH, MAX_KEY_LENGTH, MAX_TENSORS, MAX_VALUES
from labelmint_export.errors import CheckpointError

Array: TypeAlias = npt.NDArray[np.generic]
"""bool, intN, uintN or floatN of any shape and any strides, read-only; bfloat16 was made float32."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModuleRecord:
    """A module as NVIDIA's programs pickle it, without its source code.

    Attributes:
        class_name: Name of the class, such as `SynthesisNetwork`.
        module: Name of the Python module whose function was to rebuild it.
        parameters: Own parameters by name; those that are None are left out.
        buffers: Own buffers by name, non-persistent ones too; those that are None are left out.
        modules: Submodules by name; those that are None are left out.
        attributes: The other public attributes, such as `z_dim` and `num_ws`.
        init_args: Positional arguments it was made with.
        init_kwargs: Keyword arguments it was made with.
    """

    class_name: str
    module: str
    parameters: dict[str, Array] = field(default_factory=dict)
    buffers: dict[str, Array] = field(default_factory=dict)
    modules: dict[str, "ModuleRecord"] = field(default_factory=dict)
    attributes: dict[str, object] = field(default_factory=dict)
    init_args: tuple[object, ...] = ()
    init_kwargs: dict[str, object] = field(default_factory=dict)

    def tensors(self) -> dict[str, Array]:
        """Collect parameters and buffers under their dotted names, as in a state dict.

        Raises:
            CheckpointError: There are more than any network has, or a name is longer than any is.
        """
        found = {**self.parameters, **self.buffers}
        for name, module in self.modules.items():
            _add_inner(found, f"{name}.", module.tensors())
        return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TflibNetwork:
    """A network of the TensorFlow StyleGAN programs, without its source code.

    Attributes:
        name: Name such as `Gs`.
        version: Version of the pickled form, 2 to 5.
        static_kwargs: Keyword arguments it was built with.
        build_func_name: Name of the function that built it, such as `G_style`.
        variables: Own variables by name, such as `G_synthesis/4x4/Const/const`. TensorFlow scalars are float32 [].
        components: Networks it is made of, such as `mapping` and `synthesis`.
    """

    name: str
    version: int
    static_kwargs: dict[str, object]
    build_func_name: str
    variables: dict[str, Array]
    components: dict[str, "TflibNetwork"] = field(default_factory=dict)

    def tensors(self) -> dict[str, Array]:
        """Collect the variables, those of a component under `<component>/<name>`.

        Raises:
            CheckpointError: There are more than any network has, or a name is longer than any is.
        """
        found = dict(self.variables)
        for name, component in self.components.items():
            _add_inner(found, f"{name}/", component.tensors())
        return found


def _add_inner(found: dict[str, Array], prefix: str, inner: Mapping[str, Array]) -> None:
    """Add what is inside, bounded at each level: a part that is shared is found again under each of its names."""
    if len(found) + len(inner) > MAX_TENSORS:
        raise CheckpointError(
            f"a network holds more than {MAX_TENSORS} tensors, expected fewer than 1,000; {ADVICE}", field="module"
        )
    longest = len(prefix) + max(map(len, inner), default=0)
    if longest > MAX_KEY_LENGTH:
        raise CheckpointError(
            f"the name of a tensor has {longest} characters, expected at most {MAX_KEY_LENGTH}; {ADVICE}",
            field="module",
        )
    found.update({prefix + name: array for name, array in inner.items()})


def check_plain(root: object, max_bytes: int) -> None:
    """Check that a value consists of records, builtin containers, scalars and arrays, and is a tree of bearable size.

    Sharing is allowed, but a shared value counts as often as it can be reached, so that whoever walks the value later
    meets no surprise. Works without recursion: nothing is known about the depth before.

    Args:
        root: The value.
        max_bytes: Size of all its arrays and strings that is bearable.

    Raises:
        CheckpointError: Another kind of value, a cycle, or a tree that is too deep or too large.
    """
    sizes: dict[int, tuple[int, int, int]] = {}  # id -> values, bytes, depth
    open_ids: set[int] = set()
    pending: list[object] = [root]
    while pending:
        value = pending[-1]
        if id(value) in sizes:
            pending.pop()
            continue
        children = list(_children(value))
        waiting = [child for child in children if not _is_leaf(child) and id(child) not in sizes]
        if not waiting:
            sizes[id(value)] = _sum_sizes(value, children, sizes, max_bytes)
            open_ids.discard(id(value))
            pending.pop()
        elif id(value) in open_ids:
            raise CheckpointError(f"the checkpoint contains itself, expected a tree; {ADVICE}", field="pickle")
        else:
            open_ids.add(id(value))
            pending.extend(waiting)
            if len(open_ids) > MAX_DEPTH:
                _refuse_depth()


_LEAVES = {type(None), bool, int, float, str, bytes, memoryview, np.ndarray}
_CONTAINERS = {list, tuple, dict, set, frozenset}


def _is_leaf(value: object) -> bool:
    return type(value) in _LEAVES or (not value and type(value) in _CONTAINERS)


def _children(value: object) -> Iterator[object]:
    """Yield what is directly inside; keys are scalars, which the pickle machine has checked."""
    if isinstance(value, list | tuple | set | frozenset):
        yield from value
    elif type(value) is dict:
        yield from value.values()
    elif isinstance(value, ModuleRecord):
        yield from (value.parameters, value.buffers, value.modules, value.attributes, value.init_args)
        yield value.init_kwargs
    elif isinstance(value, TflibNetwork):
        yield from (value.static_kwargs, value.variables, value.components)
    elif not (type(value) in _LEAVES or isinstance(value, np.dtype)):
        raise CheckpointError(
            f"the checkpoint holds a value of type {type(value).__name__} that is no part of a snapshot; {ADVICE}",
            field="pickle",
        )


def _leaf_bytes(value: object) -> int:
    if isinstance(value, str | bytes):
        return len(value)
    return value.nbytes if isinstance(value, np.ndarray | memoryview) else 0


def _sum_sizes(
    value: object, children: list[object], sizes: dict[int, tuple[int, int, int]], max_bytes: int
) -> tuple[int, int, int]:
    num_values, num_bytes, depth = 1, _leaf_bytes(value), 0
    if type(value) is dict:
        num_bytes += sum(len(key) for key in value if isinstance(key, str))
    for child in children:
        more_values, more_bytes, inner_depth = (1, _leaf_bytes(child), 0) if _is_leaf(child) else sizes[id(child)]
        num_values += more_values
        num_bytes += more_bytes
        depth = max(depth, inner_depth + 1)
    if num_values > MAX_VALUES or num_bytes > max_bytes:
        raise CheckpointError(
            f"the checkpoint unfolds to {num_values} values and {num_bytes} bytes, expected at most "
            f"{MAX_VALUES} and {max_bytes}; {ADVICE}",
            field="pickle",
        )
    if depth > MAX_DEPTH:
        _refuse_depth()
    return num_values, num_bytes, depth


def _refuse_depth() -> None:
    raise CheckpointError(
        f"the checkpoint nests more than {MAX_DEPTH} containers, expected fewer than 20; {ADVICE}", field="pickle"
    )
