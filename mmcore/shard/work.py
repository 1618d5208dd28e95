"""The step that turns encoded samples into a dataset that every common reader opens unchanged."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, ClassVar, cast

from mmcore.core.change import ended, gone_now
from mmcore.core.corpus_work import known_shelf
from mmcore.core.leaks import GROUP, Known, LeakCheck
from mmcore.core.linkage import LINKS
from mmcore.core.manifest import Counts
from mmcore.core.near_limits import Limits
from mmcore.core.rows import file_record, load_part, read_kept, write_part
from mmcore.core.sorted_runs import SortedRuns
from mmcore.core.step import Inputs, Task, TaskContext, TaskReport, TasksMadeLate
from mmcore.errors import ConfigError
from mmcore.sample import MODALITIES, Dropped, Json, Outcome, Quarantined, sha256_hex
from mmcore.shard.document import EXTENSION, Schema, document
from mmcore.shard.earlier import earlier
from mmcore.shard.energon import sample_range
from mmcore.shard.indexes import dali_index, energon_index
from mmcore.shard.publish import Published, publish, table_path
from mmcore.shard.roster import LeftOut, Roster, ShardPlan, described, read_line
from mmcore.shard.table import StoredPart, StoredSample, to_parquet
from mmcore.shard.tar import TarWriter
from mmcore.shard.twins import without_twins, without_twins_of_old

CODE_VERSION = 4
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
        roster = Roster(seed=self.seed)
        with LeakCheck((GROUP, *self.together), self._limits, known_of_old(inputs)) as check:
            for sample in read_kept(inputs[self.samples_from]):
                check.add(sample)
                roster.add(sample)
            left_out = roster.sift(
                declared=self.parts or (before.parts if before else ()),
                optional=self.optional,
                may_be_empty=before is not None,
            )
            if before:
                left_out += without_twins_of_old(before, roster, self.together)
            left_out += without_twins(check, roster)
        schema = before.schema if before else roster.schema()
        plans = roster.cut(
            schema,
            samples_per_shard=self.samples_per_shard,
            max_shard_bytes=self.max_shard_bytes,
            num_before=before.num_shards if before else None,
            check=before.check_fit if before else None,
        )
        return _tasks(roster, plans, schema, left_out)

    def run(self, task: Task, context: TaskContext) -> TaskReport:
        payload = cast("Mapping[str, Any]", task.payload)
        if "left_out" in payload:
            outcomes = map(_outcome_of, payload["left_out"])
            return write_part(task.name, outcomes, step=self.step, context=context)
        schema = Schema(payload["fields"], tuple(payload["scores"]))
        path = f"{payload['split']}/{task.name}.tar"
        tar = TarWriter()
        stored: list[StoredSample] = []
        for index, sample in enumerate(map(read_line, payload["samples"])):
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
            file_record(url, table_path(task.name), to_parquet(stored)),
        ]
        return TaskReport(files, Counts(found=len(stored), kept=len(stored)))

    def finish(self, reports: Sequence[TaskReport], context: TaskContext) -> TaskReport:
        known = known_of_old(context.inputs)
        return publish(
            Published(self.name, self.licence, self.optional, self.step, (GROUP, *self.together)),
            reports,
            context,
            earlier(context.inputs, self.step),
            # without an index of links all of old is looked at
            known if known and known(LINKS).runs else None,
        )


def known_of_old(inputs: Inputs) -> Known | None:
    """Return the index of what the split of earlier increments knows and still is, by name."""
    split = inputs.history[-1].get("split") if inputs.history else None
    if split is None:
        return None
    return partial(SortedRuns, known_shelf(split), gone=ended(gone_now(inputs)))


def _tasks(
    roster: Roster, plans: Sequence[ShardPlan], schema: Schema, left_out: Sequence[LeftOut]
) -> Sequence[Task]:
    """Return a task for each shard, and for some of what goes into none."""
    names = [plan.name for plan in plans]
    starts = range(0, len(left_out), LEFT_OUT_PER_TASK)
    names += [f"left-out-{number:06d}" for number in range(len(starts))]

    def payload(number: int) -> Json:
        if number >= len(plans):
            start = starts[number - len(plans)]
            return {"left_out": described(roster, left_out[start : start + LEFT_OUT_PER_TASK])}
        plan = plans[number]
        return {
            "split": plan.split,
            "samples": [roster.line(one) for one in plan.samples.tolist()],
            "fields": dict(schema.fields),
            "scores": list(schema.scores),
        }

    return TasksMadeLate(names, payload)


def _outcome_of(value: Mapping[str, Any]) -> tuple[str, Outcome]:
    kind = Quarantined if value["is_broken"] else Dropped
    return value["rule"], kind(read_line(value["sample"]), value["reason"], value["detail"])
