"""The limit of open files: raised as far as connections need it, a clear failure where the system does not let it."""

import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("resource", reason="limits of open files exist on Unix only")


def limited(soft: int, hard: int, max_connections: int) -> str:
    """What a process with such limits prints, for a limit cannot be raised again once it was lowered."""
    code = f"""
        import resource
        from labelmint_service.errors import SettingsError
        from labelmint_service.open_files import allow_open_files
        resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
        try:
            allow_open_files({max_connections})
            print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        except SettingsError as error:
            print(error.field, error)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def test_limit_is_raised_to_what_connections_need() -> None:
    assert limited(soft=200, hard=1000, max_connections=500) == "756\n"


def test_limit_that_suffices_stays() -> None:
    assert limited(soft=900, hard=1000, max_connections=500) == "900\n"


def test_limit_that_cannot_be_raised_is_a_clear_failure() -> None:
    text = limited(soft=200, hard=500, max_connections=500)
    assert text.startswith("max_connections max_connections is 500, which takes 756 open files, but this process may")
