"""What was measured before need not be measured again.

The rows that a step committed say what was measured of which bytes; the facts of its manifest say
by what. A later run of the step, with other limits or more samples, takes over every score whose
bytes and whose measuring are the same, so that it loads and decodes nothing for them. What it
writes does not depend on it: a memory that is gone, damaged or of other bytes is none.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmcore.core.ahead import MadeBefore, besides
from mmcore.core.decoder_limits import DEATHS
from mmcore.core.manifest import Manifest
from mmcore.core.measured import FAILURE, Measured
from mmcore.core.rows import Row
from mmcore.core.stage import Stage, class_rule
from mmcore.core.step import canonical_json
from mmcore.sample import MODALITIES, Json, Part, Quarantined, Sample, sha256_hex

FACT = "measured"
GIVEN, REWRITTEN = "given", "rewritten"
"""Of parts as they came into the step, and of those that a stage of the step replaced."""
_META = "meta:"

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
