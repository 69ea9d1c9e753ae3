"""Reading the float32 tables that a manifest points to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from labelmint.bundle import Bundle
from labelmint.errors import IntegrityError

__all__ = ["read_interpreter_tables"]


def read_interpreter_tables(bundle: Bundle) -> dict[str, npt.NDArray[np.float32]]:
    """Read the weights of a bundle's interpreter.

    Args:
        bundle: Opened bundle.

    Returns:
        Name -> float32 array of the stated shape; empty for a bundle without tables.

    Raises:
        IntegrityError: A file cannot be read or ends too early.
    """
    tables: dict[str, npt.NDArray[np.float32]] = {}
    for table in bundle.manifest.interpreter_tables:
        shape = tuple(table.shape)
        try:
            with bundle.path_of(table.path).open("rb") as file:
                file.seek(table.offset)
                numbers = np.fromfile(file, dtype="<f4", count=int(np.prod(shape)))
        except OSError as error:
            raise IntegrityError(
                f"table {table.name!r} of bundle {bundle.root} cannot be read ({error}); check the file",
                field="interpreter_tables",
            ) from error
        if numbers.size != int(np.prod(shape)):
            raise IntegrityError(
                f"table {table.name!r} of bundle {bundle.root} has {numbers.size} numbers, expected {list(shape)}; "
                "copy the bundle again",
                field="interpreter_tables",
            )
        tables[table.name] = numbers.reshape(shape).astype(np.float32, copy=False)
    return tables
