"""The step that turns a scanned corpus into samples: one task per slice of the groups."""

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc

from mmcore import storage
from mmcore.core.change import GONE_NAME, Change, gone_table
from mmcore.core.decoder_limits import DecoderLimits
from mmcore.core.lineage import SHARD_STEP, held
from mmcore.core.manifest import Counts, FileRecord
from mmcore.core.rows import file_record, rows_files, table_bytes, write_part
from mmcore.core.source import SCAN_STEP
from mmcore.core.step import Artifact, Inputs, Task, TaskContext, TaskReport
from mmcore.core.tables import read_table
from mmcore.core.tombstones import FORGOTTEN
from mmcore.errors import StepError
from mmcore.ingest.again import (
    ORIGINS_SUFFIX,
    Again,
    Origins,
    Place,
    came_out,
    digest_of_outcome,
    known_digests,
    look_again,
)
from mmcore.ingest.captions import one_per_caption
from mmcore.ingest.compare import Difference, difference
from mmcore.ingest.corpus import OpenCorpus, read_file_table, source_files
from mmcore.ingest.layout import Aside, ContainerLayout, Layout, RawSample
from mmcore.ingest.opened import opened, raw_from, raw_to_json
from mmcore.ingest.slices import files_of, in_slices
from mmcore.sample import Dropped, Json, Outcome, Sample

UNCLAIMED_NAME = "unclaimed.parquet"
RULE = "ingest"
_SCRATCH = "_tasks/"
_MAX_PART_BYTES = 64 << 20
_UNCLAIMED_SCHEMA = pa.schema([("path", pa.string()), ("reason", pa.string())])


@dataclass(frozen=True)
class Opened:
    """A raw sample that a task looks at, and what it has to know of what that gave earlier."""

    raw: RawSample
    places: Sequence[Place] = ()
    anew: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class IngestWork:
    """Group the files of the scan by a layout, and write a row for every sample.

    Of a corpus that has changed, for every sample that is new or came out otherwise than before.
    What is to be forgotten is dropped, whatever its name.
    """

    code_version: ClassVar[int] = 3

    layout: Layout
    step: str = "ingest"
    """The name of the step; references to captions made here name it as their base."""
    samples_per_task: int = 256
    captions: Literal["together", "each"] = "together"
    """Whether captions in several languages stay one sample, or make one each."""
    limits: DecoderLimits = field(default_factory=DecoderLimits)
    """What a record of a table, a member of a tar or a sidecar may cost."""
    runs_in_driver: bool = False
    samples_from: str | None = None

    def identity(self) -> Mapping[str, Json]:
        identity: dict[str, Json] = {
            "work": "ingest",
            "code_version": self.code_version,
            "layout": self.layout.identity(),
            "samples_per_task": self.samples_per_task,
        }
        if self.limits != DecoderLimits():
            identity["limits"] = asdict(self.limits)
        return identity if self.captions == "together" else {**identity, "captions": self.captions}

    def tasks(self, inputs: Inputs) -> Sequence[Task]:
        found = self._difference(inputs)
        if found is None:
            files = read_file_table(inputs[SCAN_STEP])
            around = self.layout.around(files["path"])
            if around is not None:
                return in_slices(files, around, self.samples_per_task)
            again, samples = None, list(self.layout.group(source_files(files)).samples)
        else:
            again = self._again(inputs, found)
            samples = self._raws(inputs, found, again.raws)
        # a file of many samples is a task, whatever their number
        num = 1 if isinstance(self.layout, ContainerLayout) else self.samples_per_task
        starts = range(0, len(samples), num)
        return [
            Task(
                f"part-{index:06d}",
                [
                    {**raw_to_json(raw), **_before(raw, again)}
                    for raw in samples[start : start + num]
                ],
            )
            for index, start in enumerate(starts)
        ]

    def run(self, task: Task, context: TaskContext) -> TaskReport:
        asides: list[list[str]] = []
        if isinstance(task.payload, dict):
            grouping = self.layout.group(files_of(task.payload))
            asides += map(list, grouping.unclaimed)
            looked_at = [Opened(raw) for raw in grouping.samples]
        else:
            assert isinstance(task.payload, list), "tasks() gives one or the other"
            looked_at = list(map(_decode, task.payload))
        origins = Origins()
        expanded: Counter[str] = Counter()
        files: list[FileRecord] = []
        counts = Counts()
        outcomes = self._outcomes(looked_at, context.inputs, asides, origins, expanded)
        if isinstance(self.layout, ContainerLayout):
            files, counts = self._write_parts(task.name, outcomes, context)
        elif looked_at:
            named = ((RULE, outcome) for outcome in outcomes)
            report = write_part(task.name, named, step=self.step, context=context)
            files, counts = list(report.files), report.counts
        name = f"{task.name}{ORIGINS_SUFFIX}"
        files.append(file_record(context.output_url, name, origins.finish()))
        if asides:
            name = f"{_SCRATCH}{task.name}-aside.json"
            files.append(file_record(context.output_url, name, json.dumps(asides).encode()))
        return TaskReport(files, counts, {"expanded": dict(expanded)})

    def finish(self, reports: Sequence[TaskReport], context: TaskContext) -> TaskReport:
        scan = context.inputs[SCAN_STEP]
        found = self._difference(context.inputs)
        num_files, unclaimed = self._unclaimed(context.inputs, found)
        written = [file for report in reports for file in report.files]
        for file in written:
            if file.path.startswith(_SCRATCH):
                data = storage.read(storage.join(context.output_url, file.path))
                unclaimed.update(dict(json.loads(data)))
        if isinstance(self.layout, ContainerLayout) and unclaimed:
            for path in self._referenced(written, context):
                unclaimed.pop(path, None)
        unusable: Any = scan.manifest.facts.get("unusable", [])
        unclaimed |= dict.fromkeys(unusable, "name_not_utf8")
        rows = [{"path": path, "reason": unclaimed[path]} for path in sorted(unclaimed)]
        table = pa.Table.from_pylist(rows, schema=_UNCLAIMED_SCHEMA)
        added = [file_record(context.output_url, UNCLAIMED_NAME, table_bytes(table))]
        if found is not None:
            again = self._again(context.inputs, found)
            given = came_out(context.output_url, [file.path for file in written], again.keys)
            gone = gone_table(again.gone(given))
            added.append(file_record(context.output_url, GONE_NAME, gone))
        counted: dict[str, Json] = dict(sorted(Counter(unclaimed.values()).items()))
        facts: dict[str, Json] = {
            "num_files": num_files + len(unusable),
            "unclaimed": counted,
        }
        if self.captions == "each":
            facts["expanded"] = _total_expanded(reports)
            _refuse_taken_keys(reports, context.output_url)
        return TaskReport(files=added, facts=facts)

    def compare(self, before: Artifact, after: Artifact) -> Change:
        """Return what became of the raw samples between two scans.

        One that gained a part, or of which a file changed, is another one.
        """
        return difference(self.layout, before, after).change

    def _difference(self, inputs: Inputs) -> Difference | None:
        """Return what became of the corpus since the increment before, if there was one."""
        scans = inputs.earlier(SCAN_STEP)
        return difference(self.layout, scans[-1], inputs[SCAN_STEP]) if scans else None

    def _again(self, inputs: Inputs, found: Difference) -> Again:
        """Return what there is to be done about what earlier increments took in."""
        pending = held(inputs.earlier(SHARD_STEP)[-1], inputs.forgotten.keys)
        return look_again(inputs, replace(found.change, forgotten=tuple(sorted(pending))))

    def _raws(self, inputs: Inputs, found: Difference, wanted: Collection[str]) -> list[RawSample]:
        """Return some raw samples, in the order of their original keys."""
        raws = [raw for key, raw in found.raws.items() if key in wanted]
        if len(raws) < len(wanted) and found.untouched is not None:
            # what is decided anew though no file of it changed: who knows where it lies?
            others = self.layout.group(source_files(found.untouched)).samples
            raws += [raw for raw in others if raw.key in wanted]
        return sorted(raws, key=lambda raw: raw.original_key)

    def _unclaimed(self, inputs: Inputs, found: Difference | None) -> tuple[int, dict[str, str]]:
        """Return how many files there are, and why some of them are part of no sample.

        Without those of which tasks say so.
        """
        files = read_file_table(inputs[SCAN_STEP])
        if found is None:
            if self.layout.around(files["path"]) is not None:
                return files.num_rows, {}
            return files.num_rows, dict(self.layout.group(source_files(files)).unclaimed)
        unclaimed = dict(found.unclaimed)
        if found.untouched is not None:
            before = inputs.earlier(self.step)[-1].url
            known = read_table(storage.join(before, UNCLAIMED_NAME))
            still = known.filter(pc.is_in(known["path"], found.untouched["path"]))
            unclaimed |= zip(still["path"].to_pylist(), still["reason"].to_pylist(), strict=True)
        return files.num_rows, unclaimed

    def _outcomes(
        self,
        looked_at: Sequence[Opened],
        inputs: Inputs,
        asides: list[list[str]],
        origins: Origins,
        expanded: Counter[str],
    ) -> Iterator[Outcome]:
        """Yield what came out otherwise than before."""
        known = known_digests(
            inputs,
            places=[place for one in looked_at for place in one.places],
            raws={one.raw.key for one in looked_at},
            anew={key for one in looked_at for key in one.anew},
        )
        raws = [one.raw for one in looked_at]
        for raw, found in opened(self.layout, raws, OpenCorpus.of(inputs), self.limits):
            if isinstance(found, Aside):
                asides.append([found.path, found.reason])
                continue
            several = [found] if self.captions == "together" else list(one_per_caption(found))
            num_new = 0
            for outcome in several:
                sample = outcome if isinstance(outcome, Sample) else outcome.sample
                if inputs.forgotten.holds(sample):
                    # what is to be forgotten leaves nothing but its key
                    outcome = Dropped(Sample(sample.key), FORGOTTEN)
                before = known.get(sample.key)
                is_same = before is not None and before == digest_of_outcome(outcome)
                origins.add(sample.key, raw.key, is_same=is_same)
                if not is_same:
                    num_new += 1
                    yield outcome
            if num_new and several != [found]:
                expanded["samples"] += 1
                expanded["into"] += num_new

    def _write_parts(
        self, name: str, outcomes: Iterator[Outcome], context: TaskContext
    ) -> tuple[list[FileRecord], Counts]:
        """Write the samples of one file in parts, of which one at a time is in memory."""
        files: list[FileRecord] = []
        counts = []
        for number, first in enumerate(outcomes):
            part = chain([first], _some(outcomes, self.samples_per_task - 1, after=first))
            named = ((RULE, outcome) for outcome in part)
            report = write_part(f"{name}-{number:05d}", named, step=self.step, context=context)
            files += report.files
            counts.append(report.counts)
        return files, Counts.total(counts)

    def _referenced(self, written: Sequence[FileRecord], context: TaskContext) -> Iterator[str]:
        """Yield every file of the source that a sample refers to, in this increment or earlier."""
        earlier = [
            storage.join(one.url, record.path)
            for one in context.inputs.earlier(self.step)
            for record in rows_files(one)
        ]
        now = [
            storage.join(context.output_url, file.path)
            for file in written
            if file.num_samples is not None
        ]
        for url in [*earlier, *now]:
            parts = read_table(url, ["parts"])["parts"]
            flat = pc.list_flatten(parts)
            is_source = pc.equal(pc.struct_field(flat, "base"), "source")
            yield from pc.struct_field(flat.filter(is_source), "path").unique().to_pylist()


def _total_expanded(reports: Sequence[TaskReport]) -> Json:
    total: Counter[str] = Counter(samples=0, into=0)
    for report in reports:
        found: Any = report.facts["expanded"]
        total.update(found)
    return dict(total)


def _refuse_taken_keys(reports: Sequence[TaskReport], url: str) -> None:
    """Raise StepError where a sample is called as another one with a language behind it."""
    paths = [file.path for report in reports for file in report.files if file.num_samples]
    tables = [read_table(storage.join(url, path), ["key"]) for path in paths]
    if not tables:
        return
    counted = pc.value_counts(pa.concat_tables(tables)["key"])
    twice = counted.filter(pc.greater(counted.field("counts"), 1)).field("values").to_pylist()
    if twice:
        raise StepError(
            f"{len(twice)} keys would be there twice; the first is {sorted(twice)[0]!r}: a sample "
            "of that name, and a caption in that language of the sample without it. Rename one, or "
            "keep captions together."
        )


def _some(outcomes: Iterator[Outcome], num: int, *, after: Outcome) -> Iterator[Outcome]:
    """Yield some of the outcomes that are left: so many, or so many bytes."""
    num_bytes = _num_bytes(after)
    while num > 0 and num_bytes < _MAX_PART_BYTES:
        outcome = next(outcomes, None)
        if outcome is None:
            return
        num_bytes += _num_bytes(outcome)
        num -= 1
        yield outcome


def _num_bytes(outcome: Outcome) -> int:
    sample = outcome if isinstance(outcome, Sample) else outcome.sample
    return sum(len(part.data) for part in sample.parts.values() if part.data)


def _before(raw: RawSample, again: Again | None) -> dict[str, Json]:
    """Return what a task has to know of what a raw sample gave earlier."""
    if again is None:
        return {"places": [], "anew": []}
    places: list[Json] = [[number, task] for number, task in again.places.get(raw.key, ())]
    anew: list[Json] = [key for key in again.keys_of.get(raw.key, ()) if key in again.revived]
    return {"places": places, "anew": anew}


def _decode(value: Any) -> Opened:
    places = [(number, task) for number, task in value["places"]]
    return Opened(raw_from(value), places, value["anew"])
