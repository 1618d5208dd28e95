"""What a rule sees of a corpus: columns of fixed width, one row per sample, in the order of keys.

Samples stream by once and leave behind some tens of bytes each; prints and keys, which are longer,
lie in files that are mapped into memory. A row's number is the rank of its key, so nothing that is
decided by row numbers depends on the order in which samples came.
"""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmcore.core.linkage import values_of
from mmcore.core.step import canonical_json
from mmcore.errors import AccountingError, StepError
from mmcore.sample import Sample

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Words = np.ndarray[Any, np.dtype[np.uint64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]

DIGEST_BYTES = 16
_KEYS_AT_ONCE = 1 << 16
_ROWS_AT_ONCE = 1 << 14


class Want(Protocol):
    """A column that a rule asks for. Equal ones are gathered once."""

    @property
    def width(self) -> int:
        """Bytes of a value; 0 where the first value decides."""
        ...

    @property
    def lies_in_file(self) -> bool:
        """Whether values are mapped, not held: those that are more than some tens of bytes."""
        ...

    def of(self, sample: Sample) -> Sequence[bytes]:
        """Return what a sample has: no value, one or several."""
        ...


@dataclass(frozen=True)
class Values:
    """The digest of each value that a sample has under a name, as in `core/linkage.py`."""

    name: str
    width: int = DIGEST_BYTES
    lies_in_file: bool = False

    def of(self, sample: Sample) -> Sequence[bytes]:
        return [digest_of(self.name, value) for value in values_of(sample, self.name)]


@dataclass(frozen=True)
class Identity:
    """One digest of all that a sample has under some names; lacking one it has no identity."""

    names: tuple[str, ...]
    may_lack: bool = False
    """Then to lack a name is a value as well, and every sample has an identity."""
    width: int = DIGEST_BYTES
    lies_in_file: bool = False

    def of(self, sample: Sample) -> Sequence[bytes]:
        values = [list(values_of(sample, name)) for name in self.names]
        if not self.may_lack and not all(values):
            return []
        return [digest_of(*self.names, canonical_json(values).decode())]


@dataclass(frozen=True)
class Key:
    """The digest of a sample's own key: by it a sample is known that has changed."""

    width: int = DIGEST_BYTES
    lies_in_file: bool = False

    def of(self, sample: Sample) -> Sequence[bytes]:
        return [key_digest(sample.key)]


@dataclass(frozen=True)
class Score:
    """What a stage measured, float64; a sample without the score has no value."""

    name: str
    width: int = 8
    lies_in_file: bool = False

    def of(self, sample: Sample) -> Sequence[bytes]:
        value = sample.scores.get(self.name)
        return [] if value is None else [np.float64(value).tobytes()]


@dataclass(frozen=True)
class Word:
    """The class of a sample: a word of which there are few, so that all of them are known."""

    name: str
    width: int = DIGEST_BYTES
    lies_in_file: bool = False

    def of(self, sample: Sample) -> Sequence[bytes]:
        return [digest_of(self.word(sample))]

    def word(self, sample: Sample) -> str:
        """Return the word itself; "" where the sample lacks it."""
        return " ".join(values_of(sample, self.name))


def digest_of(*words: str) -> bytes:
    """Return 128 bits that stand for some words."""
    return blake2b("\0".join(words).encode(), digest_size=DIGEST_BYTES).digest()


def key_digest(key: str) -> bytes:
    """Return 128 bits that stand for a key."""
    return digest_of("", key)


@dataclass(frozen=True)
class Column:
    """The values of one column."""

    rows: Ints
    """Which sample has each value, rising."""
    store: Bytes
    """[N, width], as they came: held in memory, or mapped; each word of a class once."""
    at: Ints
    """Where in `store` each value lies."""
    words: Mapping[bytes, str]
    """What digests stand for, where the column is of classes."""

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, places: Ints | slice = slice(None)) -> Bytes:
        """Return the values at some places of the column."""
        return np.asarray(self.store[self.at[places]])

    def pieces(self, places: Ints) -> Iterator[Bytes]:
        """Yield the values at some places, some at a time."""
        for start in range(0, len(places), _ROWS_AT_ONCE):
            yield self.take(places[start : start + _ROWS_AT_ONCE])

    def digests(self, places: Ints | slice = slice(None)) -> Words:
        """Return digests as [N, 2]; they sort as their bytes do."""
        taken = np.ascontiguousarray(self.take(places)).view(">u8").astype(np.uint64)
        return taken.reshape(-1, DIGEST_BYTES // 8)

    def numbers(self, num_rows: int, lacking: float = np.nan) -> Floats:
        """Return float64 values, one for each row of the corpus."""
        found = np.full(num_rows, lacking)
        found[self.rows] = np.ascontiguousarray(self.take()).view(np.float64).reshape(-1)
        return found

    def only(self, new_row: Ints) -> "Column":
        """Return the values of those rows that have a new number; -1 stands for none."""
        rows = new_row[self.rows]
        chosen = rows >= 0
        return replace(self, rows=rows[chosen], at=self.at[chosen])


@dataclass(frozen=True)
class Corpus:
    """The samples of a step, as columns."""

    arrival: Ints
    """When each row came: the number in the order of files and rows."""
    columns: Mapping[Want, Column]
    key_bytes: Bytes
    """All keys end to end, as they came."""
    key_ends: Ints

    @property
    def num_rows(self) -> int:
        """How many samples there are."""
        return len(self.arrival)

    def __getitem__(self, want: Want) -> Column:
        return self.columns[want]

    def key(self, row: int) -> str:
        """Return the key of a sample."""
        came = int(self.arrival[row])
        start = int(self.key_ends[came - 1]) if came else 0
        return bytes(self.key_bytes[start : int(self.key_ends[came])]).decode()

    def keys(self, rows: Iterable[int]) -> Iterator[str]:
        """Yield the keys of some samples."""
        return map(self.key, rows)

    def only(self, kept: Flags) -> "Corpus":
        """Return the corpus without some of its samples; the others close up."""
        if kept.all():
            return self
        new_row = np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int64)
        columns = {want: column.only(new_row) for want, column in self.columns.items()}
        return replace(self, arrival=self.arrival[kept], columns=columns)


class Gatherer:
    """Collects columns from samples that stream by."""

    def __init__(self, wants: Iterable[Want], scratch: Path) -> None:
        self._buffers = {
            want: _Buffer(want, scratch / f"column-{number}")
            for number, want in enumerate(dict.fromkeys(wants))
        }
        self._key_path = scratch / "keys"
        self._keys: BinaryIO = self._key_path.open("wb")
        self._key_lengths = array("I")

    def add(self, sample: Sample) -> None:
        """Take what is wanted of the next sample."""
        row = len(self._key_lengths)
        key = sample.key.encode()
        self._keys.write(key)
        self._key_lengths.append(len(key))
        for buffer in self._buffers.values():
            buffer.add(row, sample)

    def close(self) -> None:
        """Close what values are written to; for who will not ask for the corpus."""
        self._keys.close()
        for buffer in self._buffers.values():
            if buffer.file is not None:
                buffer.file.close()

    def corpus(self, *, keys_are_unique: bool = True) -> Corpus:
        """Return the corpus; AccountingError when two samples have one key and may not."""
        self._keys.close()
        key_ends = np.cumsum(np.asarray(self._key_lengths, np.int64))
        key_bytes = _mapped(self._key_path)
        arrival = _sorted_keys(key_bytes, key_ends, keys_are_unique)
        rank = np.empty_like(arrival)
        rank[arrival] = np.arange(len(arrival))
        columns = {want: buffer.column(rank) for want, buffer in self._buffers.items()}
        return Corpus(arrival, columns, key_bytes, key_ends)


class _Buffer:
    """The values of one column while they come in."""

    def __init__(self, want: Want, path: Path) -> None:
        self.want = want
        self.width = want.width
        self.path = path
        self.rows = array("I")
        self.held = bytearray()
        self.file: BinaryIO | None = path.open("wb") if want.lies_in_file else None
        self.words: dict[bytes, str] = {}
        self.numbers = array("I")
        """Which word each value is, where there are few of them."""
        self.number_of: dict[bytes, int] = {}

    def add(self, row: int, sample: Sample) -> None:
        for value in self.want.of(sample):
            self.width = self.width or len(value)
            if len(value) != self.width:
                raise StepError(
                    f"{sample.key}: {self.want} has {len(value)} bytes where those before have "
                    f"{self.width}; they must be of one length. Give every sample as many numbers, "
                    "or none."
                )
            self.rows.append(row)
            if isinstance(self.want, Word):
                if value not in self.words:
                    self.words[value] = self.want.word(sample)
                    self.held += value
                self.numbers.append(self.number_of.setdefault(value, len(self.number_of)))
            elif self.file is None:
                self.held += value
            else:
                self.file.write(value)

    def column(self, rank: Ints) -> Column:
        rows = rank[np.asarray(self.rows, np.int64)]
        # stable: several values of one sample stay in their order
        at = np.argsort(rows, kind="stable")
        if self.file is None:
            store = np.frombuffer(self.held, np.uint8)
        else:
            self.file.close()
            store = _mapped(self.path)
        if isinstance(self.want, Word):
            at_word = np.asarray(self.numbers, np.int64)[at]
            return Column(rows[at], store.reshape(-1, self.width), at_word, self.words)
        # a multiple of 4, so that what has no values can be looked at as numbers, too
        return Column(rows[at], store.reshape(len(rows), self.width or 4), at, self.words)


def _mapped(path: Path) -> Bytes:
    if path.stat().st_size == 0:
        return np.empty(0, np.uint8)
    # as a plain array: memmap's own indexing is slow
    return np.asarray(np.memmap(path, np.uint8, "r"))


def _sorted_keys(key_bytes: Bytes, key_ends: Ints, are_unique: bool) -> Ints:
    """Return the numbers of the keys in their order, byte by byte."""
    if len(key_ends) == 0:
        return np.empty(0, np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), key_ends])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(key_bytes)]
    keys = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(key_ends), buffers)
    order: Ints = pc.sort_indices(keys).to_numpy().astype(np.int64)
    for start in range(0, len(order) if are_unique else 0, _KEYS_AT_ONCE):
        some = keys.take(pa.array(order[start : start + _KEYS_AT_ONCE + 1]))
        equal = pc.equal(some[1:], some[:-1])
        if pc.any(equal).as_py():
            key = some[pc.index(equal, True).as_py()].as_py().decode()
            raise AccountingError(
                f"two samples have the key {key!r}; keys must be unique in a dataset. Nothing was "
                "written. Make keys distinct where the data comes in."
            )
    return order
