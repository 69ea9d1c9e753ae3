"""torch's format before 1.6, which NVIDIA's pickles hold once for each tensor: five pickles, then raw storages."""

import struct
from collections.abc import Callable
from types import MappingProxyType

from labelmint_export.checkpoints.arrays import STORAGE_DTYPES, Storage, get_itemsize, make_storage
from labelmint_export.checkpoints.fields import show
from labelmint_export.checkpoints.limits import ADVICE, MAX_KEY_LENGTH, Budget
from labelmint_export.checkpoints.pickles import AllowedGlobal, AllowList, run_pickle
from labelmint_export.errors import CheckpointError

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001

STORAGE_GLOBALS: AllowList = MappingProxyType(
    {
        ("torch", name): AllowedGlobal(label=f"torch.{name}", storage_dtype=dtype)
        for name, dtype in STORAGE_DTYPES.items()
    }
)
"""torch's storage classes, which can only be mentioned."""


def refuse(problem: str) -> CheckpointError:
    """Make the error for a file that is not as torch writes it."""
    return CheckpointError(f"{problem}; {ADVICE}", field="storage")


def is_legacy(view: memoryview) -> bool:
    """Tell whether bytes begin with the magic number of the format, pickled by protocol 2 or later."""
    start = bytes(view[:24])
    number = start[11:] if start[2:3] == b"\x95" else start[2:]  # behind a frame's length from protocol 4 on
    return start[:1] == b"\x80" and number.startswith(b"\x8a\x0a" + MAGIC_NUMBER.to_bytes(10, "little") + b".")


def parse_storage_id(saved_id: object, length: int) -> tuple[str, str, int]:
    """Take a persistent id apart.

    Args:
        saved_id: "storage", the class, the key, the device, the number of elements, and in legacy files a view.
        length: How many values it should have.

    Returns:
        Element type, key and number of elements.

    Raises:
        CheckpointError: It is something else.
    """
    if type(saved_id) is not tuple or len(saved_id) != length or type(saved_id[0]) is not str:
        raise refuse(f"a reference to a storage is not a tuple of {length} values that begins with 'storage'")
    if saved_id[0] != "storage":
        raise refuse(f"a reference to a storage begins with {show(saved_id[0])}, expected 'storage'")
    kind, key, num_elements = saved_id[1], saved_id[2], saved_id[4]
    if not isinstance(kind, AllowedGlobal) or not kind.storage_dtype:
        raise refuse("a reference to a storage names no storage class")
    if type(key) is not str or len(key) > MAX_KEY_LENGTH or type(num_elements) is not int or num_elements < 0:
        raise refuse("a reference to a storage has no short string for its key, or a number of elements below 0")
    if length == 6 and saved_id[5] is not None:
        raise refuse(
            "a storage is a view of another one, as torch before 0.4 wrote; load and save it with a newer torch"
        )
    return kind.storage_dtype, key, num_elements


def load_storage(arguments: tuple[object, ...], budget: Budget) -> Storage:
    """Stand in for `torch.storage._load_from_bytes`, which would unpickle without any check.

    Raises:
        CheckpointError: The argument is not the bytes of one storage in the legacy format.
    """
    raw = arguments[0] if len(arguments) == 1 else None
    if not isinstance(raw, bytes | memoryview) or not is_legacy(memoryview(raw)):
        raise refuse("a storage is not in torch's legacy format, expected bytes with its magic number")
    # Only storage classes are allowed inside, so that legacy files cannot nest.
    storage = read_legacy(memoryview(raw), STORAGE_GLOBALS, budget)
    if not isinstance(storage, Storage):
        raise refuse(f"the bytes of a storage hold {type(storage).__name__}")
    return storage


def read_legacy(view: memoryview, allowed: AllowList, budget: Budget) -> object:
    """Read a whole legacy file.

    The file's main pickle makes tensors of storages whose bytes come behind it, and only it knows the storages' types.
    So it is run twice: first on storages without bytes, then on the real ones.

    Args:
        view: The file.
        allowed: What the names in its main pickle stand for.
        budget: Pays for it.

    Returns:
        The value of the main pickle.

    Raises:
        CheckpointError: The file is malformed, or of another version or byte order.
    """
    start = _check_header(view, budget)
    claims: dict[str, Storage] = {}

    def claim(saved_id: object) -> Storage:
        dtype, key, num_elements = parse_storage_id(saved_id, 6)
        storage = claims.setdefault(key, Storage(dtype, num_elements, None))
        if (storage.dtype, storage.num_elements) != (dtype, num_elements):
            raise refuse(f"storage {key[:40]!r} is claimed as {dtype} [{num_elements}] and as {storage.dtype}")
        return storage

    _, keys_start = run_pickle(view, start, allowed, budget, claim)
    keys, data_start = run_pickle(view, keys_start, {}, budget)
    if type(keys) is not list or not all(type(key) is str and len(key) <= MAX_KEY_LENGTH for key in keys):
        raise refuse("the list of storages is not a list of short strings")
    if sorted(keys) != sorted(claims):
        raise refuse("the list of storages is not that of the storages that the tensors use")
    storages = _read_storages(view, data_start, [(key, claims[key]) for key in keys], budget)
    value, _ = run_pickle(view, start, allowed, budget, _make_loader(storages))
    return value


def _make_loader(storages: dict[str, Storage]) -> Callable[[object], Storage]:
    return lambda saved_id: storages[parse_storage_id(saved_id, 6)[1]]


def _check_header(view: memoryview, budget: Budget) -> int:
    """Check magic number, version and byte order; return where the main pickle begins."""
    magic, position = run_pickle(view, 0, {}, budget)
    version, position = run_pickle(view, position, {}, budget)
    system, position = run_pickle(view, position, {}, budget)
    if type(magic) is not int or magic != MAGIC_NUMBER or type(version) is not int or version != PROTOCOL_VERSION:
        raise refuse(f"the file is of version {show(version)} of torch's legacy format, expected {PROTOCOL_VERSION}")
    if type(system) is not dict or system.get("little_endian") is not True:
        raise refuse("the file was written on a big-endian machine, expected a little-endian one; save it again on one")
    return position


def _read_storages(
    view: memoryview, position: int, claims: list[tuple[str, Storage]], budget: Budget
) -> dict[str, Storage]:
    """Read the raw storages: for each the number of its elements in 8 bytes, then the elements."""
    storages: dict[str, Storage] = {}
    for key, claimed in claims:
        if len(view) - position < 8:
            raise refuse(f"the file ends before storage {key[:40]!r}")
        num_elements = struct.unpack_from("<q", view, position)[0]
        position += 8
        length = num_elements * get_itemsize(claimed.dtype)
        if num_elements != claimed.num_elements or length > len(view) - position:
            raise refuse(
                f"storage {key[:40]!r} should have {claimed.num_elements} elements of {claimed.dtype}, its header says "
                f"{num_elements} and {len(view) - position} bytes are left"
            )
        storages[key] = make_storage(claimed.dtype, num_elements, view[position : position + length], budget)
        position += length
    if position != len(view):
        raise refuse(f"{len(view) - position} bytes are left behind the last storage, expected none")
    return storages
