import pytest

from labelmint import wire
from labelmint.v1 import admin_pb2, service_pb2


def test_services_have_the_names_of_the_schema() -> None:
    assert service_pb2.DESCRIPTOR.services_by_name["LabelMint"].full_name == wire.SERVICE_NAME
    assert admin_pb2.DESCRIPTOR.services_by_name["LabelMintAdmin"].full_name == wire.ADMIN_SERVICE_NAME


@pytest.mark.parametrize(("num_bytes", "taken"), [(0, 0), (1, 64), (64, 64), (65, 128)])
def test_array_in_a_ring_takes_whole_lines(num_bytes: int, taken: int) -> None:
    assert wire.ring_bytes(num_bytes) == taken
