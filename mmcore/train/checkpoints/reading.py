"""Reads checkpoints back: a rank's own tensors, or slices of parameters whoever wrote them."""

import json
from collections.abc import Mapping
from functools import cached_property
from hashlib import sha256
from typing import Any, BinaryIO

import torch
from torch import Tensor

from mmcore import storage
from mmcore.core.manifest import FileRecord
from mmcore.errors import IntegrityError
from mmcore.sample import Json
from mmcore.train.checkpoints.store import CHUNK_BYTES, Found, problem_of
from mmcore.train.checkpoints.tensor_file import (
    Place,
    header_bytes,
    places_of,
    tensors_of,
)
from mmcore.train.checkpoints.writer import record_name, tensors_name
from mmcore.train.engines.state import ReadSlice, whole_reader


class Checkpoint:
    """A committed checkpoint, ready to be read by any number of ranks."""

    def __init__(self, found: Found) -> None:
        self.found = found
        self._records = {record.path: record for record in found.manifest.files}
        self._held: tuple[int, dict[str, Tensor]] | None = None
        self._headers: dict[int, tuple[int, dict[str, Place]]] = {}

    def problems(self, *, rank: int = 0, num_ranks: int = 1) -> list[str]:
        """Return what is wrong with a rank's share of the files: all, when it is alone.

        The tensors that a rank wrote itself are its own share, and are kept for `tensors`.
        """
        names = sorted(self._records)
        own = tensors_name(rank)
        is_same_world = num_ranks == self.found.num_ranks
        if is_same_world:
            names = [name for name in names if not name.endswith(".safetensors")]
        shares = names[rank::num_ranks]
        found = [problem_of(self.found, self._records[name]) for name in shares]
        if is_same_world:
            found.append(self._hold(rank, self._records[own]))
        return [problem for problem in found if problem is not None]

    def tensors(self, rank: int) -> dict[str, Tensor]:
        """Return what a rank wrote."""
        if self._held is None or self._held[0] != rank:
            problem = self._hold(rank, self._records[tensors_name(rank)])
            if problem is not None:
                raise IntegrityError(f"{problem}. Delete {self.found.url}, and run again.")
        assert self._held is not None
        return self._held[1]

    def let_go(self) -> None:
        """Forget the tensors that were read; whoever was given them still has them."""
        self._held = None

    def rank_facts(self, rank: int) -> Mapping[str, Json]:
        """Return what a rank said besides tensors."""
        facts: Mapping[str, Json] = self._said[rank]["facts"]
        return facts

    def file(self, name: str) -> bytes:
        """Return a file that the first rank added."""
        return storage.read(storage.join(self.found.url, name))

    def layouts(self) -> list[Mapping[str, Any]]:
        """Return, for each rank that wrote, which slices of which parameters its tensors are."""
        return [said["layout"] for said in self._said]

    def kinds(self) -> list[str]:
        """Return what is stored of a parameter: `master`, the optimizer's moments, `ema`."""
        return list(self.layouts()[0]["kinds"])

    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every parameter that is stored."""
        return {
            one["parameter"]: tuple(one["shape"])
            for layout in self.layouts()
            for slices in layout["partitions"].values()
            for one in slices
        }

    @cached_property
    def read_slice(self) -> ReadSlice:
        """Read elements of a parameter, or of what belongs to it, whichever rank has them.

        Called with kind, parameter, first element and their number.
        """
        return whole_reader(self.layouts(), self.read_flat)

    def read_flat(self, rank: int, tensor: str, start: int, count: int) -> Tensor:
        """Return elements of one tensor of one rank, without reading the rest of its file."""
        url = storage.join(self.found.url, tensors_name(rank))
        if rank not in self._headers:
            length = header_bytes(storage.read(url, num_bytes=8))
            header = storage.read(url, offset=8, num_bytes=length)
            self._headers[rank] = 8 + length, places_of(header, where=url)
        first, places = self._headers[rank]
        if tensor not in places:
            raise IntegrityError(f"{url} holds no {tensor}: it is of another model or engine.")
        place = places[tensor]
        width = place.dtype.itemsize
        at = first + place.start + start * width
        data = bytearray(storage.read(url, offset=at, num_bytes=count * width))
        if not data:
            return torch.empty(0, dtype=place.dtype)
        return torch.frombuffer(data, dtype=place.dtype)

    @cached_property
    def _said(self) -> list[dict[str, Any]]:
        return [json.loads(self.file(record_name(rank))) for rank in range(self.found.num_ranks)]

    def _hold(self, rank: int, record: FileRecord) -> str | None:
        """Read a rank's tensors once for both, their check and their use."""
        where = f"{self.found.id.name}/{record.path}"
        url = storage.join(self.found.url, record.path)
        if not storage.exists(url):
            return f"{where} is missing"
        data = bytearray(record.num_bytes)
        with storage.open_read(url) as file:
            num_bytes = _read_into(file, data)
            num_bytes += len(file.read(1))
        if num_bytes != record.num_bytes:
            return f"{where} has not the {record.num_bytes} bytes that its manifest says"
        if sha256(data).hexdigest() != record.sha256:
            return f"{where} holds other bytes than its manifest says"
        self._held = rank, tensors_of(data, where=where)
        return None


def _read_into(file: BinaryIO, data: bytearray) -> int:
    """Fill memory from a file; return how much there was."""
    view, at = memoryview(data), 0
    while piece := file.read(min(CHUNK_BYTES, len(data) - at)):
        view[at : at + len(piece)] = piece
        at += len(piece)
    return at
