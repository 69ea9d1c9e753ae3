import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from labelmint.arrays import DTYPES, array_from_tensor, tensor_from_array
from labelmint.errors import ArrayError
from labelmint.v1 import service_pb2

Array = npt.NDArray[np.generic]


@given(
    st.sampled_from(list(DTYPES.values())).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4))
    )
)
def test_array_survives_the_wire_bit_for_bit(array: Array) -> None:
    wire = tensor_from_array(array).SerializeToString()
    read = array_from_tensor(service_pb2.Tensor.FromString(wire), field="z")
    assert read.dtype == array.dtype
    assert read.shape == array.shape
    assert read.tobytes() == array.tobytes()


def test_wire_is_row_major_and_little_endian_whatever_the_array() -> None:
    array = np.arange(6, dtype=">f4").reshape(2, 3)
    expected = b"".join(np.float32(value).astype("<f4").tobytes() for value in (0, 3, 1, 4, 2, 5))
    assert tensor_from_array(array.T).data == expected
    assert list(tensor_from_array(array.T).shape) == [3, 2]


def test_read_array_cannot_be_written_to() -> None:
    read = array_from_tensor(tensor_from_array(np.zeros((2, 2), np.uint8)), field="mask")
    assert not read.flags.writeable


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.bool_, np.complex64, object, "U3"])
def test_dtype_that_does_not_travel_is_refused(dtype: npt.DTypeLike) -> None:
    with pytest.raises(ArrayError, match="expected one of DTYPE_UINT8") as caught:
        tensor_from_array(np.zeros(3, dtype))
    assert caught.value.field == "dtype"


@pytest.mark.parametrize(
    ("tensor", "field"),
    [
        (service_pb2.Tensor(), "z.dtype"),
        (service_pb2.Tensor(dtype=99, shape=[1], data=b"x"), "z.dtype"),  # type: ignore[arg-type]  # from a newer peer
        (service_pb2.Tensor(dtype=service_pb2.DTYPE_FLOAT32, shape=[2], data=b"1234567"), "z.data"),
        (service_pb2.Tensor(dtype=service_pb2.DTYPE_FLOAT32, shape=[2], data=b"123456789"), "z.data"),
        (service_pb2.Tensor(dtype=service_pb2.DTYPE_UINT8, shape=[], data=b""), "z.data"),
        (service_pb2.Tensor(dtype=service_pb2.DTYPE_UINT8, shape=[2**64 - 1, 2**64 - 1]), "z.shape"),
        (service_pb2.Tensor(dtype=service_pb2.DTYPE_UINT8, shape=[0, 2**63, 2**63]), "z.shape"),
        (service_pb2.Tensor(dtype=service_pb2.DTYPE_UINT8, shape=[2**64 - 1] * 5_000), "z.shape"),
        (service_pb2.Tensor(dtype=service_pb2.DTYPE_UINT8, shape=[1] * 70, data=b"x"), "z.shape"),
    ],
)
def test_contradictory_tensor_is_refused_by_name(tensor: service_pb2.Tensor, field: str) -> None:
    with pytest.raises(ArrayError, match="expected") as caught:
        array_from_tensor(tensor, field="z")
    assert caught.value.field == field


@given(st.integers(0, 4), st.lists(st.integers(0, 2**64 - 1), max_size=10), st.binary(max_size=64))
def test_hostile_tensor_is_read_or_refused(dtype: int, shape: list[int], data: bytes) -> None:
    tensor = service_pb2.Tensor(dtype=dtype, shape=shape, data=data)  # type: ignore[arg-type]  # hostile on purpose
    try:
        read = array_from_tensor(tensor, field="w")
    except ArrayError as error:
        assert error.field.startswith("w.")
    else:
        assert read.tobytes() == data
