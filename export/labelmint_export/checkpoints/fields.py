"""Reading one pickled module field by field: every error names the field, what came and what was expected."""

from typing import NoReturn

import numpy as np

from labelmint_export.checkpoints.records import ModuleRecord
from labelmint_export.errors import CheckpointError

MAX_NUMBER = 2**31
MAX_LIST = 64
MAX_WORD = 40


def show(value: object) -> str:
    """Describe a value that may be hostile: the text of a number of a million digits is not made."""
    if isinstance(value, str):
        return repr(value[:60])
    if isinstance(value, list | tuple) and len(value) <= MAX_LIST:
        return f"[{', '.join(show(item) if not isinstance(item, list | tuple) else '...' for item in value)}]"
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < MAX_NUMBER):
        return repr(value)
    return f"a {type(value).__name__}"


class RecordReader:
    """Reads one record and knows its name, so that every error can tell which field is at fault."""

    def __init__(self, record: ModuleRecord, path: str = "") -> None:
        self.record = record
        self.path = path

    def field(self, name: str) -> str:
        """The dotted name of a field."""
        return f"{self.path}.{name}" if self.path else name

    def refuse(self, name: str, got: str, expected: str) -> NoReturn:
        """Raise the error that names a field."""
        raise CheckpointError(
            f"{self.field(name)} {got}, expected {expected}; take a snapshot that the original programs wrote",
            field=self.field(name),
        )

    def child(self, name: str, class_name: str) -> "RecordReader":
        """The reader of a submodule of a class."""
        module = self.record.modules.get(name)
        if module is None:
            self.refuse(name, "is missing", f"a {class_name}")
        if module.class_name != class_name:
            self.refuse(name, f"is a {show(module.class_name)}", f"a {class_name}")
        return RecordReader(module, self.field(name))

    def value(self, name: str) -> object:
        """An attribute in Python's own types: arrays become numbers and lists."""
        if name not in self.record.attributes:
            self.refuse(name, "is missing", "an attribute of that name")
        value = self.record.attributes[name]
        if isinstance(value, np.ndarray):
            if value.size > MAX_LIST:
                self.refuse(name, f"has shape {list(value.shape)}", "one number or a few")
            return value.tolist()
        return list(value) if isinstance(value, tuple) else value

    def whole(self, name: str) -> int:
        """An attribute that is a whole number."""
        return self._whole(name, self.value(name))

    def _whole(self, name: str, value: object) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            self.refuse(name, f"is {show(value)}", "a whole number")
        if abs(value) >= MAX_NUMBER:
            self.refuse(name, "is a number of more than 31 bits", f"less than {MAX_NUMBER}")
        return value

    def wholes(self, name: str, count: int) -> tuple[int, ...]:
        """An attribute that is a list of whole numbers."""
        values = self.value(name)
        if not isinstance(values, list) or len(values) != count:
            self.refuse(name, f"is {show(values)}", f"{count} whole numbers")
        return tuple(self._whole(name, value) for value in values)

    def side(self, name: str) -> int:
        """The side of a square that is stored as one number or two."""
        value = self.value(name)
        width, height = self.wholes(name, 2) if isinstance(value, list) else (self._whole(name, value),) * 2
        if width != height:
            self.refuse(name, f"is {width} x {height}", "a square")
        return width

    def real(self, name: str) -> float:
        """An attribute that is a number."""
        value = self.value(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < MAX_NUMBER:
            self.refuse(name, f"is {show(value)}", f"a number below {MAX_NUMBER}")
        return float(value)

    def flag(self, name: str) -> bool:
        """An attribute that is True or False."""
        value = self.value(name)
        if not isinstance(value, bool):
            self.refuse(name, f"is {show(value)}", "True or False")
        return value

    def text(self, name: str) -> str:
        """An attribute that is a word."""
        value = self.value(name)
        if not isinstance(value, str) or len(value) > MAX_WORD:
            self.refuse(name, f"is {show(value)}", "a word")
        return value

    def shape(self, name: str, ndim: int) -> tuple[int, ...]:
        """Shape of a tensor that must be there."""
        shape = self.optional_shape(name)
        if shape is None:
            self.refuse(name, "is missing", f"a tensor of {ndim} axes")
        if len(shape) != ndim:
            self.refuse(name, f"has shape {list(shape)}", f"{ndim} axes")
        return shape

    def optional_shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of a tensor, None if there is none."""
        tensor = self.record.parameters.get(name)
        tensor = self.record.buffers.get(name) if tensor is None else tensor
        return None if tensor is None else tensor.shape

    def agree(self, name: str, got: object, expected: object) -> None:
        """Check that a field says what others say."""
        if got != expected:
            self.refuse(name, f"is {show(got)}", f"{expected} as elsewhere in the file")
