"""The step that turns encoded samples into a dataset that every common reader opens unchanged."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, ClassVar, cast

from mmcore import storage
from mmcore.core.change import ended, gone_now
from mmcore.core.corpus_work import known_shelf
from mmcore.core.manifest import Counts, FileRecord
from mmcore.core.near_limits import Limits
from mmcore.core.rows import file_record, load_part, read_kept, write_part
from mmcore.core.sorted_runs import SortedRuns
from mmcore.core.step import Inputs, Task, TaskContext, TaskReport
from mmcore.core.tombstones import TOMBSTONES_NAME, Tombstone, to_json
from mmcore.errors import AccountingError, ConfigError, StepError
from mmcore.sample import MODALITIES, Dropped, Json, Outcome, Quarantined, modality_of, sha256_hex
from mmcore.shard.card import dataset_card
from mmcore.shard.document import EXTENSION, Schema, document, schema_of
from mmcore.shard.earlier import earlier
from mmcore.shard.energon import energon_files, sample_range
from mmcore.shard.indexes import dali_index, energon_index, open_clip_sizes, wids_index
from mmcore.shard.plan import ShardPlan, cut, from_payload, refuse_leaks, sift, to_payload
from mmcore.shard.table import TABLE_NAME, StoredPart, StoredSample, from_parquet, to_parquet
from mmcore.shard.tar import TarWriter

CODE_VERSION = 2
GROUP = "meta:split_group"
SCRATCH = "_tasks"
"""What lies below is for `finish` and is deleted once the dataset is committed."""
LEFT_OUT_PER_TASK = 4096


@dataclass(frozen=True, kw_only=True)
class ShardWork:
    """Write the samples that an earlier step kept as WebDataset shards, with indexes and a card.

    On top of an earlier version, its shards are part of the new one under the same names.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    name: str
    """Of the dataset, on its card."""
    licence: str = ""
    """Of the dataset as a whole, as Hugging Face spells it: `gpl-2.0`, `cc-by-4.0`."""
    samples_per_shard: int = 256
    max_shard_bytes: int = 256 * 2**20
    """Large enough to read in sequence, small enough to be held in memory and written again."""
    seed: int = 0
    """Of the order of the samples."""
    parts: tuple[str, ...] = ()
    """The extensions that every sample must have, no more and no less; empty takes the set that
    most samples have. The others are dropped as `parts_differ`."""
    optional: tuple[str, ...] = ()
    """Modalities that a sample may lack; a recipe takes those of its `require_parts`."""
    together: tuple[str, ...] = ()
    """What must not be found in two splits, besides `meta:split_group`: `image`, `meta:caption`."""
    max_distance: Mapping[str, int] = field(default_factory=dict)
    """How near two samples of two splits must not be: as in the split."""
    min_similarity: Mapping[str, float] = field(default_factory=dict)
    step: str = "shard"
    samples_from: str = "encode"
    runs_in_driver: bool = False

    def __post_init__(self) -> None:
        unknown = [name for name in self.optional if name not in MODALITIES]
        if unknown:
            raise ConfigError(
                f"shard.optional names {unknown[0]!r}, which is no modality. "
                f"Use some of {', '.join(MODALITIES)}."
            )
        self._limits.check("shard")
        for name in ("samples_per_shard", "max_shard_bytes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"shard.{name}={getattr(self, name)}; it must be at least 1.")

    @property
    def _limits(self) -> Limits:
        return Limits(self.max_distance, self.min_similarity)

    def identity(self) -> Mapping[str, Json]:
        fields = asdict(self)
        del fields["runs_in_driver"]
        del fields["optional"]
        if self.optional:
            fields["optional"] = list(self.optional)
        return {"work": "shard", "code_version": CODE_VERSION, **fields}

    def tasks(self, inputs: Inputs) -> Sequence[Task]:
        before = earlier(inputs, self.step)
        samples, left_out = sift(
            read_kept(inputs[self.samples_from]),
            declared=self.parts or (before.parts if before else ()),
            optional=self.optional,
            may_be_empty=before is not None,
        )
        refuse_leaks(samples, (GROUP, *self.together), self._limits, _known_near(inputs))
        schema = before.schema if before else schema_of(samples)
        if before:
            before.check_fit(samples)
        plans = cut(
            samples,
            schema,
            samples_per_shard=self.samples_per_shard,
            max_shard_bytes=self.max_shard_bytes,
            seed=self.seed,
            num_before=before.num_shards if before else None,
            parts=sorted({name for sample in samples for name in sample.parts}),
        )
        return [*(_shard_task(plan, schema) for plan in plans), *_left_out_tasks(left_out)]

    def run(self, task: Task, context: TaskContext) -> TaskReport:
        payload = cast("Mapping[str, Any]", task.payload)
        if "left_out" in payload:
            outcomes = map(_outcome_of, payload["left_out"])
            return write_part(task.name, outcomes, step=self.step, context=context)
        schema = Schema(payload["fields"], tuple(payload["scores"]))
        path = f"{payload['split']}/{task.name}.tar"
        tar = TarWriter()
        stored: list[StoredSample] = []
        for index, value in enumerate(payload["samples"]):
            sample = from_payload(value)
            parts = []
            for extension in sorted([*sample.parts, EXTENSION]):
                ref = None if extension == EXTENSION else sample.parts[extension].ref
                if ref is None:
                    data = document(sample, schema)
                    digest = sha256_hex(data)
                else:
                    # which holds the bytes to the digest of the reference
                    data = load_part(sample.parts[extension], context.inputs.bases)
                    digest = ref.sha256
                member = tar.add(f"{sample.key}.{extension}", data)
                parts.append(StoredPart(extension, member.offset, len(data), digest))
            stored.append(
                StoredSample(
                    key=sample.key,
                    split=payload["split"],
                    shard=path,
                    index=index,
                    parts=tuple(parts),
                    meta=sample.meta,
                    scores=sample.scores,
                )
            )
        starts = [sample_range(sample)[0] for sample in stored]
        index_data = energon_index(starts, tar.offset)
        url = context.output_url
        files = [
            file_record(url, path, tar.finish(), num_samples=len(stored)),
            file_record(url, f"{path}.idx", index_data),
            file_record(url, path.removesuffix(".tar") + ".idx", dali_index(stored)),
            file_record(url, _table_path(task.name), to_parquet(stored)),
        ]
        return TaskReport(files, Counts(found=len(stored), kept=len(stored)))

    def finish(self, reports: Sequence[TaskReport], context: TaskContext) -> TaskReport:
        tars = {
            file.path: file
            for report in reports
            for file in report.files
            if file.path.endswith(".tar")
        }
        in_shard = {path: list(_read_table(path, context)) for path in sorted(tars)}
        _check_counts(tars, {path: len(found) for path, found in in_shard.items()}, reports)
        added: dict[str, Json] = {
            "dataset": context.fingerprint[:16],
            "num_samples": dict(_per_split(in_shard)),
            "num_shards": dict(Counter(map(_split, in_shard))),
        }
        increments: list[Json] = [added]
        inherited: list[FileRecord] = []
        tombstones: list[Tombstone] = []
        before = earlier(context.inputs, self.step)
        if before:
            before.link_into(context.output_url)
            inherited = before.files
            in_shard |= before.samples()
            tars |= {file.path: file for file in inherited if file.path.endswith(".tar")}
            dead = before.dead()
            tombstones = before.tombstones(dead)
            if dead:
                added["num_gone"] = dict(Counter(sample.split for sample in dead))
            increments = [*before.increments, added]
        stored = [sample for path in sorted(in_shard) for sample in in_shard[path]]
        if not stored:
            raise StepError(
                f"no sample of {self.name} is left: {len(tombstones)} were removed at the source "
                "or are to be forgotten. Nothing was published. Look at the source."
            )
        # readers that know nothing of tombstones count what lies in the tars
        num_samples = {path: tars[path].num_samples or 0 for path in sorted(tars)}
        refuse_leaks(
            (sample.as_sample(base=self.step) for sample in stored), (GROUP, *self.together)
        )
        table = to_parquet(stored)
        data_of = {TABLE_NAME: table}
        if tombstones:
            data_of[TOMBSTONES_NAME] = to_json(tombstones)
        data_of |= energon_files(
            stored, num_samples, tombstones=tombstones, table_sha256=sha256_hex(table)
        )
        splits = sorted({sample.split for sample in stored})
        for split in sorted(set(map(_split, tars))):
            of_split = {path: num for path, num in num_samples.items() if _split(path) == split}
            sizes = {path: tars[path].num_bytes for path in of_split}
            for name, data in open_clip_sizes(of_split).items():
                data_of[f"{split}/{name}"] = data
            data_of[f"wids/{split}.json"] = wids_index(f"{self.name}-{split}", of_split, sizes)
        labels = Counter(
            str(sample.meta["label"]) for sample in stored if sample.meta.get("label") is not None
        )
        per_split = Counter(sample.split for sample in stored)
        extensions = sorted({part.extension for sample in stored for part in sample.parts})
        lacking = [name for name in extensions if modality_of(name) in self.optional]
        num_bytes = sum(file.num_bytes for file in tars.values())
        data_of["README.md"] = dataset_card(
            name=self.name,
            licence=self.licence,
            num_samples=per_split,
            num_shards=Counter(map(_split, tars)),
            num_bytes=num_bytes,
            extensions=extensions,
            optional=lacking,
            labels=labels,
            num_tombstones=len(tombstones),
        )
        files = [
            file_record(context.output_url, path, data) for path, data in sorted(data_of.items())
        ]
        schema = before.schema if before else schema_of(s.as_sample(base=self.step) for s in stored)
        facts: dict[str, Json] = {
            "num_samples": {split: per_split[split] for split in splits},
            "num_shards": len(tars),
            "num_bytes": num_bytes,
            "extensions": list(extensions),
            "labels": {label: labels[label] for label in sorted(labels)},
            "schema": {"fields": dict(schema.fields), "scores": list(schema.scores)},
            "increments": increments,
        }
        if lacking:
            facts["optional_extensions"] = list(lacking)
        if tombstones:
            facts["tombstones"] = dict(sorted(Counter(one.reason for one in tombstones).items()))
        return TaskReport([*files, *inherited], facts=facts)


def _known_near(inputs: Inputs) -> Callable[[str], SortedRuns] | None:
    """Return the index of what the split of earlier increments knows and still is, by modality."""
    split = inputs.history[-1].get("split") if inputs.history else None
    gone = ended(gone_now(inputs))
    return None if split is None else partial(SortedRuns, known_shelf(split), gone=gone)


def _per_split(in_shard: Mapping[str, Sequence[StoredSample]]) -> Counter[str]:
    counted: Counter[str] = Counter()
    for path, stored in in_shard.items():
        counted[_split(path)] += len(stored)
    return counted


def _shard_task(plan: ShardPlan, schema: Schema) -> Task:
    payload: dict[str, Json] = {
        "split": plan.split,
        "samples": [to_payload(sample) for sample in plan.samples],
        "fields": dict(schema.fields),
        "scores": list(schema.scores),
    }
    return Task(plan.name, payload)


def _left_out_tasks(left_out: Sequence[tuple[str, Outcome]]) -> Iterator[Task]:
    for number, first in enumerate(range(0, len(left_out), LEFT_OUT_PER_TASK)):
        chunk: list[Json] = [
            _describe(rule, outcome)
            for rule, outcome in left_out[first : first + LEFT_OUT_PER_TASK]
        ]
        yield Task(f"left-out-{number:06d}", {"left_out": chunk})


def _describe(rule: str, outcome: Outcome) -> dict[str, Json]:
    assert isinstance(outcome, Dropped | Quarantined), "what is kept goes into a shard"
    return {
        "rule": rule,
        "is_broken": isinstance(outcome, Quarantined),
        "reason": outcome.reason,
        "detail": outcome.detail,
        "sample": to_payload(outcome.sample),
    }


def _outcome_of(value: Mapping[str, Any]) -> tuple[str, Outcome]:
    kind = Quarantined if value["is_broken"] else Dropped
    return value["rule"], kind(from_payload(value["sample"]), value["reason"], value["detail"])


def _split(path: str) -> str:
    return path.split("/", 1)[0]


def _table_path(task_name: str) -> str:
    return f"{SCRATCH}/{task_name}.parquet"


def _read_table(shard: str, context: TaskContext) -> Iterator[StoredSample]:
    name = shard.rsplit("/", 1)[-1].removesuffix(".tar")
    return from_parquet(storage.read(storage.join(context.output_url, _table_path(name))))


def _check_counts(
    tars: Mapping[str, FileRecord], num_samples: Mapping[str, int], reports: Sequence[TaskReport]
) -> None:
    for path, record in sorted(tars.items()):
        if num_samples.get(path) != record.num_samples:
            raise AccountingError(
                f"{path} holds {record.num_samples} samples and its table "
                f"{num_samples.get(path, 0)}. Nothing was committed; delete the directory and run "
                "again."
            )
    kept = sum(report.counts.kept for report in reports)
    if kept != sum(num_samples.values()):
        raise AccountingError(
            f"the tasks kept {kept} samples and the shards hold {sum(num_samples.values())}. "
            "Nothing was committed; delete the directory and run again."
        )
