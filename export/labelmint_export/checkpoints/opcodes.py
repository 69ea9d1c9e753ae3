"""Bytes of a pickle -> opcodes with their arguments. Lengths are checked before anything is taken; nothing is run."""

import pickletools
import struct
from collections.abc import Callable

from labelmint_export.checkpoints.limits import (
    ADVICE,
    INLINE_BYTES,
    MAX_INTEGER_BYTES,
    MAX_LINE_BYTES,
    MAX_STRING_BYTES,
    Budget,
)
from labelmint_export.errors import CheckpointError

_U8, _U16, _U32, _U64 = (struct.Struct(code) for code in ("<B", "<H", "<I", "<Q"))
_I32 = struct.Struct("<i")
_NAMES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
_F64 = struct.Struct(">d")  # the one big-endian number of the pickle protocol


def get_opcode_name(code: int) -> str:
    """Name an opcode for a message."""
    return _NAMES.get(code, f"0x{code:02x}")


class OpcodeReader:
    """A position in bytes that hold pickles.

    Args:
        view: The bytes.
        position: Where the first opcode lies.
        budget: Pays for the opcodes and for the strings.
    """

    __slots__ = ("_budget", "_view", "position")

    def __init__(self, view: memoryview, position: int, budget: Budget) -> None:
        self._view = view
        self._budget = budget
        self.position = position

    def read_opcode(self) -> tuple[int, object]:
        """Read the next opcode and its argument; None if it has none.

        Raises:
            CheckpointError: The bytes end, the opcode is not a part of snapshots, or its argument is malformed.
        """
        self._budget.spend_operations()
        if self.position == len(self._view):
            self.take(1)  # tells that the pickle ends early
        code = self._view[self.position]
        self.position += 1
        read = _ARGUMENTS.get(code)
        if read is None:
            raise CheckpointError(
                f"the pickle has opcode {get_opcode_name(code)} at byte {self.position - 1}, which no StyleGAN "
                f"snapshot of protocol 2 to 5 has; {ADVICE}",
                field="pickle",
            )
        return code, read(self)

    def take(self, count: int) -> memoryview:
        """Take bytes without copying them.

        Raises:
            CheckpointError: There are not so many.
        """
        left = len(self._view) - self.position
        if count > left:
            raise CheckpointError(
                f"the pickle ends early: {count} bytes expected at byte {self.position}, {left} are left; {ADVICE}",
                field="pickle",
            )
        self.position += count
        return self._view[self.position - count : self.position]

    def take_number(self, layout: struct.Struct) -> int:
        """Take one integer."""
        number: int = layout.unpack(self.take(layout.size))[0]
        return number

    def take_text(self, layout: struct.Struct) -> str:
        """Take a UTF-8 string behind its length."""
        length = self.take_number(layout)
        if length > MAX_STRING_BYTES:
            raise CheckpointError(
                f"the pickle has a string of {length} bytes, expected at most {MAX_STRING_BYTES}; {ADVICE}",
                field="pickle",
            )
        text = str(self.take(length), "utf-8")
        self._budget.spend_bytes(length if text.isascii() else 4 * len(text))  # one wide character makes all of them so
        return text

    def take_bytes(self, layout: struct.Struct) -> bytes | memoryview:
        """Take bytes behind their length; many of them stay a view of the file."""
        raw = self.take(self.take_number(layout))
        return bytes(raw) if len(raw) <= INLINE_BYTES else raw

    def take_old_string(self, layout: struct.Struct) -> str | memoryview:
        """Take a Python 2 `str`, which is a name if it is short, and an array's bytes if it is long."""
        raw = self.take(self.take_number(layout))
        return str(raw, "latin-1") if len(raw) <= INLINE_BYTES else raw

    def take_line(self) -> str:
        """Take a line without its end."""
        start = self.position
        window = bytes(self._view[start : start + MAX_LINE_BYTES])
        length = window.find(b"\n")
        if length < 0:
            raise CheckpointError(
                f"the pickle has no end of line in the {len(window)} bytes from byte {start}; {ADVICE}", field="pickle"
            )
        self.position += length + 1
        return window[:length].decode("utf-8")

    def take_long(self, layout: struct.Struct) -> int:
        """Take an integer of any size behind its length."""
        length = self.take_number(layout)
        if not 0 <= length <= MAX_INTEGER_BYTES:
            raise CheckpointError(
                f"the pickle has an integer of {length} bytes, expected at most {MAX_INTEGER_BYTES}; {ADVICE}",
                field="pickle",
            )
        return int.from_bytes(self.take(length), "little", signed=True)

    def take_decimal(self) -> int | bool:
        """Take the decimal integer that Python 2 writes for those of more than 32 bits, or its `00` and `01`."""
        line = self.take_line()
        if line in {"00", "01"}:
            return line == "01"
        digits = line.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 20):
            raise CheckpointError(
                f"the pickle has {line[:24]!r} for an integer, expected at most 20 decimal digits; {ADVICE}",
                field="pickle",
            )
        return int(line)

    def take_frame(self) -> None:
        """Take a frame's length. The frame's opcodes follow; its end means nothing here, but it must exist."""
        length = self.take_number(_U64)
        left = len(self._view) - self.position
        if length > left:
            raise CheckpointError(
                f"the pickle ends early: a frame of {length} bytes begins at byte {self.position}, {left} are left; "
                f"{ADVICE}",
                field="pickle",
            )


def _read_nothing(reader: OpcodeReader) -> None:
    del reader


def _read_global(reader: OpcodeReader) -> tuple[str, str]:
    return reader.take_line(), reader.take_line()


# The opcodes of protocols 2 to 5 that picklers of snapshots write. Those that are absent are refused, among them all
# that reach classes by another way than a global (INST, OBJ, EXT1, EXT2, EXT4, NEWOBJ_EX), the text forms of protocol
# 0, buffers outside the file, and what only programs written by hand do to the stack (DUP, POP, POP_MARK).
_ARGUMENTS: dict[int, Callable[[OpcodeReader], object]] = {
    **dict.fromkeys(b"(.N\x88\x89})]at\x85\x86\x87eusbR\x81\x8f\x90\x91\x93\x94Qld", _read_nothing),
    ord("\x80"): lambda reader: reader.take_number(_U8),  # PROTO
    ord("\x95"): OpcodeReader.take_frame,  # FRAME
    ord("K"): lambda reader: reader.take_number(_U8),  # BININT1
    ord("M"): lambda reader: reader.take_number(_U16),  # BININT2
    ord("J"): lambda reader: reader.take_number(_I32),  # BININT
    ord("I"): OpcodeReader.take_decimal,  # INT
    ord("\x8a"): lambda reader: reader.take_long(_U8),  # LONG1
    ord("\x8b"): lambda reader: reader.take_long(_I32),  # LONG4
    ord("G"): lambda reader: _F64.unpack(reader.take(8))[0],  # BINFLOAT
    ord("\x8c"): lambda reader: reader.take_text(_U8),  # SHORT_BINUNICODE
    ord("X"): lambda reader: reader.take_text(_U32),  # BINUNICODE
    ord("\x8d"): lambda reader: reader.take_text(_U64),  # BINUNICODE8
    ord("C"): lambda reader: reader.take_bytes(_U8),  # SHORT_BINBYTES
    ord("B"): lambda reader: reader.take_bytes(_U32),  # BINBYTES
    ord("\x8e"): lambda reader: reader.take_bytes(_U64),  # BINBYTES8
    ord("\x96"): lambda reader: reader.take_bytes(_U64),  # BYTEARRAY8; the bytes stay read-only
    ord("U"): lambda reader: reader.take_old_string(_U8),  # SHORT_BINSTRING
    ord("T"): lambda reader: reader.take_old_string(_U32),  # BINSTRING
    ord("c"): _read_global,  # GLOBAL
    ord("h"): lambda reader: reader.take_number(_U8),  # BINGET
    ord("j"): lambda reader: reader.take_number(_U32),  # LONG_BINGET
    ord("q"): lambda reader: reader.take_number(_U8),  # BINPUT
    ord("r"): lambda reader: reader.take_number(_U32),  # LONG_BINPUT
}
