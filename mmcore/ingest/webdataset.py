"""Tars as WebDataset makes them: members with one stem are one sample, and every part is kept.

000017.jpg  000017.txt  000017.json  000017.seg.png

Bytes stay in the tar: parts refer to them by offset. A tar is one task, and is read once.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, ClassVar

from mmcore.core import in_hand
from mmcore.errors import SampleError
from mmcore.ingest.described import DescribedLayout, with_caption
from mmcore.ingest.layout import (
    Aside,
    ContainerLayout,
    Corpus,
    Grouping,
    RawSample,
    SourceFile,
    container_sample,
    group_containers,
    record_key,
)
from mmcore.ingest.sidecar import MAX_SIDECAR_BYTES, read_metadata
from mmcore.ingest.tarwalk import Member, TarBroken, walk
from mmcore.sample import Json, Outcome, Quarantined, Sample

_METADATA = "json"
_CLASS = "cls"
# where WebDataset, Ray, Hugging Face and Energon cut a name in two
_SPLIT = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)
_SKIPPED = re.compile(r"(.*/)?__[^/]*__(/.*)?", re.DOTALL)
_EXTENSION = re.compile(r"[a-z0-9_-]+([.][a-z0-9_-]+)*")
_MAX_EXTENSION = 40


@dataclass(slots=True)
class _Group:
    """The members of one stem."""

    parts: dict[str, SourceFile] = field(default_factory=dict)
    metadata: bytes | None = None
    label: bytes | None = None
    problem: tuple[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class WebdatasetLayout(DescribedLayout, ContainerLayout):
    """Read existing tars: a sample per stem, in order of first appearance, however far apart its
    members lie. `json` becomes metadata; everything else is a part.
    """

    _label_rules: ClassVar[str] = r"folder(:-?\d+)?|path|json:.+|cls"

    def group(self, files: Sequence[SourceFile]) -> Grouping:
        return group_containers(files, _is_tar, "no_tar")

    def scan_identity(self) -> Mapping[str, Json]:
        return {"reader": "webdataset", "code_version": 1}

    def count(self, path: str, stream: BinaryIO) -> int | None:
        if not _is_tar(path):
            return None
        stems: set[int] = set()
        try:
            for member in walk(path, stream, is_wanted=lambda _name, _num_bytes: False):
                found = _split(member.name)
                if found is not None:
                    stems.add(hash(found[0]))
        except TarBroken:
            stems.add(-1)
        return len(stems)

    def records(self, raw: RawSample, corpus: Corpus) -> Iterator[Outcome | Aside]:
        tar = raw.files[""]
        groups: dict[str, _Group] = {}
        broken: TarBroken | None = None
        last = None
        with corpus.stream(tar) as stream:
            members = walk(tar.path, stream, is_wanted=_is_wanted)
            try:
                for member in members:
                    found = _split(member.name)
                    if found is None:
                        yield Aside(f"{tar.path}/{_printable(member.name)}", _why_aside(member))
                        continue
                    last = found[0]
                    _add(groups.setdefault(last, _Group()), tar, member, found[1])
            except TarBroken as error:
                broken = error
                found = _split(error.name)
                if found is not None:
                    last = found[0]
                    groups.setdefault(last, _Group())
        if broken is not None and broken.reason == "tar_truncated" and last is not None:
            # of the sample at the cut nobody knows which parts are missing
            groups[last].problem = (broken.reason, broken.detail)
            broken = None
        for number, (stem, group) in enumerate(groups.items()):
            refusal = in_hand.begin(f"{tar.path}#samples", number)
            if refusal is not None and refusal.is_last:
                rest = container_sample(raw, at=stem)
                yield Quarantined(rest, refusal.reason, refusal.detail)
                return
            if refusal is not None:
                group.problem = (refusal.reason, refusal.detail)
            yield self._outcome(tar, stem, group)
        if broken is not None:
            sample = container_sample(raw, at=str(broken.offset))
            yield Quarantined(sample, broken.reason, broken.detail)

    def _outcome(self, tar: SourceFile, stem: str, group: _Group) -> Outcome:
        parts = {ext: file.part() for ext, file in group.parts.items() if ext != _METADATA}
        known: dict[str, Json] = {
            "source": f"{tar.path}/{stem}",
            "licence": self.licence,
            "language": self.language,
        }
        fixed: dict[str, Json] = {
            "original_key": stem,
            "original_sha256": {ext: file.sha256 for ext, file in sorted(group.parts.items())},
        }
        key = record_key(tar.path, stem)
        sample = Sample(key=key, parts=parts, meta={**known, **fixed})
        try:
            if group.problem is not None:
                raise SampleError(*group.problem)
            if not parts:
                raise SampleError("sidecar_alone", f"{stem}.json has no part beside it")
            told = self._told(group)
            described = self.described(
                told,
                where=f"{tar.path}/{stem}.json",
                original_key=stem,
                folder=f"{tar.path}/{stem}".rpartition("/")[0],
            )
        except SampleError as error:
            return Quarantined(sample, error.reason, error.detail)
        sample = Sample(key=key, parts=parts, meta={**known, **described.meta, **fixed})
        return with_caption(sample, described.caption)

    def _told(self, group: _Group) -> dict[str, Json]:
        sidecar = group.parts.get(_METADATA)
        data = group.metadata or b""
        told = {} if sidecar is None else read_metadata(sidecar, lambda _: data)
        if self.label_from == _CLASS:
            label = (group.label or b"").strip()
            if not label or not label.isascii():
                raise SampleError("label_missing", f"there is no .cls, or it says {label!r:.80}")
            told["label"] = label.decode()
        return told

    def _label(self, told: Mapping[str, Json], original_key: str, folder: str) -> str | None:
        if self.label_from == _CLASS:
            return str(told["label"])
        return super()._label(told, original_key, folder)


def _is_tar(path: str) -> bool:
    return path.lower().endswith(".tar")


def _is_wanted(name: str, num_bytes: int) -> bool:
    """Whether a member is read into the metadata."""
    found = _split(name)
    return found is not None and found[1] in (_METADATA, _CLASS) and num_bytes <= MAX_SIDECAR_BYTES


def _split(name: str) -> tuple[str, str] | None:
    """Return (stem with folder, extension in lower case), or None for what readers skip."""
    match = _SPLIT.fullmatch(name)
    is_hidden = name.rpartition("/")[2].startswith(".")
    if match is None or is_hidden or _SKIPPED.fullmatch(name):
        return None
    return match[1], match[2].lower()


def _why_aside(member: Member) -> str:
    base = member.name.rpartition("/")[2]
    if base.startswith("."):
        return "hidden"
    return "reserved_name" if _SKIPPED.fullmatch(member.name) else "no_extension"


def _add(group: _Group, tar: SourceFile, member: Member, extension: str) -> None:
    name = _printable(member.name)
    if member.problem is not None:
        group.problem = member.problem
    elif member.refused:
        group.problem = ("tar_member_refused", f"{name}: {member.refused}")
    elif not _EXTENSION.fullmatch(extension) or len(extension) > _MAX_EXTENSION:
        group.problem = ("tar_member_refused", f"{name}: its extension is no name of a part")
    elif extension in group.parts:
        group.problem = ("part_ambiguous", f"{name} comes twice")
    else:
        file = SourceFile(tar.path, member.num_bytes, member.sha256, member.offset)
        group.parts[extension] = file
        if extension == _METADATA:
            group.metadata = member.data
        elif extension == _CLASS:
            group.label = member.data


def _printable(name: str) -> str:
    return name if name.isprintable() else ascii(name)[1:-1]
