from pathlib import Path

import numpy as np
import pytest

from labelmint.bundle import open_bundle
from labelmint.errors import IntegrityError
from labelmint.tables import read_interpreter_tables
from tests.protos.manifests import manifest_with_tables, write_bundle


def test_tables_are_the_numbers_at_their_places(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path, manifest_with_tables())
    content = (tmp_path / "weights/data.bin").read_bytes()
    tables = read_interpreter_tables(bundle)
    assert {name: table.shape for name, table in tables.items()} == {"bias1": (5,), "weight2": (2, 3)}
    assert tables["bias1"].tobytes() == content[:20]
    assert tables["weight2"].tobytes() == content[512:536]
    assert all(table.dtype == np.float32 for table in tables.values())


def test_tables_of_a_file_that_was_cut_after_opening_are_refused(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path, manifest_with_tables())
    (tmp_path / "weights/data.bin").write_bytes(bytes(520))
    with pytest.raises(IntegrityError, match=r"table 'weight2' .* has 2 numbers, expected \[2, 3\]"):
        read_interpreter_tables(bundle)
    (tmp_path / "weights/data.bin").unlink()
    with pytest.raises(IntegrityError, match="missing or no regular file"):
        read_interpreter_tables(bundle)


def test_bundle_without_tables_has_none(tmp_path: Path) -> None:
    write_bundle(tmp_path, manifest_with_tables())
    bundle = open_bundle(tmp_path)
    del bundle.manifest.interpreter_tables[:]
    assert read_interpreter_tables(bundle) == {}
