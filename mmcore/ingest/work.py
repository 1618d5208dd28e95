"""The step that turns a scanned corpus into samples: one task per slice of the groups."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from mmcore import storage
from mmcore.core.change import GONE_NAME, Change, compare, gone_table
from mmcore.core.lineage import SHARD_STEP, held
from mmcore.core.rows import file_record, load_part, table_bytes, write_part
from mmcore.core.source import FILES_NAME, SCAN_STEP
from mmcore.core.step import Artifact, Inputs, Task, TaskContext, TaskReport
from mmcore.core.tombstones import FORGOTTEN
from mmcore.ingest.again import (
    ORIGINS_SUFFIX,
    Again,
    Origin,
    digest_of_outcome,
    known_digests,
    look_again,
    origins_table,
    read_origins,
)
from mmcore.ingest.layout import Layout, RawSample, SourceFile
from mmcore.sample import Dropped, Json, Outcome, Sample

UNCLAIMED_NAME = "unclaimed.parquet"
RULE = "ingest"
_UNCLAIMED_SCHEMA = pa.schema([("path", pa.string()), ("reason", pa.string())])


@dataclass(frozen=True, kw_only=True)
class IngestWork:
    """Group the files of the scan by a layout, and write a row for every sample.

    Of a corpus that has changed, for every sample that is new or came out otherwise than before.
    What is to be forgotten is dropped, whatever its name.
    """

    code_version: ClassVar[int] = 2

    layout: Layout
    step: str = "ingest"
    """The name of the step; references to captions made here name it as their base."""
    samples_per_task: int = 256
    runs_in_driver: bool = False
    samples_from: str | None = None

    def identity(self) -> Mapping[str, Json]:
        return {
            "work": "ingest",
            "code_version": self.code_version,
            "layout": self.layout.identity(),
            "samples_per_task": self.samples_per_task,
        }

    def tasks(self, inputs: Inputs) -> Sequence[Task]:
        samples = list(self.layout.group(read_files(inputs[SCAN_STEP])).samples)
        before: dict[str, dict[str, Json]] = {}
        again = self._again(inputs, samples)
        if again is not None:
            samples = [raw for raw in samples if raw.key in again.raws]
            digests = known_digests(inputs, again)
            before = {
                raw: {key: digests[key] for key in keys if key in digests}
                for raw, keys in again.keys_of.items()
            }
        starts = range(0, len(samples), self.samples_per_task)
        return [
            Task(
                f"part-{index:06d}",
                [
                    {**_encode(raw), "before": before.get(raw.key, {})}
                    for raw in samples[start : start + self.samples_per_task]
                ],
            )
            for index, start in enumerate(starts)
        ]

    def run(self, task: Task, context: TaskContext) -> TaskReport:
        assert isinstance(task.payload, list), "tasks() gives a list"
        unclaimed: list[Json] = []
        origins: list[Origin] = []
        outcomes = self._outcomes(task.payload, context.inputs, unclaimed, origins)
        report = write_part(task.name, outcomes, step=self.step, context=context)
        data = origins_table(origins)
        record = file_record(context.output_url, task.name + ORIGINS_SUFFIX, data)
        return TaskReport([*report.files, record], report.counts, {"unclaimed": unclaimed})

    def finish(self, reports: Sequence[TaskReport], context: TaskContext) -> TaskReport:
        files = read_files(context.inputs[SCAN_STEP])
        grouping = self.layout.group(files)
        unclaimed = dict(grouping.unclaimed)
        for report in reports:
            found: Any = report.facts["unclaimed"]
            unclaimed.update(dict(found))
        rows = [{"path": path, "reason": unclaimed[path]} for path in sorted(unclaimed)]
        table = pa.Table.from_pylist(rows, schema=_UNCLAIMED_SCHEMA)
        written = [file_record(context.output_url, UNCLAIMED_NAME, table_bytes(table))]
        again = self._again(context.inputs, grouping.samples)
        if again is not None:
            paths = [
                file.path
                for report in reports
                for file in report.files
                if file.path.endswith(ORIGINS_SUFFIX)
            ]
            origins = (
                origin
                for path in paths
                for origin in read_origins(storage.join(context.output_url, path))
            )
            data = gone_table(again.gone(origins))
            written.append(file_record(context.output_url, GONE_NAME, data))
        counted: dict[str, Json] = dict(sorted(Counter(unclaimed.values()).items()))
        facts: dict[str, Json] = {"num_files": len(files), "unclaimed": counted}
        return TaskReport(files=written, facts=facts)

    def compare(self, before: Artifact, after: Artifact) -> Change:
        """Return what became of the raw samples between two scans.

        One that gained a part, or of which a file changed, is another one.
        """
        return self._change(before, self.layout.group(read_files(after)).samples)

    def _change(self, before: Artifact, samples: Sequence[RawSample]) -> Change:
        had = {raw.key: raw.files for raw in self.layout.group(read_files(before)).samples}
        return compare(had, {raw.key: raw.files for raw in samples})

    def _again(self, inputs: Inputs, samples: Sequence[RawSample]) -> Again | None:
        """Return what there is to be done about what earlier increments took in, if any did."""
        scans = inputs.earlier(SCAN_STEP)
        if not scans:
            return None
        pending = held(inputs.earlier(SHARD_STEP)[-1], inputs.forgotten.keys)
        change = self._change(scans[-1], samples)
        return look_again(inputs, replace(change, forgotten=tuple(sorted(pending))))

    def _outcomes(
        self,
        payload: Sequence[Any],
        inputs: Inputs,
        unclaimed: list[Json],
        origins: list[Origin],
    ) -> Iterator[tuple[str, Outcome]]:
        read_file = partial(_read_checked, bases=inputs.bases)
        for value in payload:
            raw, before = _decode(value), value["before"]
            made = self.layout.make(raw, read_file)
            for outcome in made.outcomes:
                sample = outcome if isinstance(outcome, Sample) else outcome.sample
                if inputs.forgotten.holds(sample):
                    # what is to be forgotten leaves nothing but its key
                    outcome = Dropped(Sample(sample.key), FORGOTTEN)
                is_same = before.get(sample.key) == digest_of_outcome(outcome)
                origins.append(Origin(sample.key, raw.key, is_same))
                if not is_same:
                    yield RULE, outcome
            unclaimed.extend([path, reason] for path, reason in made.unclaimed)


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
