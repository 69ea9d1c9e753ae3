"""The names that a snapshot's pickle may mention, and what stands in for each. Everything else is refused.

What stand-ins are given may be anything that a pickle can make: tuples nested so deeply that hashing one overflows the
stack, or shared so often that printing one takes forever. So types come first; only then is a value compared, and only
`fields.show` prints one.
"""

from types import MappingProxyType

from labelmint_export.checkpoints.arrays import (
    build_array,
    build_dtype,
    make_array,
    make_dtype,
    make_pending_array,
    make_scalar,
    rebuild_parameter,
    rebuild_tensor,
)
from labelmint_export.checkpoints.fields import show
from labelmint_export.checkpoints.legacy import STORAGE_GLOBALS, load_storage
from labelmint_export.checkpoints.limits import ADVICE, MAX_STRING_BYTES, Budget
from labelmint_export.checkpoints.modules import (
    PERSISTENCE_MODULE,
    build_network,
    make_pending_network,
    rebuild_persistent,
)
from labelmint_export.checkpoints.pickles import AllowedGlobal, AllowList, is_key
from labelmint_export.errors import CheckpointError


def _refuse(problem: str) -> CheckpointError:
    return CheckpointError(f"{problem}; {ADVICE}", field="pickle")


def _make_dict(arguments: tuple[object, ...], budget: Budget) -> dict[object, object]:
    """Stand in for OrderedDict: empty, or of one list of pairs, as Python 2 writes it."""
    if not arguments:
        return {}
    if len(arguments) != 1 or type(arguments[0]) is not list:
        raise _refuse("a dict is made of something else than a list of pairs")
    budget.spend_operations(len(arguments[0]))
    made: dict[object, object] = {}
    for pair in arguments[0]:
        if type(pair) not in {list, tuple} or len(pair) != 2 or not is_key(pair[0]):
            raise _refuse("a dict is made of something else than pairs of a name and a value")
        made[pair[0]] = pair[1]
    return made


def _make_empty_dict(arguments: tuple[object, ...], budget: Budget) -> dict[object, object]:
    del budget
    if arguments:
        raise _refuse(f"an empty record is made of {len(arguments)} values, expected none")
    return {}


def _ignore_attributes(target: object, state: object, budget: Budget) -> object:
    """Drop what was attached to a dict: torch's `_metadata` of a state dict."""
    del budget
    if type(state) is not dict and state is not None:
        raise _refuse(f"a dict has attributes of type {type(state).__name__}, expected dict")
    return target


def _fill_dict(target: object, state: object, budget: Budget) -> object:
    """Put a namespace's attributes into the dict that stands for it."""
    if type(target) is not dict or type(state) is not dict:
        raise _refuse(f"a namespace has a state of type {type(state).__name__}, expected dict")
    budget.spend_operations(len(state))
    target.update(state)
    return target


def _make_set(arguments: tuple[object, ...], budget: Budget) -> set[object]:
    """Stand in for set, which protocols before 4 make of a list."""
    members = arguments[0] if len(arguments) == 1 else [] if not arguments else None
    if type(members) is not list or not all(map(is_key, members)):
        raise _refuse("a set is made of something else than a list of names and integers")
    budget.spend_operations(len(members))
    return set(members)


def _encode(arguments: tuple[object, ...], budget: Budget) -> bytes:
    """Stand in for `_codecs.encode`, by which Python 3 writes bytes in protocol 2."""
    if len(arguments) != 2 or type(arguments[0]) is not str or type(arguments[1]) is not str:
        raise _refuse("bytes are made of something else than a string and its encoding")
    if arguments[1] not in ("latin1", "latin-1"):
        raise _refuse(f"bytes are made of a string in {show(arguments[1])}, expected 'latin1'")
    if len(arguments[0]) > MAX_STRING_BYTES:
        raise _refuse(f"bytes are made of a string of {len(arguments[0])} characters")
    budget.spend_bytes(len(arguments[0]))
    return arguments[0].encode("latin-1")


def _make_device(arguments: tuple[object, ...], budget: Budget) -> str:
    """Stand in for `torch.device`: its name, such as `cuda:0`."""
    del budget
    if len(arguments) not in {1, 2} or type(arguments[0]) is not str or len(arguments[0]) > 40:
        raise _refuse("a device is made of something else than its type and its index")
    if len(arguments) == 1:
        return arguments[0]
    if type(arguments[1]) is not int or not 0 <= arguments[1] < 1024:
        raise _refuse("a device has an index that is not an integer from 0 to 1023")
    return f"{arguments[0]}:{arguments[1]}"


_SET = AllowedGlobal(label="set", call=_make_set)
_EASY_DICT = AllowedGlobal(label="EasyDict", call=_make_empty_dict, can_be_new=True, build=_ignore_attributes)
_NUMPY_CORE = {
    "_reconstruct": AllowedGlobal(label="numpy._reconstruct", call=make_pending_array, build=build_array),
    "scalar": AllowedGlobal(label="numpy.scalar", call=make_scalar),
}

_FROM_BUFFER = AllowedGlobal(label="numpy._frombuffer", call=make_array)

SNAPSHOT_GLOBALS: AllowList = MappingProxyType(
    {
        **STORAGE_GLOBALS,
        **{
            (module, name): stand_in
            for module in ("numpy.core.multiarray", "numpy._core.multiarray")
            for name, stand_in in _NUMPY_CORE.items()
        },
        ("numpy.core.numeric", "_frombuffer"): _FROM_BUFFER,
        ("numpy._core.numeric", "_frombuffer"): _FROM_BUFFER,
        ("numpy", "dtype"): AllowedGlobal(label="numpy.dtype", call=make_dtype, build=build_dtype),
        ("numpy", "ndarray"): AllowedGlobal(label="numpy.ndarray"),
        ("torch._utils", "_rebuild_tensor_v2"): AllowedGlobal(label="_rebuild_tensor_v2", call=rebuild_tensor),
        ("torch._utils", "_rebuild_parameter"): AllowedGlobal(label="_rebuild_parameter", call=rebuild_parameter),
        ("torch.storage", "_load_from_bytes"): AllowedGlobal(label="_load_from_bytes", call=load_storage),
        ("torch", "device"): AllowedGlobal(label="torch.device", call=_make_device),
        (PERSISTENCE_MODULE, "_reconstruct_persistent_obj"): AllowedGlobal(
            label="_reconstruct_persistent_obj", call=rebuild_persistent
        ),
        ("dnnlib.util", "EasyDict"): _EASY_DICT,
        ("dnnlib", "EasyDict"): _EASY_DICT,
        ("dnnlib.tflib.network", "Network"): AllowedGlobal(
            label="Network", call=make_pending_network, can_be_new=True, build=build_network
        ),
        ("collections", "OrderedDict"): AllowedGlobal(
            label="OrderedDict", call=_make_dict, can_be_new=True, build=_ignore_attributes
        ),
        ("argparse", "Namespace"): AllowedGlobal(
            label="Namespace", call=_make_empty_dict, can_be_new=True, build=_fill_dict
        ),
        ("builtins", "set"): _SET,
        ("__builtin__", "set"): _SET,
        ("_codecs", "encode"): AllowedGlobal(label="_codecs.encode", call=_encode),
    }
)
"""All names that are allowed, by module and name."""
