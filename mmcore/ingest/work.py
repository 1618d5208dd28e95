"""The step that turns a scanned corpus into samples: one task per slice of the groups."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmcore import storage
from mmcore.core.manifest import Counts, FileRecord
from mmcore.core.rows import file_record, rows_files, table_bytes, write_part
from mmcore.core.source import SCAN_STEP
from mmcore.core.step import Artifact, Inputs, Task, TaskContext, TaskReport
from mmcore.errors import StepError
from mmcore.ingest.captions import one_per_caption
from mmcore.ingest.corpus import (
    OpenCorpus,
    num_arrived_since,
    read_files,
    read_num_samples,
    results_digest,
)
from mmcore.ingest.layout import Aside, ContainerLayout, Layout, RawSample, SourceFile
from mmcore.sample import Json, Outcome, Sample

UNCLAIMED_NAME = "unclaimed.parquet"
RULE = "ingest"
_SCRATCH = "_tasks/"
_MAX_PART_BYTES = 64 << 20
_UNCLAIMED_SCHEMA = pa.schema([("path", pa.string()), ("reason", pa.string())])


@dataclass(frozen=True, kw_only=True)
class IngestWork:
    """Group the files of the scan by a layout, and write a row for every sample.

    Of a corpus that has grown, for every sample that an earlier increment has not.
    """

    layout: Layout
    step: str = "ingest"
    """The name of the step; references to captions made here name it as their base."""
    samples_per_task: int = 256
    captions: Literal["together", "each"] = "together"
    """Whether captions in several languages stay one sample, or make one each."""
    runs_in_driver: bool = False
    samples_from: str | None = None

    def identity(self) -> Mapping[str, Json]:
        identity: dict[str, Json] = {
            "work": "ingest",
            "layout": self.layout.identity(),
            "samples_per_task": self.samples_per_task,
        }
        return identity if self.captions == "together" else {**identity, "captions": self.captions}

    def tasks(self, inputs: Inputs) -> Sequence[Task]:
        groups = self.layout.group(read_files(inputs[SCAN_STEP])).samples
        earlier = inputs.earlier(SCAN_STEP)[-1:]
        known = {raw.key for scan in earlier for raw in self.layout.group(read_files(scan)).samples}
        if isinstance(self.layout, ContainerLayout):
            # a file of many samples is a task, whatever their number
            wanted: list[Json] = [
                {**_encode(raw), "is_retried": raw.key in known}
                for raw in groups
                if raw.key not in known
                or any(_has_retried(raw, scan, inputs[SCAN_STEP]) for scan in earlier)
            ]
            return [Task(f"part-{index:06d}", [payload]) for index, payload in enumerate(wanted)]
        groups = [raw for raw in groups if raw.key not in known]
        starts = range(0, len(groups), self.samples_per_task)
        return [
            Task(
                f"part-{index:06d}",
                [_encode(raw) for raw in groups[start : start + self.samples_per_task]],
            )
            for index, start in enumerate(starts)
        ]

    def run(self, task: Task, context: TaskContext) -> TaskReport:
        assert isinstance(task.payload, list), "tasks() gives a list"
        asides: list[list[str]] = []
        outcomes = self._outcomes(task.payload, context.inputs, asides)
        expanded: Counter[str] = Counter()
        if self.captions == "each":
            outcomes = _expanded(outcomes, expanded)
        if isinstance(self.layout, ContainerLayout):
            files, counts = self._write_parts(task.name, outcomes, context)
        else:
            named = ((RULE, outcome) for outcome in outcomes)
            report = write_part(task.name, named, step=self.step, context=context)
            files, counts = list(report.files), report.counts
        if asides:
            name = f"{_SCRATCH}{task.name}-aside.json"
            files.append(file_record(context.output_url, name, json.dumps(asides).encode()))
        return TaskReport(files, counts, {"expanded": dict(expanded)})

    def finish(self, reports: Sequence[TaskReport], context: TaskContext) -> TaskReport:
        scan = context.inputs[SCAN_STEP]
        files = read_files(scan)
        unclaimed = dict(self.layout.group(files).unclaimed)
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
        record = file_record(context.output_url, UNCLAIMED_NAME, table_bytes(table))
        counted: dict[str, Json] = dict(sorted(Counter(unclaimed.values()).items()))
        facts: dict[str, Json] = {
            "num_files": len(files) + len(unusable),
            "unclaimed": counted,
        }
        if self.captions == "each":
            facts["expanded"] = _total_expanded(reports)
            _refuse_taken_keys(reports, context.output_url)
        return TaskReport(files=[record], facts=facts)

    def count_new(self, before: Artifact, after: Artifact) -> int | None:
        """Return how many samples a scan has more than one before; None unless it only has more.

        A file that changed or vanished, and a sample that gained a part, are more than new data: so
        is a table to which rows, or a tar to which members were appended. Put those in a new file.
        """
        old, new = read_files(before), read_files(after)
        if not set(old) <= set(new):
            return None
        had = {raw.key: raw.files for raw in self.layout.group(old).samples}
        groups = self.layout.group(new).samples
        has = {raw.key: raw.files for raw in groups}
        if any(has.get(key) != files for key, files in had.items()):
            return None
        if not isinstance(self.layout, ContainerLayout):
            return len(has) - len(had)
        num_samples = read_num_samples(after)
        added = 0
        for raw in groups:
            if raw.key not in had:
                added += num_samples.get(raw.original_key, 0)
            elif _has_retried(raw, before, after):
                arrived = num_arrived_since(before, after, raw.original_key)
                if arrived is None:
                    return None
                added += arrived
        return added

    def _outcomes(
        self, payload: Sequence[Json], inputs: Inputs, asides: list[list[str]]
    ) -> Iterator[Outcome]:
        for value in payload:
            raw, is_retried = _decode(value)
            for found in self.layout.read(raw, OpenCorpus(inputs, is_retried)):
                if isinstance(found, Aside):
                    asides.append([found.path, found.reason])
                else:
                    yield found

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
            data = storage.read(url)
            parts = pq.read_table(pa.BufferReader(data), columns=["parts"])["parts"]
            flat = pc.list_flatten(parts)
            is_source = pc.equal(pc.struct_field(flat, "base"), "source")
            yield from pc.struct_field(flat.filter(is_source), "path").unique().to_pylist()


def _expanded(outcomes: Iterator[Outcome], tally: Counter[str]) -> Iterator[Outcome]:
    """Yield a sample for each caption, counting what became how many."""
    for outcome in outcomes:
        several = list(one_per_caption(outcome))
        if several != [outcome]:
            tally["samples"] += 1
            tally["into"] += len(several)
        yield from several


def _total_expanded(reports: Sequence[TaskReport]) -> Json:
    total: Counter[str] = Counter(samples=0, into=0)
    for report in reports:
        found: Any = report.facts["expanded"]
        total.update(found)
    return dict(total)


def _refuse_taken_keys(reports: Sequence[TaskReport], url: str) -> None:
    """Raise StepError where a sample is called as another one with a language behind it."""
    paths = [file.path for report in reports for file in report.files if file.num_samples]
    tables = [
        pq.read_table(pa.BufferReader(storage.read(storage.join(url, path))), columns=["key"])
        for path in paths
    ]
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


def _has_retried(raw: RawSample, before: Artifact, after: Artifact) -> bool:
    """Whether more arrived of a list of URLs than was there before."""
    path = raw.original_key
    old = results_digest(before, path)
    return bool(old) and old != results_digest(after, path)


def _encode(raw: RawSample) -> dict[str, Json]:
    files: list[Json] = [
        [role, file.path, file.num_bytes, file.sha256] for role, file in sorted(raw.files.items())
    ]
    problem: Json = None if raw.problem is None else list(raw.problem)
    return {
        "key": raw.key,
        "original_key": raw.original_key,
        "files": files,
        "problem": problem,
    }


def _decode(value: Any) -> tuple[RawSample, bool]:
    files = {role: SourceFile(*rest) for role, *rest in value["files"]}
    problem = None if value["problem"] is None else (value["problem"][0], value["problem"][1])
    raw = RawSample(value["key"], value["original_key"], files, problem)
    return raw, bool(value.get("is_retried"))
