"""Work of a later step that is done while the bytes are in hand.

`clean` decodes a picture to measure it, and `encode` would decode it again. So the chain of `clean`
ends with the stages of `encode` that look at nothing but one part, and puts what they make beside
the part; the chain of `encode` finds it there. Which stage made it is part of it: what another
stage, or one with other fields, has made is nobody's. What it was that could not be made is not
noted, and the step that it belongs to finds out for itself: what it says of a sample, and what it
writes, is as if nobody had worked ahead.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmcore import storage
from mmcore.core.manifest import Manifest
from mmcore.core.rows import Row
from mmcore.core.stage import BatchStage, Stage
from mmcore.core.step import fingerprint_of
from mmcore.errors import StorageError
from mmcore.sample import Json, Made, Outcome, Part, PartRef, Sample, sha256_hex

AHEAD = "ahead"
"""Under it, in the identity of a work: the stages that work ahead."""
_DOING = "ahead."

At = tuple[str, str, str]
"""What stands for a stage, and the extension and the SHA-256 of a part."""


def working_ahead(chain: Sequence[Stage], later: Sequence[Stage]) -> tuple[Stage, ...]:
    """Return those stages of a later step that a chain had better do: its bytes are in hand then.

    A chain with a model in it does not, since its stages share no decoded part.
    """
    if any(isinstance(stage, BatchStage) for stage in chain):
        return ()
    found: dict[str, Stage] = {}
    for stage in later:
        if stage.is_of_part:
            (modality,) = stage.reads
            if any(modality in one.reads for one in chain):
                found.setdefault(modality, stage)
    return tuple(found.values())


def mark_of(stage: Stage) -> str:
    """Return what stands for a stage that can work ahead; "" for any other."""
    return fingerprint_of(stage.identity())[:16] if stage.is_of_part else ""


def doing(rule: str) -> str:
    """Return what to call a stage that works ahead."""
    return _DOING + rule


def was_ahead(rule: str) -> bool:
    """Return whether a stage that worked ahead is called so."""
    return rule.startswith(_DOING)


def part_for(stage: Stage, sample: Sample) -> str | None:
    """Return the extension of the part that a stage is about."""
    (modality,) = stage.reads
    return sample.extension(modality)


def taken(stage: Stage, mark: str, sample: Sample) -> Sample | None:
    """Return a sample with what a stage has made ahead of it in its place; None without any."""
    extension = part_for(stage, sample) if mark else None
    if extension is None:
        return None
    part = sample.parts[extension]
    made = part.made
    if made is None or made.by != mark or made.of != extension:
        return None
    if made.part is None:
        return sample.with_parts({**sample.parts, extension: Part(part.ref, part.data)})
    without = sample.without_part(extension)
    return without.with_parts({**without.parts, made.extension: made.part})


def is_all_made(stages: Sequence[Stage], samples: Sequence[Sample]) -> bool:
    """Return whether stages need no bytes of any sample: all that they would make is there."""
    marks = [(stage, mark_of(stage)) for stage in stages if stage.reads]
    if not all(mark for _, mark in marks):
        return False
    for sample in samples:
        for stage, mark in marks:
            if part_for(stage, sample) is None:
                continue
            after = taken(stage, mark, sample)
            if after is None:
                return False
            sample = after
    return True


def made_of(mark: str, extension: str, before: Sample, after: Outcome) -> Made | None:
    """Return what a stage made of a part; None for what is not about it alone."""
    if after is before:
        return Made(mark, extension, extension, None)
    if not isinstance(after, Sample):
        return None
    others = {name: part for name, part in before.parts.items() if name != extension}
    new = {name: part for name, part in after.parts.items() if others.get(name) is not part}
    is_about_it = others.keys() <= after.parts.keys() and len(after.parts) == len(before.parts)
    is_same = after.meta == before.meta and after.scores == before.scores
    if not is_about_it or not is_same or len(new) != 1:
        return None
    ((name, part),) = new.items()
    return Made(mark, extension, name, part)


def with_made(sample: Sample, made: Made) -> Sample:
    """Return a sample with what was made of a part beside it."""
    whole = sample.parts[made.of]
    part = Part(whole.ref, whole.data, made)
    return sample.with_parts({**sample.parts, made.of: part})


@dataclass
class MadeBefore:
    """What stages had made of parts when the step ran before, and where that lies."""

    found: dict[At, tuple[str, str, PartRef | None]] = field(default_factory=dict)
    """The URL of the artifact, the extension, and where the bytes are."""
    last: tuple[At, Made] | None = None
    """What was made last in this run: samples of one picture follow one another."""

    def learn_row(self, row: Row, url: str) -> None:
        """Remember what a row of a committed artifact holds."""
        for part in row.sample.parts.values():
            if part.made is not None and part.ref is not None:
                made = part.made
                ref = None if made.part is None else made.part.ref
                at = (made.by, made.of, part.ref.sha256)
                self.found.setdefault(at, (url, made.extension, ref))

    def has(self, marks: Sequence[tuple[Stage, str]], sample: Sample) -> bool:
        """Return whether everything is known that stages would make of a sample."""
        for stage, mark in marks:
            extension = part_for(stage, sample)
            ref = None if extension is None else sample.parts[extension].ref
            if ref is not None and (mark, str(extension), ref.sha256) not in self.found:
                return False
        return True

    def recall(self, mark: str, extension: str, part: Part) -> Made | None:
        """Return what a stage had made of a part, with its bytes; None unless they are whole."""
        if not self.found and self.last is None:
            return None
        at = (mark, extension, _digest(part))
        if self.last is not None and self.last[0] == at:
            return self.last[1]
        known = self.found.get(at)
        if known is None:
            return None
        url, name, ref = known
        if ref is None:
            return Made(mark, extension, name, None)
        try:
            place = storage.join(url, ref.path)
            data = storage.read(place, offset=ref.offset, num_bytes=ref.num_bytes)
        except StorageError:
            return None
        if sha256_hex(data) != ref.sha256:
            return None
        return Made(mark, extension, name, Part(data=data))

    def learn(self, made: Made, part: Part) -> None:
        """Remember what a stage has just made of a part."""
        self.last = ((made.by, made.of, _digest(part)), made)

    def to_json(self) -> Json:
        """Return what is found in artifacts, as it goes to another process."""
        said: list[Json] = []
        for at, (url, name, ref) in self.found.items():
            where: Json = None
            if ref is not None:
                where = [ref.path, ref.offset, ref.num_bytes, ref.sha256]
            said.append([*at, url, name, where])
        return said

    @classmethod
    def from_json(cls, value: Any) -> "MadeBefore":
        """Return what `to_json` was asked of."""
        return cls(
            {
                (by, of, sha256): (url, name, None if ref is None else PartRef("", *ref))
                for by, of, sha256, url, name, ref in value
            }
        )


def _digest(part: Part) -> str:
    if part.ref is not None:
        return part.ref.sha256
    assert part.data is not None, "a part has bytes or a reference"
    return sha256_hex(part.data)


def has_made(manifest: Manifest, marks: Sequence[str]) -> bool:
    """Return whether an artifact of the step may hold what stages of these marks have made."""
    work: Any = manifest.identity["work"]
    return any(fingerprint_of(stage)[:16] in marks for stage in work.get(AHEAD, ()))


def marked(stages: Sequence[Stage]) -> list[tuple[Stage, str]]:
    """Return stages that work ahead, each with what stands for it."""
    return [(stage, mark_of(stage)) for stage in stages]


def besides(work: Mapping[str, Json]) -> Iterator[tuple[str, Json]]:
    """Yield what the identity of a work holds besides stages, its own and those of another step."""
    return ((name, value) for name, value in work.items() if name not in ("stages", AHEAD))
