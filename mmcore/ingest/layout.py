"""How the files of a raw corpus form samples: one `Layout` per way of laying them out.

Grouping looks at names alone and runs in the driver. Whatever must be read (sidecars, captions) is
read later, by the worker that writes the samples.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from mmcore.core.stage import Component
from mmcore.sample import Outcome, Part, PartRef, modality_of, sha256_hex

MAX_KEY_BYTES = 80
_NUM_HASH_DIGITS = 16
_ASCII_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of the corpus, as it was scanned."""

    path: str
    num_bytes: int
    sha256: str

    def part(self) -> Part:
        """Return the file as a part whose bytes stay where they are."""
        return Part(ref=PartRef("source", self.path, 0, self.num_bytes, self.sha256))


@dataclass(frozen=True, slots=True)
class RawSample:
    """The files that belong together, before any of them was opened."""

    key: str
    original_key: str
    """What the corpus calls it: its path without extension."""
    files: Mapping[str, SourceFile]
    """By extension, or by the role that the layout gives a file."""
    problem: tuple[str, str] | None = None
    """Reason and detail, where the names alone show that the sample cannot be used."""


@dataclass(frozen=True)
class Grouping:
    """Every file of a corpus: part of a sample, or left aside with a reason."""

    samples: Sequence[RawSample]
    """Sorted by original key; keys are unique."""
    unclaimed: Sequence[tuple[str, str]]
    """(path, reason), sorted."""


@dataclass(frozen=True)
class Made:
    """What came of one raw sample when it was opened."""

    outcomes: Sequence[Outcome]
    unclaimed: Sequence[tuple[str, str]] = ()
    """Files of it that turned out to be of no use, which only their content could tell."""


ReadFile = Callable[[SourceFile], bytes]


@dataclass(frozen=True, kw_only=True)
class Layout(Component):
    """A way to lay out a corpus. Its fields are its configuration."""

    def group(self, files: Sequence[SourceFile]) -> Grouping:
        """Return the samples that the files form, by name alone, whatever their order."""
        raise NotImplementedError

    def make(self, raw: RawSample, read_file: ReadFile) -> Made:
        """Return the samples of a group; `read_file` gives the checked bytes of a file of it."""
        raise NotImplementedError


def make_key(original_key: str) -> str:
    """Return a key of at most 80 of the characters a-z, 0-9, _ and -, for a path in a corpus.

    Two originals have one key only if they differ in nothing but ASCII case.

    >>> make_key("animals/birds/Owl")
    'animals__birds__owl'
    >>> make_key("caf\u00e9")
    'caf_-850f7dc43910ff89'
    """
    lowered = original_key.translate(_ASCII_LOWER)
    key = re.sub(r"[^a-z0-9_-]+", "_", lowered.replace("/", "__"))
    if key and len(key) <= MAX_KEY_BYTES and key.replace("__", "/") == lowered:
        return key
    return _with_hash(key, lowered)


def with_unique_keys(samples: Sequence[RawSample]) -> list[RawSample]:
    """Return the samples sorted by original key, later ones of one key set aside under another."""
    first_of: dict[str, str] = {}
    unique = []
    for raw in sorted(samples, key=lambda raw: raw.original_key):
        if raw.key in first_of:
            detail = f"{raw.original_key} would have the key {raw.key} of {first_of[raw.key]}"
            key = _with_hash(raw.key, raw.original_key)
            raw = replace(raw, key=key, problem=raw.problem or ("key_taken", detail))
        first_of[raw.key] = raw.original_key
        unique.append(raw)
    return unique


def ambiguous_parts(extensions: Sequence[str]) -> list[str]:
    """Return the extensions, sorted, that share a modality with another one."""
    modalities = [modality_of(extension) for extension in extensions]
    return sorted(
        extension
        for extension, modality in zip(extensions, modalities, strict=True)
        if modality is not None and modalities.count(modality) > 1
    )


def _with_hash(key: str, original: str) -> str:
    digits = sha256_hex(original.encode("utf-8", "surrogateescape"))[:_NUM_HASH_DIGITS]
    return f"{key[: MAX_KEY_BYTES - _NUM_HASH_DIGITS - 1]}-{digits}"
