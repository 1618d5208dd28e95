"""The step that turns a scanned corpus into samples: one task per slice of the groups."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmcore import storage
from mmcore.core.rows import file_record, load_part, table_bytes, write_part
from mmcore.core.source import FILES_NAME, SCAN_STEP
from mmcore.core.step import Artifact, Inputs, Task, TaskContext, TaskReport
from mmcore.errors import StepError
from mmcore.ingest.captions import one_per_caption
from mmcore.ingest.layout import Layout, RawSample, SourceFile
from mmcore.sample import Json, Outcome

UNCLAIMED_NAME = "unclaimed.parquet"
RULE = "ingest"
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
        samples = self.layout.group(read_files(inputs[SCAN_STEP])).samples
        known = {
            raw.key
            for scan in inputs.earlier(SCAN_STEP)[-1:]
            for raw in self.layout.group(read_files(scan)).samples
        }
        samples = [raw for raw in samples if raw.key not in known]
        starts = range(0, len(samples), self.samples_per_task)
        return [
            Task(
                f"part-{index:06d}",
                [_encode(raw) for raw in samples[start : start + self.samples_per_task]],
            )
            for index, start in enumerate(starts)
        ]

    def run(self, task: Task, context: TaskContext) -> TaskReport:
        assert isinstance(task.payload, list), "tasks() gives a list"
        unclaimed: list[Json] = []
        outcomes = self._outcomes(task.payload, context.inputs.bases, unclaimed)
        expanded: Counter[str] = Counter()
        if self.captions == "each":
            outcomes = _expanded(outcomes, expanded)
        report = write_part(task.name, outcomes, step=self.step, context=context)
        facts: dict[str, Json] = {"unclaimed": unclaimed, "expanded": dict(expanded)}
        return TaskReport(report.files, report.counts, facts)

    def finish(self, reports: Sequence[TaskReport], context: TaskContext) -> TaskReport:
        files = read_files(context.inputs[SCAN_STEP])
        unclaimed = dict(self.layout.group(files).unclaimed)
        for report in reports:
            found: Any = report.facts["unclaimed"]
            unclaimed.update(dict(found))
        rows = [{"path": path, "reason": unclaimed[path]} for path in sorted(unclaimed)]
        table = pa.Table.from_pylist(rows, schema=_UNCLAIMED_SCHEMA)
        record = file_record(context.output_url, UNCLAIMED_NAME, table_bytes(table))
        counted: dict[str, Json] = dict(sorted(Counter(unclaimed.values()).items()))
        facts: dict[str, Json] = {"num_files": len(files), "unclaimed": counted}
        if self.captions == "each":
            facts["expanded"] = _total_expanded(reports)
            _refuse_taken_keys(reports, context.output_url)
        return TaskReport(files=[record], facts=facts)

    def count_new(self, before: Artifact, after: Artifact) -> int | None:
        """Return how many samples a scan has more than one before; None unless it only has more.

        A file that changed or vanished, and a sample that gained a part, are more than new data.
        """
        old, new = read_files(before), read_files(after)
        if not set(old) <= set(new):
            return None
        had = {raw.key: raw.files for raw in self.layout.group(old).samples}
        has = {raw.key: raw.files for raw in self.layout.group(new).samples}
        if any(has.get(key) != files for key, files in had.items()):
            return None
        return len(has) - len(had)

    def _outcomes(
        self, payload: Sequence[Json], bases: Mapping[str, str], unclaimed: list[Json]
    ) -> Iterator[tuple[str, Outcome]]:
        read_file = partial(_read_checked, bases=bases)
        for value in payload:
            made = self.layout.make(_decode(value), read_file)
            yield from ((RULE, outcome) for outcome in made.outcomes)
            unclaimed.extend([path, reason] for path, reason in made.unclaimed)


def _expanded(
    outcomes: Iterator[tuple[str, Outcome]], tally: Counter[str]
) -> Iterator[tuple[str, Outcome]]:
    """Yield a sample for each caption, counting what became how many."""
    for rule, outcome in outcomes:
        several = list(one_per_caption(outcome))
        if several != [outcome]:
            tally["samples"] += 1
            tally["into"] += len(several)
        yield from ((rule, one) for one in several)


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


def read_files(scan: Artifact) -> list[SourceFile]:
    """Return the files that a scan found, sorted by path."""
    data = storage.read(storage.join(scan.url, FILES_NAME))
    table = pq.read_table(pa.BufferReader(data))
    columns = (table[name].to_pylist() for name in ("path", "num_bytes", "sha256"))
    return [SourceFile(*values) for values in zip(*columns, strict=True)]


def _read_checked(file: SourceFile, *, bases: Mapping[str, str]) -> bytes:
    return load_part(file.part(), bases)


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


def _decode(value: Any) -> RawSample:
    files = {role: SourceFile(*rest) for role, *rest in value["files"]}
    problem = None if value["problem"] is None else (value["problem"][0], value["problem"][1])
    return RawSample(value["key"], value["original_key"], files, problem)
