"""Arrays as parts: `.npy` of numbers, never of objects, read under limits."""

import io
import math
import re
from typing import Any

import numpy as np

from mmcore.errors import SampleError

MAX_ARRAY_BYTES = 1 << 30
_KINDS = "biuf"
# NEP 1, version 1.0, as numpy writes it: numbers alone
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([<>|][biuf][0-9]{1,2})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:[0-9]{1,18}, ?)*(?:[0-9]{1,18})?)\), \} *\n",
    re.DOTALL,
)

Array = np.ndarray[Any, np.dtype[Any]]
Pixels = np.ndarray[Any, np.dtype[np.uint8]]
"""Of a picture: [H, W, 3], or [H, W] of gray."""


def array_bytes(array: Array) -> bytes:
    """Return an array as `.npy`; equal arrays give equal bytes on any machine."""
    assert array.dtype.kind in _KINDS, f"{array.dtype} is not a number"
    buffer = io.BytesIO()
    fixed = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
    np.lib.format.write_array(buffer, fixed, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def array_of(data: bytes, *, max_bytes: int = MAX_ARRAY_BYTES) -> Array:
    """Return the array in a `.npy`; SampleError `array_undecodable` or `array_over_limit`.

    Nothing is unpickled, and the header is matched, not evaluated as numpy does it. The size is
    held against the file before memory is taken.
    """
    found = _HEADER.match(data)
    if found is None or found.end() != 10 + int.from_bytes(data[8:10], "little"):
        raise SampleError("array_undecodable", f"{len(data)} bytes without a header that is taken")
    kind, order, lengths = (piece.decode() for piece in found.groups())
    try:
        dtype = np.dtype(kind)
    except TypeError as error:
        raise SampleError("array_undecodable", f"numbers of the type {kind}") from error
    shape = tuple(int(length) for length in lengths.split(",") if length.strip())
    num_bytes = math.prod(shape) * dtype.itemsize
    if num_bytes > max_bytes:
        raise SampleError("array_over_limit", f"{num_bytes} bytes > {max_bytes}")
    if num_bytes != len(data) - found.end():
        said = f"{len(data) - found.end()} bytes for {shape} of {dtype}"
        raise SampleError("array_undecodable", said)
    flat = np.frombuffer(data, dtype, offset=found.end())
    return flat.reshape(shape, order="F" if order == "True" else "C").copy()
