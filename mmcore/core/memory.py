"""What was measured before need not be measured again.

The rows that a step committed say what was measured of which bytes; the facts of its manifest say
by what. A later run of the step, with other limits or more samples, takes over every score whose
bytes and whose measuring are the same, so that it loads and decodes nothing for them. What it
writes does not depend on it: a memory that is gone, damaged or of other bytes is none.
"""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from mmcore import storage
from mmcore.core.ahead import MadeBefore, besides, has_made, marked
from mmcore.core.decoder_limits import DEATHS
from mmcore.core.manifest import FileRecord, Manifest, load_manifest
from mmcore.core.measured import FAILURE, Measured
from mmcore.core.rows import Row, read_rows_file, rows_files
from mmcore.core.stage import Stage, class_rule
from mmcore.core.step import Artifact, canonical_json
from mmcore.errors import IntegrityError, StorageError
from mmcore.sample import MODALITIES, Json, Part, Quarantined, Sample, sha256_hex

FACT = "measured"
GIVEN, REWRITTEN = "given", "rewritten"
"""Of parts as they came into the step, and of those that a stage of the step replaced."""
_META = "meta:"
_LIMITS = "limits"
_TAIL_BYTES = 64 * 1024
_MAX_FILES = 64
"""Read for one task at the most: beyond it, looking costs more than measuring."""

Names = Mapping[str, Mapping[str, str]]
"""By modality: the name of a score, or of metadata behind `meta:`, and what measures it."""


@dataclass(frozen=True)
class Measuring:
    """What a chain of stages measures, up to one of them or to its end."""

    given: Names
    rewritten: Names

    def of(self, part: Part, modality: str) -> Mapping[str, str]:
        """Return what measures which score of a part; one without a reference is a new one."""
        return (self.rewritten if part.ref is None else self.given).get(modality, {})

    def facts(self) -> dict[str, Json]:
        """Return what the manifest of a step says of it."""
        value: Any = {GIVEN: self.given, REWRITTEN: self.rewritten}
        return {FACT: value} if self.given else {}


def measuring(stages: Sequence[Stage]) -> Measuring:
    """Return which of the stages measures each score first.

    Of a part that was replaced, those scores alone that are measured only after it was.
    """
    given: dict[str, dict[str, str]] = {}
    rewritten: dict[str, dict[str, str]] = {}
    of_the_old: dict[str, set[str]] = {}
    for stage in stages:
        for modality in MODALITIES if stage.rewrites is None else stage.rewrites:
            rewritten.pop(modality, None)
            of_the_old[modality] = set(given.get(modality, ()))
        if isinstance(stage, Measured):
            (modality,) = stage.reads
            by = stage.measuring()
            for name in _names(stage):
                given.setdefault(modality, {}).setdefault(name, by)
                if name not in of_the_old.get(modality, ()):
                    rewritten.setdefault(modality, {}).setdefault(name, by)
    return Measuring(given, rewritten)


@dataclass(frozen=True)
class Failure:
    """What a stage said of a sample that it found broken."""

    stage: Mapping[str, Json]
    """Its identity."""
    reason: str
    detail: str
    scores: frozenset[str]
    """What had been measured."""

    def is_of(self, stage: Measured) -> bool:
        """Return whether a stage would fail to measure it for the same reason."""
        if self.scores.issuperset(stage.score_names()):
            return False
        free = set(stage.limits) - set(stage.guards)
        mine, its = stage.identity(), self.stage
        same = [{name: one[name] for name in one.keys() - free} for one in (mine, its)]
        return canonical_json(same[0]) == canonical_json(same[1])


@dataclass
class Memory:
    """What is known of parts by what they hold: scores, and failures to measure."""

    work: Mapping[str, Json] = field(default_factory=dict)
    """The identity of the work. What it holds besides stages (limits of time and memory) may decide
    whether a part can be measured: failures under another are none."""
    known: dict[tuple[str, str], dict[tuple[str, str], Json]] = field(default_factory=dict)
    """By modality and SHA-256: the value by its name and what measured it."""
    failures: dict[tuple[str, str], list[Failure]] = field(default_factory=dict)
    """By modality and SHA-256."""
    made: MadeBefore = field(default_factory=MadeBefore)
    """What was made ahead for a later step."""

    def to_json(self) -> dict[str, Json]:
        """Return all of it as it goes to the process that measures."""
        names: dict[tuple[str, str], int] = {}
        known: list[Json] = [
            [*at, [[names.setdefault(name, len(names)), value] for name, value in values.items()]]
            for at, values in self.known.items()
        ]
        failures: list[Json] = [
            [*at, dict(one.stage), one.reason, one.detail, [*sorted(one.scores)]]
            for at, found in self.failures.items()
            for one in found
        ]
        return {
            "work": dict(self.work),
            "names": [list(name) for name in names],
            "known": known,
            "failures": failures,
            "made": self.made.to_json(),
        }

    @classmethod
    def from_json(cls, value: Any) -> "Memory":
        """Return what `to_json` was asked of."""
        names = [(name, by) for name, by in value["names"]]
        known = {
            (modality, sha256): {names[number]: found for number, found in values}
            for modality, sha256, values in value["known"]
        }
        failures: dict[tuple[str, str], list[Failure]] = {}
        for modality, sha256, stage, reason, detail, scores in value["failures"]:
            failure = Failure(stage, reason, detail, frozenset(scores))
            failures.setdefault((modality, sha256), []).append(failure)
        return cls(value["work"], known, failures, MadeBefore.from_json(value["made"]))

    def recall(self, stage: Measured, wanted: Measuring, sample: Sample) -> tuple[Sample, bool]:
        """Return a sample with the scores of a stage, if all that it lacks are known, and whether
        it has them now.

        A failure that is known is as good; it is left in the scratch, where the stage finds it.
        """
        (modality,) = stage.reads
        extension = sample.extension(modality)
        if extension is None or stage.is_measured(sample):
            return sample, True
        part = sample.parts[extension]
        digest = _digest(part)
        by = wanted.of(part, modality)
        known = self.known.get((modality, digest), {})
        found = {
            name: known[name, by[name]]
            for name in _names(stage)
            if name in by and (name, by[name]) in known
        }
        recalled = _with(sample, found)
        if stage.is_measured(recalled):
            # what a limit refuses as broken was refused before it had scores: so it is again
            is_broken = isinstance(stage.decide(recalled), Quarantined)
            return (sample, False) if is_broken else (recalled, True)
        for failure in self.failures.get((modality, digest), ()):
            if failure.is_of(stage):
                sample.scratch[(extension, FAILURE)] = (failure.reason, failure.detail)
                return sample, True
        return sample, False

    def learn(self, sample: Sample, measuring: Measuring, modalities: Iterable[str]) -> None:
        """Remember what was measured of the first part of some modalities."""
        for modality in modalities:
            extension = sample.extension(modality)
            if extension is not None:
                part = sample.parts[extension]
                known = self.known.setdefault((modality, _digest(part)), {})
                known |= _values(sample, measuring.of(part, modality))

    def learn_row(self, row: Row, made: Manifest) -> None:
        """Remember what a row of a committed artifact of the step says."""
        facts: Any = made.facts.get(FACT, {GIVEN: {}})
        for modality in facts[GIVEN]:
            extension = row.sample.extension(modality)
            if extension is None:
                continue
            part = row.sample.parts[extension]
            assert part.ref is not None, "rows hold references"
            kind = REWRITTEN if part.ref.base == made.step else GIVEN
            names: Mapping[str, str] = facts[kind].get(modality, {})
            at = (modality, part.ref.sha256)
            self.known.setdefault(at, {}).update(_values(row.sample, names))
            is_alike = _besides(made.identity["work"]) == _besides(self.work)
            if row.status == "quarantined" and is_alike:
                self.failures.setdefault(at, []).extend(_failures(row, made))

    def knows(self, row: Row, wanted: Measuring) -> bool:
        """Return whether everything wanted of the parts of a row is known, as they are there."""
        for modality, names in wanted.given.items():
            extension = row.sample.extension(modality)
            ref = None if extension is None else row.sample.parts[extension].ref
            if ref is not None:
                known = self.known.get((modality, ref.sha256), {})
                if any(name not in known for name in names.items()):
                    return False
        return True


def places(
    directory: str,
    wanted: Measuring,
    ahead: Sequence[Stage],
    work: Mapping[str, Json],
    inputs: Artifact,
    records: Sequence[FileRecord],
) -> list[list[list[Json]]]:
    """Return, for each file of the input, the files of earlier artifacts that may know of it.

    Each as [URL of the artifact, path]. An artifact of the same input is divided the same way; of
    others those files are taken whose keys lie among those of the input's, the largest first. The
    samples of an increment are new, and nothing is looked for: it costs what it holds.
    """
    found: list[list[list[Json]]] = [[] for _ in records]
    if not (wanted.given or ahead) or "base" in inputs.manifest.identity:
        return found
    alike: list[Artifact] = []
    others: list[Artifact] = []
    for artifact in _useful(directory, wanted, ahead, work):
        had: Any = artifact.manifest.identity["inputs"]
        is_alike = inputs.manifest.fingerprint in had.values()
        (alike if is_alike else others).append(artifact)
    for artifact in alike:
        for place, record in zip(found, rows_files(artifact), strict=False):
            place.append([artifact.url, record.path])
    files = [(artifact, record) for artifact in others for record in rows_files(artifact)]
    ranges = [_keys(inputs, record) for record in records] if files else []
    for artifact, record in sorted(files, key=lambda file: -(file[1].num_samples or 0)):
        there = _keys(artifact, record)
        for place, keys in zip(found, ranges, strict=True):
            if there and keys and there[0] <= keys[1] and keys[0] <= there[1]:
                place.append([artifact.url, record.path])
    return [place[:_MAX_FILES] for place in found]


def load_memory(
    files: Sequence[Sequence[Any]],
    wanted: Measuring,
    ahead: Sequence[Stage],
    keys: Iterable[str],
    work: Mapping[str, Json],
) -> Memory:
    """Return what files of earlier artifacts know of the samples with these keys.

    They are read until all is known. Whatever is not as it was committed is not believed.
    """
    memory = Memory(work=work)
    missing, marks = set(keys), marked(ahead)
    for url, path in files:
        if not missing:
            break
        for row, made in _rows(url, path):
            if row.sample.key in missing:
                memory.learn_row(row, made)
                if marks:
                    memory.made.learn_row(row, url)
                if memory.knows(row, wanted) and memory.made.has(marks, row.sample):
                    missing.discard(row.sample.key)
    return memory


def _rows(url: str, path: str) -> Iterator[tuple[Row, Manifest]]:
    made = _manifest(url)
    if made is None:
        return
    record = next((file for file in made.files if file.path == path), None)
    if record is None:
        return
    try:
        rows = list(read_rows_file(Artifact(url, made), record))
    except (IntegrityError, StorageError):
        # a memory and no more: what it does not say is measured
        return
    for row in rows:
        yield row, made


@lru_cache(maxsize=64)
def _manifest(url: str) -> Manifest | None:
    return load_manifest(url)


def _useful(
    directory: str, wanted: Measuring, ahead: Sequence[Stage], work: Mapping[str, Json]
) -> Iterator[Artifact]:
    """Yield the artifacts of a step, of whatever configuration, that know what is wanted."""
    marks = [mark for _, mark in marked(ahead)]
    for version in storage.list_directories(directory):
        url = storage.join(directory, version)
        try:
            made = load_manifest(url)
        except IntegrityError:
            continue
        if made is None or not _is_within(made, work):
            continue
        if _has_use(made, wanted) or has_made(made, marks):
            yield Artifact(url, made)


def _is_within(made: Manifest, work: Mapping[str, Json]) -> bool:
    """Whether what could be measured then can be now: what a sample may cost is no less."""
    its, mine = (cast("Any", one).get(_LIMITS) for one in (made.identity["work"], work))
    if its is None or mine is None:
        return its is mine
    return its.keys() == mine.keys() and all(its[name] <= mine[name] for name in its)


def _has_use(made: Manifest, wanted: Measuring) -> bool:
    """Whether any score was measured as it would be now."""
    facts: Any = made.facts.get(FACT)
    if facts is None:
        return False
    return any(
        facts[kind].get(modality, {}).get(name) == by
        for kind, names in ((GIVEN, wanted.given), (REWRITTEN, wanted.rewritten))
        for modality, measured in names.items()
        for name, by in measured.items()
    )


def _keys(artifact: Artifact, record: FileRecord) -> tuple[str, str] | None:
    """Return the first and the last key in a file of rows, by its footer; None without any."""
    url = storage.join(artifact.url, record.path)
    try:
        tail = storage.read(url, offset=max(0, record.num_bytes - _TAIL_BYTES))
        if int.from_bytes(tail[-8:-4], "little") + 8 > len(tail):
            tail = storage.read(url)
        metadata = pq.read_metadata(io.BytesIO(tail))
    except (StorageError, pa.ArrowInvalid):
        return None
    # the first column of the table
    groups = [metadata.row_group(i).column(0) for i in range(metadata.num_row_groups)]
    ranges = [one.statistics for one in groups if one.is_stats_set and one.statistics.has_min_max]
    if not ranges or len(ranges) < len(groups):
        return None
    return min(one.min for one in ranges), max(one.max for one in ranges)


def _besides(work: Any) -> bytes:
    return canonical_json(dict(besides(work)))


def _failures(row: Row, made: Manifest) -> Iterator[Failure]:
    """Yield what a broken sample says, where it is certain which stage found it so."""
    if row.reason in DEATHS:
        return
    work: Any = made.identity["work"]
    stages = [one for one in work["stages"] if class_rule(one["stage"]) == row.rule]
    if len(stages) == 1:
        yield Failure(stages[0], row.reason, row.detail, frozenset(row.sample.scores))


def _names(stage: Measured) -> tuple[str, ...]:
    return (*stage.score_names(), *(f"{_META}{name}" for name in stage.stores_meta))


def _values(sample: Sample, names: Mapping[str, str]) -> dict[tuple[str, str], Json]:
    """Return what a sample has of some scores and metadata, by name and what measured it."""
    there: dict[str, Json] = {f"{_META}{name}": value for name, value in sample.meta.items()}
    there |= sample.scores
    return {(name, by): there[name] for name, by in names.items() if name in there}


def _with(sample: Sample, values: Mapping[str, Json]) -> Sample:
    meta = {
        name.removeprefix(_META): value for name, value in values.items() if name.startswith(_META)
    }
    scores: Any = {name: value for name, value in values.items() if not name.startswith(_META)}
    return sample.with_scores(**scores).with_meta(**meta)


def _digest(part: Part) -> str:
    if part.ref is not None:
        return part.ref.sha256
    assert part.data is not None, "a part has bytes or a reference"
    return sha256_hex(part.data)
