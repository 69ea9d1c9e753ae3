"""Settings that all tests share."""

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

# Triton decides when it is first imported; its kernels are interpreted here, and compiled in processes of their own.
os.environ["TRITON_INTERPRET"] = "1"

import torch

# No deadline: other work may share the machine. Failures print how to run them again.
settings.register_profile("labelmint", deadline=None, print_blob=True)
settings.load_profile("labelmint")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=3, help="how often tests/faults kills its server")
    parser.addoption("--fuzz-cases", type=int, default=670, help="hostile inputs of each kind in tests/fuzz")
    parser.addoption("--fuzz-first", type=int, default=0, help="number of the first of them")
    parser.addoption(
        "--fault-s", type=float, default=0.2, help="length of each flood and fault in tests/faults, seconds"
    )


def pytest_configure() -> None:
    """Heed signals that whoever runs the tests has told his children to ignore: a shell does that in the background."""
    for name, usual in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture(autouse=True, scope="session")
def single_thread() -> Iterator[None]:
    """Several processes share the suite, and most tensors are so small that more threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
