"""The whole of a dataset version, put together of its shards: table, indexes, card, facts.

Shards stream by, one at a time. Of what an earlier version holds, each shard and its indexes are
linked, the table and Energon's index are copied and grown, and everything else follows from facts.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from mmcore import storage
from mmcore.core.grown_table import is_in_pieces, read_groups, write_grown
from mmcore.core.leaks import Known, LeakCheck
from mmcore.core.manifest import FileRecord
from mmcore.core.rows import file_record
from mmcore.core.step import TaskContext, TaskReport
from mmcore.core.tombstones import TOMBSTONES_NAME, Tombstone, to_json
from mmcore.errors import AccountingError, StepError
from mmcore.sample import Json, Sample, modality_of
from mmcore.shard.card import dataset_card
from mmcore.shard.document import Schema, SchemaTally
from mmcore.shard.earlier import Earlier
from mmcore.shard.energon import SampleIndex, energon_files, shards_in_order
from mmcore.shard.indexes import open_clip_sizes, wids_index
from mmcore.shard.plan import refuse
from mmcore.shard.table import SCHEMA, TABLE_NAME, StoredSample, samples_in

SCRATCH = "_tasks"
"""What lies below is for `publish` and is deleted once the dataset is committed."""


@dataclass(frozen=True)
class Published:
    """What is said of a dataset, and what may not lie in two of its splits."""

    name: str
    licence: str
    optional: Sequence[str]
    """Modalities that a sample may lack."""
    step: str
    together: Sequence[str]


@dataclass
class _Tally:
    """What is counted while the shards of an increment stream by."""

    per_split: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    extensions: set[str] = field(default_factory=set)
    schema: SchemaTally = field(default_factory=SchemaTally)

    def add(self, sample: StoredSample, *, step: str) -> Sample:
        """Count a sample, and return it with its parts in its shard."""
        self.per_split[sample.split] += 1
        self.labels.update(_label(sample))
        self.extensions.update(part.extension for part in sample.parts)
        as_sample = sample.as_sample(base=step)
        self.schema.add(as_sample)
        return as_sample


def table_path(task_name: str) -> str:
    """Return where a task leaves the rows of its shard."""
    return f"{SCRATCH}/{task_name}.parquet"


def publish(
    what: Published,
    reports: Sequence[TaskReport],
    context: TaskContext,
    before: Earlier | None,
    known: Known | None,
) -> TaskReport:
    """Write what covers all shards, those of the version before among them.

    `known` is the index of what the split knows of old; without one, all of old is looked at for
    leaks.
    """
    tars = {file.path: file for one in reports for file in one.files if file.path.endswith(".tar")}
    new_tars = [tars[path] for path in sorted(tars)]
    inherited = before.files if before else []
    tars |= {file.path: file for file in inherited if file.path.endswith(".tar")}
    # readers that know nothing of tombstones count what lies in the tars
    num_samples = {path: tars[path].num_samples or 0 for path in sorted(tars)}
    dead = before.dead() if before else []
    order = shards_in_order(before.artifact.url if before else None, tars)
    written, tally = _write_rows(what, new_tars, context, before, known, dead=dead, order=order)
    table = written[0]
    _check_kept(reports, tally.per_split.total())
    added: dict[str, Json] = {
        "dataset": context.fingerprint[:16],
        "num_samples": {split: tally.per_split[split] for split in sorted(tally.per_split)},
        "num_shards": dict(Counter(_split(tar.path) for tar in new_tars)),
    }
    if dead:
        added["num_gone"] = dict(Counter(sample.split for sample in dead))
    tombstones: list[Tombstone] = []
    per_split, labels, schema = tally.per_split, tally.labels, tally.schema.schema
    extensions = tally.extensions
    if before:
        before.link_into(context.output_url)
        tombstones = before.tombstones(dead)
        per_split += before.counted("num_samples", (one.split for one in dead))
        labels += before.counted("labels", (label for one in dead for label in _label(one)))
        # newcomers may have what no sample has any more
        extensions |= set(before.extensions)
    if not per_split:
        raise StepError(
            f"no sample of {what.name} is left: {len(tombstones)} were removed at the source "
            "or are to be forgotten. Nothing was published. Look at the source."
        )
    lacking = [name for name in sorted(extensions) if modality_of(name) in what.optional]
    num_bytes = sum(file.num_bytes for file in tars.values())
    data_of = dict(_small_files(what.name, tars, num_samples))
    data_of |= energon_files(order, num_samples, tombstones=tombstones, table_sha256=table.sha256)
    if tombstones:
        data_of[TOMBSTONES_NAME] = to_json(tombstones)
    data_of["README.md"] = dataset_card(
        name=what.name,
        licence=what.licence,
        num_samples=per_split,
        num_shards=Counter(map(_split, tars)),
        num_bytes=num_bytes,
        extensions=sorted(extensions),
        optional=lacking,
        labels=labels,
        num_tombstones=len(tombstones),
    )
    written += [
        file_record(context.output_url, path, data) for path, data in sorted(data_of.items())
    ]
    fields = before.schema if before else schema()
    facts = _facts(per_split, labels, tars, num_bytes, sorted(extensions), fields)
    facts["increments"] = [*(before.increments if before else ()), added]
    if lacking:
        facts["optional_extensions"] = list(lacking)
    if tombstones:
        facts["tombstones"] = dict(sorted(Counter(one.reason for one in tombstones).items()))
    return TaskReport([*written, *inherited], facts=facts)


def _write_rows(
    what: Published,
    new_tars: Sequence[FileRecord],
    context: TaskContext,
    before: Earlier | None,
    known: Known | None,
    *,
    dead: Sequence[StoredSample],
    order: Sequence[str],
) -> tuple[list[FileRecord], _Tally]:
    """Write the table and Energon's index, a shard at a time; nothing may leak between splits."""
    tally = _Tally()
    with (
        SampleIndex(order, before=before.artifact.url if before else None) as index,
        LeakCheck(what.together, known=known) as check,
    ):
        index.remove(dead)
        if before and known is None:
            for sample in samples_in(before.rows()):
                check.add(sample.as_sample(base=what.step))

        # rows that count no more are taken out, for which all old ones are written anew
        anew = before is not None and (bool(dead) or is_in_pieces(before.table_url))

        def rows() -> Iterator[pa.Table]:
            if before and anew:
                yield from before.rows()
            for tar in new_tars:
                table = _rows_of(tar, context)
                stored = list(samples_in([table]))
                index.add(stored)
                for sample in stored:
                    check.add(tally.add(sample, step=what.step))
                yield table

        whole = before.table_url if before and not anew else None
        table = write_grown(context.output_url, TABLE_NAME, rows(), SCHEMA, before=whole)
        refuse(check.leaks(lambda: _again(what, new_tars, context, before, known)))
        return [table, index.finish(context.output_url)], tally


def _facts(
    per_split: Mapping[str, int],
    labels: Mapping[str, int],
    tars: Mapping[str, FileRecord],
    num_bytes: int,
    extensions: Sequence[str],
    schema: Schema,
) -> dict[str, Json]:
    return {
        "num_samples": {split: per_split[split] for split in sorted(per_split)},
        "num_shards": len(tars),
        "num_bytes": num_bytes,
        "extensions": list(extensions),
        "labels": {label: labels[label] for label in sorted(labels)},
        "schema": {"fields": dict(schema.fields), "scores": list(schema.scores)},
    }


def _small_files(
    name: str, tars: Mapping[str, FileRecord], num_samples: Mapping[str, int]
) -> Iterator[tuple[str, bytes]]:
    """Yield the files with a line for each shard."""
    for split in sorted(set(map(_split, tars))):
        of_split = {path: num for path, num in num_samples.items() if _split(path) == split}
        sizes = {path: tars[path].num_bytes for path in of_split}
        for file, data in open_clip_sizes(of_split).items():
            yield f"{split}/{file}", data
        yield f"wids/{split}.json", wids_index(f"{name}-{split}", of_split, sizes)


def _label(sample: StoredSample) -> list[str]:
    label = sample.meta.get("label")
    return [] if label is None else [str(label)]


def _split(path: str) -> str:
    return path.split("/", 1)[0]


def _rows_of(tar: FileRecord, context: TaskContext) -> pa.Table:
    name = tar.path.rsplit("/", 1)[-1].removesuffix(".tar")
    found = pa.concat_tables(read_groups(storage.join(context.output_url, table_path(name))))
    if found.num_rows != tar.num_samples:
        raise AccountingError(
            f"{tar.path} holds {tar.num_samples} samples and its table {found.num_rows}. Nothing "
            "was committed; delete the directory and run again."
        )
    return found


def _again(
    what: Published,
    new_tars: Iterable[FileRecord],
    context: TaskContext,
    before: Earlier | None,
    known: Known | None,
) -> Iterator[Sample]:
    old = before.rows() if before and known is None else iter(())
    for tables in (old, (_rows_of(tar, context) for tar in new_tars)):
        for sample in samples_in(tables):
            yield sample.as_sample(base=what.step)


def _check_kept(reports: Sequence[TaskReport], num_stored: int) -> None:
    kept = sum(report.counts.kept for report in reports)
    if kept != num_stored:
        raise AccountingError(
            f"the tasks kept {kept} samples and the shards hold {num_stored}. "
            "Nothing was committed; delete the directory and run again."
        )
