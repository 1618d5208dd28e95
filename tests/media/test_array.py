"""Arrays as parts: there and back, and nothing is unpickled or believed."""

import io
import struct

import numpy as np
import pytest

from mmcore.errors import SampleError
from mmcore.media.array import array_bytes, array_of


def reason_of(data: bytes, **limits: int) -> str:
    with pytest.raises(SampleError) as caught:
        array_of(data, **limits)
    return caught.value.reason


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "float16", "float32", ">f4"])
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (2, 3, 4)])
def test_an_array_comes_back_and_numpy_reads_it_too(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    data = array_bytes(array)
    for found in (array_of(data), np.load(io.BytesIO(data), allow_pickle=False)):
        assert found.shape == shape
        assert (found == array).all()


def test_equal_arrays_give_equal_bytes_whatever_their_order_in_memory() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert array_bytes(np.asfortranarray(array)) == array_bytes(array)
    assert array_bytes(array.astype(">f4")) == array_bytes(array)


def test_a_pickle_is_not_opened() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([object()]), allow_pickle=True)
    assert reason_of(buffer.getvalue()) == "array_undecodable"


def test_a_header_that_lies_is_found_out_before_memory_is_taken() -> None:
    data = array_bytes(np.zeros((10, 10), np.float64))
    text = data[10 : 10 + struct.unpack_from("<H", data, 8)[0]]
    huge = data.replace(b"(10, 10)", b"(10**9,)"[:8])
    assert reason_of(huge) == "array_undecodable"
    larger = data.replace(text, text.replace(b"(10, 10), ", b"(99999999,)"[:10]))
    assert reason_of(larger) in ("array_undecodable", "array_over_limit")
    assert reason_of(data, max_bytes=799) == "array_over_limit"


def test_no_damage_of_the_header_raises_anything_else() -> None:
    data = array_bytes(np.arange(6.0).reshape(2, 3))
    draw = np.random.default_rng(0)
    for _ in range(2000):
        broken = bytearray(data)
        for at in draw.integers(0, 128, 2):
            broken[at] = draw.integers(0, 256)
        try:
            array_of(bytes(broken))
        except SampleError:
            continue


def test_an_array_in_the_order_of_fortran_is_read() -> None:
    buffer = io.BytesIO()
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    np.save(buffer, array)
    assert (array_of(buffer.getvalue()) == array).all()


@pytest.mark.parametrize("cut", [0, 5, 9, 40, 127, 200])
def test_a_file_that_is_cut_is_undecodable(cut: int) -> None:
    assert reason_of(array_bytes(np.zeros(100))[:cut]) == "array_undecodable"


def test_an_array_of_objects_is_a_mistake_of_the_code() -> None:
    with pytest.raises(AssertionError, match="not a number"):
        array_bytes(np.array([object()]))
