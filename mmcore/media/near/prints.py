"""A print: what is left of a picture, sound, film or text to compare it by.

A print is a few hundred bytes, in base64 in a sample's metadata. Prints of one modality have one
length, so that those of a corpus are one array of bytes, held in memory or mapped from a file.
"""

import base64
import binascii
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmcore.errors import StepError
from mmcore.sample import Json, Sample

PRINT_PREFIX = "print_"
"""Metadata fields that begin with it hold prints: of use to rules, and to no reader of shards."""

HASH_BITS = 64
LUMA_SIDE = 16
CHROMA_SIDE = 4
PICTURE_PRINT_BYTES = HASH_BITS // 8 + LUMA_SIDE**2 + 2 * CHROMA_SIDE**2
NUM_FRAMES = 8
SOUND_BYTES = 64
NUM_BINS = 256

_FLOAT_BYTES = 4
_ROWS_AT_ONCE = 1 << 12
PRINT_BYTES = {
    "image": PICTURE_PRINT_BYTES,
    "video": NUM_FRAMES * HASH_BITS // 8 + _FLOAT_BYTES,
    "audio": SOUND_BYTES + 3 * _FLOAT_BYTES,
    "text": NUM_BINS,
}

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Words = np.ndarray[Any, np.dtype[np.uint64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Prints:
    """Prints of one modality, by number; wherever they lie, few are in memory at a time."""

    store: Bytes
    """[any number, bytes of a print]."""
    at: Ints
    """Which row of the store is each print."""

    def __len__(self) -> int:
        return len(self.at)

    def take(self, numbers: Any) -> Bytes:
        """Return some prints whole."""
        found = np.asarray(self.store[self.at[numbers]])
        _let_go(self.store)
        return found

    def cut(self, start: int, stop: int) -> Bytes:
        """Return these bytes of every print, [N, stop - start]."""
        found = np.empty((len(self), stop - start), np.uint8)
        for first in range(0, len(self), _ROWS_AT_ONCE):
            some = self.at[first : first + _ROWS_AT_ONCE]
            found[first : first + _ROWS_AT_ONCE] = self.store[some, start:stop]
            _let_go(self.store)
        return found

    def words(self, num_words: int) -> Words:
        """Return the hashes that prints begin with, [N, num_words]."""
        return hash_words(self.cut(0, num_words * 8), num_words)

    def pieces(self) -> Iterator[Bytes]:
        """Yield all prints whole, some at a time."""
        for first in range(0, len(self), _ROWS_AT_ONCE):
            yield self.take(slice(first, first + _ROWS_AT_ONCE))


def _let_go(store: Bytes) -> None:
    """Let the pages of a mapped file go: they count as ours as long as they are mapped."""
    base: Any = store
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)


def held(prints: Bytes) -> Prints:
    """Return prints that are in memory."""
    return Prints(prints, np.arange(len(prints), dtype=np.int64))


def with_print(sample: Sample, modality: str, data: bytes | None) -> Sample:
    """Return the sample with a print in its metadata; "" where there is nothing to compare."""
    if data is None:
        return sample.with_meta(**{PRINT_PREFIX + modality: ""})
    assert len(data) == PRINT_BYTES[modality], f"a print of {modality} has another length"
    return sample.with_meta(**{PRINT_PREFIX + modality: base64.b64encode(data).decode()})


def with_vector_print(sample: Sample, name: str, vector: Any) -> Sample:
    """Return the sample with an embedding among its prints, in float16."""
    data = np.asarray(vector, "<f2").tobytes()
    return sample.with_meta(**{PRINT_PREFIX + name: base64.b64encode(data).decode()})


def vector_of(sample: Sample, field: str) -> Any:
    """Return the embedding in a metadata field, float32, or None: a print, or a list of numbers.

    StepError for what is neither.
    """
    value: Any = sample.meta.get(field)
    if not value:
        return None
    try:
        if field.startswith(PRINT_PREFIX) and isinstance(value, str):
            return np.frombuffer(base64.b64decode(value, validate=True), "<f2").astype(np.float32)
        return np.array(value, np.float32).reshape(-1)
    except (ValueError, TypeError) as error:
        raise StepError(
            f"{sample.key}: metadata field {field!r} is no vector: {error}. Give every sample a "
            "list of numbers, or none."
        ) from error


def without_prints(meta: Mapping[str, Json]) -> dict[str, Json]:
    """Return metadata for people and readers of shards, who have no use for prints."""
    return {name: value for name, value in meta.items() if not name.startswith(PRINT_PREFIX)}


def print_of(sample: Sample, modality: str) -> bytes | None:
    """Return the print of a modality, or None where there is nothing to compare.

    StepError for one that is lacking or not ours.
    """
    name, length = PRINT_PREFIX + modality, PRINT_BYTES[modality]
    value = sample.meta.get(name)
    if value is None and sample.extension(modality) is not None:
        raise StepError(
            f"{sample.key} has {modality} but no {name!r}, which near duplicates are found by. "
            f"Add the stage sign_{modality} at the end of `clean`."
        )
    if not value:
        return None
    try:
        data = base64.b64decode(str(value), validate=True)
    except binascii.Error:
        data = b""
    if len(data) != length:
        raise StepError(
            f"{sample.key}: metadata field {name!r} is no print of {length} bytes. Leave it to "
            f"the stage sign_{modality}, and rename the field where the data comes in."
        )
    return data


def hash_words(prints: Bytes, num_words: int) -> Words:
    """Return the first words of prints as [N, num_words]; what begins a print is big-endian."""
    words = np.ascontiguousarray(prints[:, : num_words * 8]).view(">u8")
    return words.astype(np.uint64).reshape(len(prints), num_words)


def floats_of(prints: Bytes, num_floats: int) -> Floats:
    """Return the numbers that prints of sound and film end with, [N, num_floats]."""
    ends = np.ascontiguousarray(prints[:, -num_floats * _FLOAT_BYTES :])
    return ends.view("<f4").astype(np.float64).reshape(len(prints), num_floats)


def float_bytes(*values: float) -> bytes:
    """Return numbers as the end of a print."""
    return np.array(values, "<f4").tobytes()


def luma_of(prints: Bytes) -> Floats:
    """Return the thumbnails of prints of pictures, [N, 256]."""
    start = HASH_BITS // 8
    return prints[:, start : start + LUMA_SIDE**2].astype(np.float64)


def chroma_of(prints: Bytes) -> Ints:
    """Return the colours of prints of pictures, [N, 32]."""
    return prints[:, -2 * CHROMA_SIDE**2 :].astype(np.int64)
