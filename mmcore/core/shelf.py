"""What a rule keeps beside its decisions, so that the increments after this one need not look back.

A shelf is a folder of the step's artifact that holds arrays. The next increment takes over by a
link what it does not change: immutable files with the hashes that they have, at no cost. Arrays are
NumPy's format 1.0, without objects: nothing in them is executed.
"""

import io
import itertools
import math
import tempfile
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from mmcore import storage
from mmcore.core.manifest import FileRecord
from mmcore.core.step import Artifact

_BYTES_AT_ONCE = 1 << 22
_SUFFIX = ".npy"


class Shelf:
    """The arrays of one rule, by name: those of the increment before, and new ones."""

    def __init__(
        self, url: str, folder: str, scratch: Path | None, *, earlier: Artifact | None = None
    ) -> None:
        if scratch is None:
            # gone with the shelf
            self._own = tempfile.TemporaryDirectory(prefix="mm-shelf-")
            scratch = Path(self._own.name)
        self._url = url
        self._folder = folder
        self._scratch = scratch
        self._earlier_url = earlier.url if earlier else ""
        files = earlier.manifest.files if earlier else ()
        self._taken_over = {
            record.path: record for record in files if record.path.startswith(f"{folder}/")
        }
        self._new: dict[str, FileRecord] = {}

    @property
    def names(self) -> list[str]:
        """The arrays that are there, sorted."""
        paths = self._taken_over.keys() | self._new.keys()
        return sorted(path[len(self._folder) + 1 : -len(_SUFFIX)] for path in paths)

    def load(self, name: str) -> Any:
        """Return an array; it is mapped into memory, not read."""
        path = self._path(name)
        url = storage.join(self._url if path in self._new else self._earlier_url, path)
        if storage.is_local(url):
            return _open(Path(url))
        local = self._local(path)
        if not local.exists():
            local.write_bytes(storage.read(url))
        return _open(local)

    def save(self, name: str, array: Any) -> None:
        """Write an array of any size; it may be mapped itself."""
        self.save_pieces(name, array.dtype, array.shape, _pieces(array))

    def save_pieces(
        self, name: str, dtype: Any, shape: tuple[int, ...], pieces: Iterable[Any]
    ) -> None:
        """Write an array that is made a piece at a time, in the order of its bytes."""
        path = self._path(name)
        header = io.BytesIO()
        fields = {
            "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
            "fortran_order": False,
            "shape": shape,
        }
        np.lib.format.write_array_header_1_0(header, fields)
        digest, num_bytes = sha256(), 0

        def chunks() -> Iterator[bytes]:
            nonlocal num_bytes
            for piece in itertools.chain([header.getvalue()], pieces):
                is_header = isinstance(piece, bytes)
                chunk = piece if is_header else np.ascontiguousarray(piece, dtype).tobytes()
                digest.update(chunk)
                num_bytes += len(chunk)
                yield chunk

        storage.write_pieces(storage.join(self._url, path), chunks())
        expected = len(header.getvalue()) + math.prod(shape) * np.dtype(dtype).itemsize
        assert num_bytes == expected, f"{path}: {num_bytes} bytes were made for {shape}"
        self._taken_over.pop(path, None)
        self._local(path).unlink(missing_ok=True)  # of what had the name before
        self._new[path] = FileRecord(path, num_bytes, digest.hexdigest())

    def remove(self, name: str) -> None:
        """Leave an array out from here on; where it was taken from it stays."""
        path = self._path(name)
        if self._new.pop(path, None) is not None:
            storage.delete(storage.join(self._url, path))
        self._taken_over.pop(path, None)

    def close(self) -> list[FileRecord]:
        """Link what is taken over, and return the records of all arrays."""
        for path in sorted(self._taken_over):
            storage.link(storage.join(self._earlier_url, path), storage.join(self._url, path))
        found = {**self._taken_over, **self._new}
        return [found[path] for path in sorted(found)]

    def _local(self, path: str) -> Path:
        return self._scratch / path.replace("/", "_")

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}{_SUFFIX}"


def _open(path: Path) -> Any:
    # as a plain array: memmap's own indexing is slow
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _pieces(array: Any) -> Iterator[Any]:
    if array.ndim == 0 or array.size == 0:
        return
    rows = max(1, _BYTES_AT_ONCE // max(1, array.itemsize * (array.size // len(array))))
    for start in range(0, len(array), rows):
        yield array[start : start + rows]
