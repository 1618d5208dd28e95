"""Tensors as one flat run of bytes in memory and as one safetensors file, without a copy between.

A rank's tensors are copied once, at the border of a step, into a buffer that is laid out as the
data of a safetensors file and is used again for the next checkpoint; a thread writes it from there.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from mmcore.errors import IntegrityError
from mmcore.train.checkpoints.store import CHUNK_BYTES

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_ALIGNMENT = 8


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in the data of a file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


class FlatBuffer:
    """Memory for a rank's tensors that is taken once and used for every checkpoint."""

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)
        self._places: dict[str, Place] = {}

    def reserve(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the memory before it is needed: pages that are new cost more than the copy."""
        self._places, num_bytes = _laid_out(tensors)
        if len(self._memory) < num_bytes:
            pinned = torch.cuda.is_available()
            self._memory = torch.zeros(num_bytes, dtype=torch.uint8, pin_memory=pinned)

    def take(self, tensors: Mapping[str, Tensor]) -> "Snapshot":
        """Copy tensors; what was taken before is overwritten."""
        self.reserve(tensors)
        for name, place in self._places.items():
            target = self._memory[place.start : place.stop].view(place.dtype)
            target.copy_(tensors[name].detach().reshape(-1), non_blocking=True)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        num_bytes = max((place.stop for place in self._places.values()), default=0)
        return Snapshot(_header(self._places), self._memory[:num_bytes])


@dataclass(frozen=True)
class Snapshot:
    """What a file is going to hold."""

    header: bytes
    data: Tensor

    @property
    def num_bytes(self) -> int:
        """Return the length of the file."""
        return len(self.header) + len(self.data)

    def pieces(self) -> Iterator[bytes | memoryview]:
        """Yield the bytes of the file without copying them."""
        yield self.header
        view = memoryview(self.data.numpy())  # type: ignore[arg-type]
        for start in range(0, len(view), CHUNK_BYTES):
            yield view[start : start + CHUNK_BYTES]


def places_of(header: bytes, *, where: str) -> dict[str, Place]:
    """Read the header of a file, its eight bytes of length left out."""
    try:
        value = json.loads(header)
        value.pop("__metadata__", None)
        return {
            name: Place(_DTYPES[one["dtype"]], tuple(one["shape"]), *one["data_offsets"])
            for name, one in value.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(
            f"{where} is no safetensors file that this version of mmcore writes: {error!r}. "
            "Delete the checkpoint; training then goes on from the one before."
        ) from error


def header_bytes(first_eight: bytes) -> int:
    """Return the length of the header that follows."""
    (length,) = struct.unpack("<Q", first_eight)
    return int(length)


def tensors_of(data: bytearray, *, where: str) -> dict[str, Tensor]:
    """Return the tensors of a whole file; they share its memory."""
    start = 8 + header_bytes(bytes(data[:8]))
    places = places_of(bytes(data[8:start]), where=where)
    return {
        name: torch.frombuffer(
            data, dtype=place.dtype, count=prod(place.shape), offset=start + place.start
        ).view(place.shape)
        if place.stop > place.start
        else torch.empty(place.shape, dtype=place.dtype)
        for name, place in places.items()
    }


def _laid_out(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Place], int]:
    # the widest first: then each begins at a multiple of its width, with no gap between two
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    places, at = {}, 0
    for name in order:
        tensor = tensors[name]
        stop = at + tensor.numel() * tensor.element_size()
        places[name] = Place(tensor.dtype, tuple(tensor.shape), at, stop)
        at = stop
    return places, at


def _header(places: Mapping[str, Place]) -> bytes:
    value = {
        name: {
            "dtype": _NAMES[place.dtype],
            "shape": list(place.shape),
            "data_offsets": [place.start, place.stop],
        }
        for name, place in places.items()
    }
    text = json.dumps(value, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return struct.pack("<Q", len(text)) + text
