"""How stages become the work of a step: a task per file of the input."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, cast

from mmcore.core.ahead import (
    AHEAD,
    doing,
    is_all_made,
    made_of,
    mark_of,
    part_for,
    taken,
    was_ahead,
    with_made,
)
from mmcore.core.batches import through_batches
from mmcore.core.decoder import Decode, borrowed
from mmcore.core.decoder_limits import DecoderLimits
from mmcore.core.executor import ONE_CPU, Resources
from mmcore.core.measured import Measured
from mmcore.core.memory import Measuring, Memory, measuring
from mmcore.core.memory_files import load_memory, places
from mmcore.core.rows import read_rows_file, rows_files, with_loaded, write_part
from mmcore.core.stage import BatchStage, Stage, Worker, rule_name
from mmcore.core.step import Inputs, Task, TaskContext, TaskReport
from mmcore.errors import AccountingError, SampleError
from mmcore.sample import Json, Outcome, Quarantined, Sample, modality_of


@dataclass(frozen=True, kw_only=True)
class MapWork:
    """A chain of stages over every sample: the first that does not keep it decides."""

    step: str
    """The name of the step; references to new bytes name it as their base."""
    samples_from: str
    """The step whose kept samples go in."""
    stages: tuple[Stage, ...]
    ahead: tuple[Stage, ...] = ()
    """Stages of a later step that work on what is kept while its bytes are in hand."""
    limits: DecoderLimits = field(default_factory=DecoderLimits)
    runs_in_driver: bool = False

    @property
    def resources(self) -> Resources:
        """Return what its worker occupies: the most that one of the stages asks for."""
        asked = [stage.resources for stage in self.stages if isinstance(stage, BatchStage)]
        return Resources(
            num_cpus=max((one.num_cpus for one in asked), default=ONE_CPU.num_cpus),
            num_gpus=max((one.num_gpus for one in asked), default=ONE_CPU.num_gpus),
        )

    def identity(self) -> Mapping[str, Json]:
        stages: list[Json] = [stage.identity() for stage in self.stages]
        ahead: list[Json] = [stage.identity() for stage in self.ahead]
        limits: dict[str, Json] = asdict(self.limits)
        identity: dict[str, Json] = {"work": "map", "stages": stages, "limits": limits}
        return {**identity, AHEAD: ahead} if ahead else identity

    def tasks(self, inputs: Inputs) -> Sequence[Task]:
        artifact = inputs[self.samples_from]
        records = rows_files(artifact)
        wanted = measuring(self.stages)
        known = places(inputs.directory, wanted, self.ahead, self.identity(), artifact, records)
        return [
            Task(f"part-{i:06d}", {"rows": record.path, "known": list(files)})
            for i, (record, files) in enumerate(zip(records, known, strict=True))
        ]

    def run(self, task: Task, context: TaskContext) -> TaskReport:
        payload = cast("Mapping[str, Any]", task.payload)
        artifact = context.inputs[self.samples_from]
        record = next(file for file in artifact.manifest.files if file.path == payload["rows"])
        samples = [row.sample for row in read_rows_file(artifact, record) if row.status == "kept"]
        keys = [sample.key for sample in samples]
        wanted = measuring(self.stages)
        memory = load_memory(payload["known"], wanted, self.ahead, keys, self.identity())
        outcomes = self._outcomes(samples, context.inputs.bases, memory)
        return write_part(task.name, outcomes, step=self.step, context=context)

    def finish(self, reports: Sequence[TaskReport], context: TaskContext) -> TaskReport:
        return TaskReport(files=(), facts=measuring(self.stages).facts())

    def _outcomes(
        self, samples: Sequence[Sample], bases: Mapping[str, str], memory: Memory
    ) -> Iterator[tuple[str, Outcome]]:
        """Send samples through the stages, in the decoder process if one looks at bytes."""
        chain = StageChain(self.stages, bases)
        if not self.ahead and is_all_made(self.stages, samples):
            yield from map(chain.build(_ignore)(None), samples)
            return
        along = memory.to_json() if self.ahead or measuring(self.stages).given else None
        if any(isinstance(stage, BatchStage) for stage in self.stages):
            chain_of = partial(StageChain, bases=bases)
            yield from through_batches(self.stages, samples, chain_of, self.limits, along)
        elif self.ahead:
            with borrowed([replace(chain, ahead=self.ahead), chain]) as decoder:
                found = list(decoder.outcomes(0, samples, self.limits, along))
                # what nothing could be made of is not refused for it, or not in this step
                again = [i for i, (rule, _) in enumerate(found) if was_ahead(rule)]
                rest = decoder.outcomes(1, [samples[i] for i in again], self.limits, along)
                for i, outcome in zip(again, rest, strict=True):
                    found[i] = outcome
            yield from found
        else:
            with borrowed([chain]) as decoder:
                yield from decoder.outcomes(0, samples, self.limits, along)


@dataclass(frozen=True)
class StageChain:
    """Stages over one sample, as they travel to the process that builds and runs them."""

    stages: tuple[Stage, ...]
    bases: Mapping[str, str]
    before: tuple[Stage, ...] = ()
    """Stages of the step that samples have been through when they come here."""
    ahead: tuple[Stage, ...] = ()
    """Stages of a later step that work on what is kept."""

    def build(self, entering: Callable[[str], None]) -> Callable[[Json], Decode]:
        """Return what makes the function from a sample to the rule that decided, and its outcome.

        It is made of what is known of the samples of a task (`Memory.to_json`), and adds to it.
        """
        links = [
            _Link(
                stage,
                stage.placed(self.bases).build(),
                measuring((*self.before, *self.stages[: i + 1])),
                mark_of(stage),
            )
            for i, stage in enumerate(self.stages)
        ]
        later = [
            _Link(stage, stage.placed(self.bases).build(), measuring(()), mark_of(stage))
            for stage in self.ahead
        ]

        def knowing(along: Json) -> Decode:
            memory = Memory() if along is None else Memory.from_json(along)

            def decode(sample: Sample) -> tuple[str, Outcome]:
                rule, outcome = _through(sample, links, memory, self.bases, entering)
                if isinstance(outcome, Sample):
                    for link in later:
                        outcome = _ahead(outcome, link, memory, self.bases, entering)
                return rule, outcome

            return decode

        return knowing


def _ignore(_: str) -> None:
    """Nobody asks which stage has the sample in hand."""


@dataclass(frozen=True)
class _Link:
    """A stage of the chain, ready to work."""

    stage: Stage
    worker: Worker
    measuring: Measuring
    """What the chain measures up to here."""
    mark: str
    """What stands for the stage in what it makes ahead; "" where it does not."""


def _through(
    sample: Sample,
    chain: Sequence[_Link],
    memory: Memory,
    bases: Mapping[str, str],
    entering: Callable[[str], None],
) -> tuple[str, Outcome]:
    """Send one sample through the stages; the only place where bad data becomes a value."""
    key = sample.key
    for link in chain:
        rule = rule_name(link.stage)
        entering(rule)
        made = taken(link.stage, link.mark, sample)
        if made is not None:
            sample = made
            continue
        sample, is_known = _recalled(sample, link, memory)
        if not is_known:
            reads = link.stage.reads
            wanted = [extension for extension in sample.parts if modality_of(extension) in reads]
            sample = with_loaded(sample, wanted, bases)
        try:
            outcome = link.worker(sample)
        except SampleError as error:
            return rule, Quarantined(sample, error.reason, error.detail)
        kept = isinstance(outcome, Sample)
        after = outcome if isinstance(outcome, Sample) else outcome.sample
        if after.key != key:
            raise AccountingError(
                f"the stage {rule} returned the sample {after.key!r} for {key!r}. A stage returns "
                "the sample it was given, changed or not: use Sample.with_part and with_meta."
            )
        if isinstance(link.stage, Measured) and not is_known:
            memory.learn(after, link.measuring, link.stage.reads)
        if not kept:
            return rule, outcome
        sample = after
    return "", sample


def _ahead(
    sample: Sample,
    link: _Link,
    memory: Memory,
    bases: Mapping[str, str],
    entering: Callable[[str], None],
) -> Sample:
    """Return a sample with what a stage of a later step makes of it beside the part, if it can."""
    extension = part_for(link.stage, sample)
    if extension is None:
        return sample
    made = memory.made.recall(link.mark, extension, sample.parts[extension])
    if made is None:
        entering(doing(rule_name(link.stage)))
        loaded = with_loaded(sample, [extension], bases)
        try:
            made = made_of(link.mark, extension, loaded, link.worker(loaded))
        except SampleError:
            made = None
    if made is None:
        return sample
    memory.made.learn(made, sample.parts[extension])
    return with_made(sample, made)


def _recalled(sample: Sample, link: _Link, memory: Memory) -> tuple[Sample, bool]:
    """Return a sample with what is known for a stage, and whether it can do without any bytes."""
    if not isinstance(link.stage, Measured):
        return sample, False
    sample, is_known = memory.recall(link.stage, link.measuring, sample)
    (modality,) = link.stage.reads
    # where a part is left out, the next one of its kind is looked at
    num_parts = sum(modality_of(extension) == modality for extension in sample.parts)
    return sample, is_known and num_parts <= 1
