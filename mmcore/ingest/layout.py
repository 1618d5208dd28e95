"""How the files of a raw corpus form samples: one `Layout` per way of laying them out.

Three moments, the same for every kind of source. The scan lists and hashes the files. `group` looks
at their names alone, in the driver, and says which belong together: the files of one sample, or one
file that holds many (`ContainerLayout`). `read` opens such a group where a worker writes its
samples, and yields one outcome for each sample found, broken ones too.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import BinaryIO, ClassVar, Protocol

import pyarrow as pa

from mmcore.core.decoder_limits import DecoderLimits
from mmcore.core.reader import Gathered
from mmcore.core.stage import Component
from mmcore.sample import (
    Json,
    Outcome,
    Part,
    PartRef,
    Quarantined,
    Sample,
    modality_of,
    sha256_hex,
)

MAX_KEY_BYTES = 80
_NUM_HASH_DIGITS = 16
_ASCII_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of the corpus, as it was scanned."""

    path: str
    num_bytes: int
    sha256: str
    offset: int = 0
    """Where it begins, for a member of a larger file."""

    def part(self) -> Part:
        """Return the file as a part whose bytes stay where they are."""
        return Part(ref=PartRef("source", self.path, self.offset, self.num_bytes, self.sha256))


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


@dataclass(frozen=True, slots=True)
class Aside:
    """Something that was found and is part of no sample."""

    path: str
    """Of a file, or of a member of one: `train-000000.tar/._cat.jpg`."""
    reason: str


@dataclass(frozen=True, slots=True)
class Arrived:
    """What became of a URL when the source was scanned."""

    url: str
    ref: PartRef | None
    reason: str = ""
    detail: str = ""
    extension: str = ""
    """By the first bytes of what arrived."""


ReadFile = Callable[[SourceFile], bytes]


class Corpus(Protocol):
    """What a worker may read of the corpus; bytes that are not those of the scan are an error."""

    def read(self, file: SourceFile) -> bytes:
        """Return the bytes of a file or member."""
        ...

    def stream(self, file: SourceFile) -> AbstractContextManager[BinaryIO]:
        """Open a file for reading once from its beginning; on leaving, its SHA-256 is compared."""
        ...

    def seekable(self, file: SourceFile) -> AbstractContextManager[BinaryIO]:
        """Open a file for reading anywhere, after its SHA-256 was compared."""
        ...

    def find(self, paths: Sequence[str]) -> Mapping[str, SourceFile]:
        """Return those of the files that the scan found."""
        ...

    def arrived(self, path: str) -> Iterator[Arrived]:
        """Yield what became of the URLs of a list, in the list's order."""
        ...


@dataclass(frozen=True, kw_only=True)
class Layout(Component):
    """A way to lay out a corpus. Its fields are its configuration."""

    def group(self, files: Sequence[SourceFile]) -> Grouping:
        """Return the samples that the files form, by name alone, whatever their order."""
        raise NotImplementedError

    def around(self, paths: pa.ChunkedArray) -> pa.ChunkedArray | None:
        """Return for each path what it lies around, or None where any files may meet.

        Files that lie around different things never meet: not in a sample, nor with one key.
        """
        return None

    def make(self, raw: RawSample, read_file: ReadFile) -> Made:
        """Return the samples of a group; `read_file` gives the checked bytes of a file of it."""
        raise NotImplementedError

    def opens(self, raw: RawSample) -> bool:
        """Return whether files must be opened to tell what a group holds."""
        return True

    def read(self, raw: RawSample, corpus: Corpus) -> Iterator[Outcome | Aside]:
        """Yield what a group turns out to hold.

        Of groups that must be opened this is asked in the decoder process. What reads many records
        says which one is in hand (`core/in_hand.py`), and steps over those that are refused.
        """
        made = self.make(raw, corpus.read)
        yield from made.outcomes
        yield from (Aside(path, reason) for path, reason in made.unclaimed)

    def refused(self, raw: RawSample, reason: str, detail: str, num_found: int) -> Quarantined:
        """Return what stands for all that is not read of a group, behind what was found in it."""
        sample = container_sample(raw, at=str(num_found))
        if num_found:
            return Quarantined(sample, reason, detail)
        parts = {role: file.part() for role, file in raw.files.items() if modality_of(role)}
        return Quarantined(replace(sample, key=raw.key, parts=parts), reason, detail)

    def settled(
        self, raw: RawSample, found: Iterable[Outcome | Aside]
    ) -> Iterator[Outcome | Aside]:
        """Yield what was found in a group under names that it has alone."""
        yield from found


@dataclass(frozen=True, kw_only=True)
class ContainerLayout(Layout):
    """A corpus of files that hold many samples each: a group is one such file, and one task.

    Keys begin with the path of the file, so that no two files can give one key; a key that comes
    twice in one file is quarantined the second time.
    """

    names_files: ClassVar[bool] = False
    """Whether samples may be made of other files of the corpus, which only the content names."""

    def records(self, raw: RawSample, corpus: Corpus) -> Iterable[Outcome | Aside]:
        """Yield the samples of a file, in its order, holding few of them at a time."""
        raise NotImplementedError

    def read(self, raw: RawSample, corpus: Corpus) -> Iterator[Outcome | Aside]:
        if raw.problem is not None:
            yield Quarantined(container_sample(raw), *raw.problem)
        else:
            yield from self.records(raw, corpus)

    def refused(self, raw: RawSample, reason: str, detail: str, num_found: int) -> Quarantined:
        return Quarantined(container_sample(raw, at=str(num_found)), reason, detail)

    def settled(
        self, raw: RawSample, found: Iterable[Outcome | Aside]
    ) -> Iterator[Outcome | Aside]:
        seen: set[int] = set()
        for number, one in enumerate(found):
            if isinstance(one, Aside):
                yield one
                continue
            sample = one if isinstance(one, Sample) else one.sample
            hashed = hash(sample.key)  # only for this process: nothing is decided by its order
            if hashed in seen:
                key = _with_hash(sample.key, f"{raw.original_key}#{number}")
                detail = f"an earlier sample of {raw.original_key} has the key {sample.key}"
                yield Quarantined(replace(sample, key=key), "key_taken", detail)
            else:
                seen.add(hashed)
                yield one

    def scan_identity(self) -> Mapping[str, Json]:
        """Return what decides the scan: which files are counted, and how."""
        raise NotImplementedError

    def count(self, path: str, stream: BinaryIO) -> int | None:
        """Return how many samples a file holds, or None for a file that is none of ours."""
        raise NotImplementedError

    def lists(self, paths: Sequence[str]) -> list[str]:
        """Return those of the files that name URLs."""
        return []

    def gather(
        self, path: str, *, url: str, store_url: str, num_workers: int, limits: DecoderLimits
    ) -> Gathered:
        """Fetch what a list names."""
        raise NotImplementedError


def container_sample(raw: RawSample, *, at: str = "") -> Sample:
    """Return what stands in the accounts for a file, or for what follows a place in it, of which
    nothing can be read.
    """
    fixed: dict[str, Json] = {"original_key": raw.original_key, "source": raw.original_key}
    key = make_key(f"{stem_of(raw.original_key)}//{at}") if raw.problem is None else raw.key
    return Sample(key=key, meta=fixed)


def record_key(path: str, name: str) -> str:
    """Return the key of a sample within a file: no two files can give the same.

    >>> record_key("train/train-000000.tar", "000017")
    'train__train-000000__000017'
    """
    # a slash in the name must not look like one in the path
    return make_key(f"{stem_of(path)}{'//' if '/' in name else '/'}{name}")


def group_containers(
    files: Sequence[SourceFile], is_container: Callable[[str], bool], why_not: str
) -> Grouping:
    """Return a group per file that holds samples; the others are left aside under `why_not`."""
    samples = []
    unclaimed = []
    for file in files:
        if is_hidden(file.path):
            unclaimed.append((file.path, "hidden"))
        elif is_container(file.path):
            samples.append(RawSample(make_key(stem_of(file.path)), file.path, {"": file}))
        else:
            unclaimed.append((file.path, why_not))
    return Grouping(with_unique_keys(samples), sorted(unclaimed))


def is_hidden(path: str) -> bool:
    """Return whether a file, or a folder on the way to it, begins with a dot."""
    return path.startswith(".") or "/." in path


def stem_of(path: str) -> str:
    """Return what the keys of a container's samples begin with: no two paths give the same.

    >>> stem_of("train/train-000000.tar"), stem_of("captions.jsonl.gz")
    ('train/train-000000', 'captions-jsonl-gz')
    """
    if path.endswith(".tar"):
        return path.removesuffix(".tar")
    folder, slash, name = path.rpartition("/")
    return folder + slash + name.replace(".", "-")


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
