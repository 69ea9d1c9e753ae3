"""The zip form of torch's files: stored entries, each once, none overlapping.

A reader of its own, because Python's zipfile believes a central directory of any size and inflates what it says. Here
every number is compared with the bytes that are there, and nothing is copied.
"""

import struct
import zlib
from dataclasses import dataclass
from itertools import pairwise

from labelmint_export.checkpoints.limits import ADVICE, MAX_KEY_LENGTH, MAX_ZIP_ENTRIES
from labelmint_export.errors import CheckpointError

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_ZIP64_EXTRA = 1
_UNKNOWN_32 = 0xFFFFFFFF
_ENCRYPTED = 0x41
_SIZES_FOLLOW = 0x08


def refuse(problem: str) -> CheckpointError:
    """Make the error for an archive that is not as torch writes it."""
    return CheckpointError(f"{problem}; {ADVICE}", field="archive")


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file inside the archive: where its header lies, and what the central directory says of it."""

    name: str
    header: int
    size: int
    crc: int


class StoredArchive:
    """A zip archive whose entries are stored as they are.

    Args:
        view: The whole archive.

    Raises:
        CheckpointError: It is malformed, or has what torch never writes: compression, encryption, duplicates, overlaps.
    """

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._checked: dict[str, memoryview] = {}
        entries, end = _read_directory(view)
        self._places: dict[str, tuple[int, _Entry]] = {}
        for entry in entries:
            if entry.name in self._places:
                raise refuse(f"the archive holds {entry.name[:80]!r} twice")
            self._places[entry.name] = (_find_data(view, entry, end), entry)
        spans = sorted((entry.header, start + entry.size) for start, entry in self._places.values())
        for before, after in pairwise(spans):
            if before[1] > after[0]:
                raise refuse("entries of the archive overlap")

    @property
    def names(self) -> list[str]:
        """The names of the entries."""
        return list(self._places)

    def read(self, name: str) -> memoryview:
        """Get an entry's bytes, without copying them.

        Raises:
            CheckpointError: There is no such entry, or its checksum does not fit.
        """
        if name not in self._places:
            raise refuse(f"the archive has no entry {name[:80]!r}")
        if name not in self._checked:
            start, entry = self._places[name]
            raw = self._view[start : start + entry.size]
            if zlib.crc32(raw) != entry.crc:
                raise refuse(f"the checksum of {name[:80]!r} in the archive does not fit its bytes")
            self._checked[name] = raw
        return self._checked[name]


def _unpack(layout: struct.Struct, view: memoryview, position: int, signature: bytes) -> tuple[int, ...]:
    """Unpack one of the archive's headers and check its signature, which is left out of what is returned."""
    if not 0 <= position <= len(view) - layout.size:
        raise refuse(f"the archive ends early: a header expected at byte {position} of {len(view)}")
    found, *fields = layout.unpack_from(view, position)
    if found != signature:
        raise refuse(f"the archive has no header {signature!r} at byte {position}")
    return tuple(fields)


def _read_directory(view: memoryview) -> tuple[list[_Entry], int]:
    """Read the central directory; return the entries and where it begins."""
    position = len(view) - _END.size
    disk, _, _, count, size, start, comment = _unpack(_END, view, position, b"PK\x05\x06")
    if bytes(view[max(position - _END64_LOCATOR.size, 0) :][:4]) == b"PK\x06\x07":
        locator = _unpack(_END64_LOCATOR, view, position - _END64_LOCATOR.size, b"PK\x06\x07")
        position = locator[1]
        _, _, _, disk, _, _, count, size, start = _unpack(_END64, view, position, b"PK\x06\x06")
    if disk or comment or start + size != position:
        raise refuse("the archive's directory does not end where its end is announced, or has a comment")
    if count > MAX_ZIP_ENTRIES or count * _CENTRAL.size > size:
        raise refuse(f"the archive announces {count} entries in {size} bytes, expected at most {MAX_ZIP_ENTRIES}")
    entries = []
    position = start
    for _ in range(count):
        entry, position = _read_entry(view, position)
        entries.append(entry)
    if position != start + size:
        raise refuse(f"the archive's directory ends at byte {position}, expected {start + size}")
    return entries, start


def _read_entry(view: memoryview, position: int) -> tuple[_Entry, int]:
    """Read an entry of the central directory; return it and the position behind it."""
    fields = _unpack(_CENTRAL, view, position, b"PK\x01\x02")
    _, _, flags, method, _, _, crc, packed, size, name_length, extra_length, comment_length, _, _, _, header = fields
    position += _CENTRAL.size
    end = position + name_length + extra_length + comment_length
    if end > len(view):
        raise refuse("the archive ends early: a name in its directory is cut off")
    if name_length > MAX_KEY_LENGTH:
        raise refuse(f"a name in the archive has {name_length} bytes, expected at most {MAX_KEY_LENGTH}")
    name = str(view[position : position + name_length], "utf-8")
    extra = view[position + name_length : position + name_length + extra_length]
    size, packed, header = _apply_zip64(extra, size, packed, header)
    if method != 0 or packed != size:
        raise refuse(f"{name[:80]!r} in the archive is compressed, which torch never does")
    if flags & _ENCRYPTED:
        raise refuse(f"{name[:80]!r} in the archive is encrypted")
    if name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/"):
        raise refuse(f"{name[:80]!r} in the archive is a path that leaves it")
    return _Entry(name, header, size, crc), end


def _apply_zip64(extra: memoryview, size: int, packed: int, header: int) -> tuple[int, int, int]:
    """Replace those numbers that say they are too large for 32 bits."""
    values = [size, packed, header]
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        field = extra[position + 4 : position + 4 + length]
        position += 4 + length
        if kind != _ZIP64_EXTRA:
            continue
        wanted = [i for i, value in enumerate(values) if value == _UNKNOWN_32]
        if len(field) < 8 * len(wanted):
            raise refuse("the archive's directory lacks a 64-bit size")
        for i, number in zip(wanted, struct.unpack_from(f"<{len(wanted)}Q", field), strict=True):
            values[i] = number
        break
    return values[0], values[1], values[2]


def _find_data(view: memoryview, entry: _Entry, end: int) -> int:
    """Read an entry's own header, compare it with the directory, and return where the data begin."""
    fields = _unpack(_LOCAL, view, entry.header, b"PK\x03\x04")
    _, flags, method, _, _, _, packed, size, name_length, extra_length = fields
    name_start = entry.header + _LOCAL.size
    start = name_start + name_length + extra_length
    if start + entry.size > end:
        raise refuse(f"{entry.name[:80]!r} in the archive reaches beyond the data")
    if bytes(view[name_start : name_start + name_length]) != entry.name.encode() or method != 0:
        raise refuse(f"{entry.name[:80]!r} in the archive has a header of another name or method")
    sizes_unknown = flags & _SIZES_FOLLOW or _UNKNOWN_32 in {packed, size}
    if not sizes_unknown and (packed, size) != (entry.size, entry.size):
        raise refuse(
            f"{entry.name[:80]!r} in the archive has {size} bytes by its header, {entry.size} by the directory"
        )
    return start
