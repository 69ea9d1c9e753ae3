"""Checkpoint files of other programs -> plain records. No code from a file ever runs."""

import gc
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labelmint_export.checkpoints.allowed import SNAPSHOT_GLOBALS
from labelmint_export.checkpoints.arrays import Storage, make_storage
from labelmint_export.checkpoints.legacy import is_legacy, parse_storage_id, read_legacy
from labelmint_export.checkpoints.limits import ADVICE, MAX_FILE_BYTES, Budget
from labelmint_export.checkpoints.net import refusing_malformed
from labelmint_export.checkpoints.pickles import run_pickle
from labelmint_export.checkpoints.records import check_plain
from labelmint_export.checkpoints.zips import StoredArchive
from labelmint_export.errors import CheckpointError

MAX_ARCHIVE_VERSION = 10
"""The newest version of torch's archives that torch itself knows."""


def read_checkpoint(path: Path) -> object:
    """Read a checkpoint file: torch's `.pt` in both formats, NVIDIA's `.pkl`, TensorFlow StyleGAN's `.pkl`.

    The format is recognised by the content. Tensors become read-only arrays that share the file's bytes: copy what is
    needed of a large file (`torch.tensor(array)`) and let the rest go. The file is mapped: it must not change.

    Args:
        path: The file.

    Returns:
        What the program saved: dicts, lists, tuples, sets, scalars, strings, bytes (read-only memoryviews if large),
        arrays, `ModuleRecord` and `TflibNetwork`. OrderedDict, EasyDict and argparse.Namespace are dicts.

    Raises:
        CheckpointError: The file is missing, malformed or too large, or asks for what snapshots do not need.
    """
    with refusing_malformed(path, "pickle"), _without_collector():
        mapped = _map_file(path)
        budget = Budget.for_file(len(mapped))
        value = _read(memoryview(mapped), budget)
        check_plain(value, budget.reachable_bytes)
        if hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)  # checksums have brought all of it into memory; little is needed
    return value


@contextmanager
def _without_collector() -> Iterator[None]:
    """Pause the search for cycles: at each of a pickle's many containers it would go through all of torch's objects."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _map_file(path: Path) -> mmap.mmap:
    """Map a file, so that optimizers and discriminators, which nobody asks for, take no memory."""
    if path.is_dir():
        raise CheckpointError("this is a folder, expected a file; give the path of a .pt or .pkl file", field="path")
    if not path.is_file():
        raise CheckpointError("there is no such file; give the path of a .pt or .pkl file", field="path")
    size = path.stat().st_size
    if size == 0:
        raise CheckpointError("the file is empty; get it again from where it was published", field="path")
    if size > MAX_FILE_BYTES:
        raise CheckpointError(
            f"the file has {size} bytes, expected at most {MAX_FILE_BYTES}; save the generator alone, without "
            "optimizers",
            field="path",
        )
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)


def _read(view: memoryview, budget: Budget) -> object:
    start = bytes(view[:4])
    if start == b"PK\x03\x04":
        return _read_archive(StoredArchive(view), budget)
    if is_legacy(view):
        return read_legacy(view, SNAPSHOT_GLOBALS, budget)
    if start[:1] == b"\x80":
        value, end = run_pickle(view, 0, SNAPSHOT_GLOBALS, budget)
        if end != len(view):
            raise CheckpointError(f"{len(view) - end} bytes are left behind the pickle; {ADVICE}", field="pickle")
        return value
    if bytes(view[257:262]) == b"ustar":
        raise CheckpointError("the file is a tar archive of torch 0.1; save it again with a newer torch", field="path")
    raise CheckpointError(
        f"the file begins with {start!r}, expected a torch archive, a torch legacy file or a pickle of protocol 2 to "
        "5; give a .pt or .pkl file of StyleGAN",
        field="path",
    )


def _read_archive(archive: StoredArchive, budget: Budget) -> object:
    pickle_name = _find_pickle(archive)
    root = pickle_name.removesuffix("data.pkl")
    _check_header(archive, root)
    storages: dict[str, Storage] = {}

    def load(saved_id: object) -> Storage:
        dtype, key, num_elements = parse_storage_id(saved_id, 5)
        if key not in storages:
            storages[key] = make_storage(dtype, num_elements, archive.read(f"{root}data/{key}"), budget)
        storage = storages[key]
        if (storage.dtype, storage.num_elements) != (dtype, num_elements):
            raise CheckpointError(
                f"storage {key[:40]!r} is claimed as {dtype} [{num_elements}] and as {storage.dtype} "
                f"[{storage.num_elements}]; {ADVICE}",
                field="storage",
            )
        return storage

    view = archive.read(pickle_name)
    value, end = run_pickle(view, 0, SNAPSHOT_GLOBALS, budget, load)
    if end != len(view):
        raise CheckpointError(f"{len(view) - end} bytes are left behind the pickle; {ADVICE}", field="pickle")
    return value


def _find_pickle(archive: StoredArchive) -> str:
    """Find the main pickle: `data.pkl` in the one folder at the top."""
    roots = {name.split("/", 1)[0] for name in archive.names}
    names = [name for name in archive.names if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(names) != 1 or len(roots) != 1:
        raise CheckpointError(
            f"the archive has {len(names)} main pickles in {len(roots)} folders, expected one; give a file that "
            "torch.save wrote",
            field="archive",
        )
    if any(name.split("/")[1] in {"code", "constants.pkl"} for name in archive.names):
        raise CheckpointError(
            "the archive is a TorchScript program, which is not run; save the module's state_dict() instead",
            field="archive",
        )
    return names[0]


def _check_header(archive: StoredArchive, root: str) -> None:
    """Check version and byte order; old versions of torch wrote no byte order."""
    names = set(archive.names)
    order = bytes(archive.read(f"{root}byteorder")[:16]) if f"{root}byteorder" in names else b"little"
    if order != b"little":
        raise CheckpointError(
            f"the archive's byte order is {order!r}, expected b'little'; save it again on a little-endian machine",
            field="archive",
        )
    version = bytes(archive.read(f"{root}version")[:16]).strip()
    if not version.isdigit() or int(version) > MAX_ARCHIVE_VERSION:
        raise CheckpointError(
            f"the archive is of version {version!r}, expected at most {MAX_ARCHIVE_VERSION}; save it with an "
            "older torch",
            field="archive",
        )
