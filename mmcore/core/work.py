"""How stages and rules become the work of a step: a task per file of the input, or one for all."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mmcore.core.manifest import Counts
from mmcore.core.rows import read_kept, read_rows_file, rows_files, with_loaded, write_part
from mmcore.core.stage import Component, CorpusRule, Stage, Worker
from mmcore.core.step import Artifact, Inputs, Task, TaskContext, TaskReport
from mmcore.errors import AccountingError, SampleError
from mmcore.sample import Json, Outcome, Quarantined, Sample, modality_of


def rule_name(component: Component) -> str:
    """Return the short name of a stage or rule, as recipes and reports spell it.

    >>> rule_name(MinSide())  # doctest: +SKIP
    'min_side'
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(component).__name__).lower()


@dataclass(frozen=True, kw_only=True)
class MapWork:
    """A chain of stages over every sample: the first that does not keep it decides."""

    step: str
    """The name of the step; references to new bytes name it as their base."""
    samples_from: str
    """The step whose kept samples go in."""
    stages: tuple[Stage, ...]
    runs_in_driver: bool = False

    def identity(self) -> Mapping[str, Json]:
        return {"work": "map", "stages": [stage.identity() for stage in self.stages]}

    def tasks(self, inputs: Inputs) -> Sequence[Task]:
        records = rows_files(inputs[self.samples_from])
        return [Task(f"part-{i:06d}", record.path) for i, record in enumerate(records)]

    def run(self, task: Task, context: TaskContext) -> TaskReport:
        artifact = context.inputs[self.samples_from]
        record = next(file for file in artifact.manifest.files if file.path == task.payload)
        chain = [(rule_name(stage), stage.reads, stage.build()) for stage in self.stages]
        kept_before = (
            row.sample for row in read_rows_file(artifact, record) if row.status == "kept"
        )
        outcomes = (_through(sample, chain, context.inputs.bases) for sample in kept_before)
        return write_part(task.name, outcomes, step=self.step, context=context)

    def finish(self, reports: Sequence[TaskReport], context: TaskContext) -> TaskReport:
        return TaskReport(files=())


def _through(
    sample: Sample,
    chain: Sequence[tuple[str, Sequence[str], Worker]],
    bases: Mapping[str, str],
) -> tuple[str, Outcome]:
    """Send one sample through the stages; the only place where bad data becomes a value."""
    key = sample.key
    for rule, reads, worker in chain:
        wanted = [extension for extension in sample.parts if modality_of(extension) in reads]
        sample = with_loaded(sample, wanted, bases)
        try:
            outcome = worker(sample)
        except SampleError as error:
            return rule, Quarantined(sample, error.reason, error.detail)
        kept = isinstance(outcome, Sample)
        after = outcome if isinstance(outcome, Sample) else outcome.sample
        if after.key != key:
            raise AccountingError(
                f"the stage {rule} returned the sample {after.key!r} for {key!r}. A stage returns "
                "the sample it was given, changed or not: use Sample.with_part and with_meta."
            )
        if not kept:
            return rule, outcome
        sample = after
    return "", sample


@dataclass(frozen=True, kw_only=True)
class CorpusWork:
    """A rule over all samples at once. The files stay divided as they were."""

    step: str
    samples_from: str
    rule: CorpusRule
    runs_in_driver: bool = False

    def identity(self) -> Mapping[str, Json]:
        return {"work": "corpus", "rule": self.rule.identity()}

    def tasks(self, inputs: Inputs) -> Sequence[Task]:
        return [Task("all")]

    def run(self, task: Task, context: TaskContext) -> TaskReport:
        artifact = context.inputs[self.samples_from]
        samples = list(read_kept(artifact))
        rule = rule_name(self.rule)
        decided: dict[str, Outcome] = {}
        known = [old for earlier in context.inputs.earlier(self.step) for old in read_kept(earlier)]
        for outcome in self.rule.decide(samples, known):
            key = outcome.key if isinstance(outcome, Sample) else outcome.sample.key
            if key in decided:
                raise AccountingError(f"the rule {rule} decided twice about {key!r}")
            decided[key] = outcome
        if decided.keys() != {sample.key for sample in samples} or len(decided) != len(samples):
            raise AccountingError(
                f"the rule {rule} was given {len(samples)} samples and decided about "
                f"{len(decided)}. It must yield one outcome for each, and keys must be unique."
            )
        reports = list(self._write(_keys_by_file(artifact), decided, context))
        files = [file for report in reports for file in report.files]
        return TaskReport(files=files, counts=Counts.total(report.counts for report in reports))

    def finish(self, reports: Sequence[TaskReport], context: TaskContext) -> TaskReport:
        return TaskReport(files=())

    def _write(
        self, files: Sequence[Sequence[str]], decided: Mapping[str, Outcome], context: TaskContext
    ) -> Iterator[TaskReport]:
        rule = rule_name(self.rule)
        for i, keys in enumerate(files):
            outcomes = ((rule, decided[key]) for key in keys)
            yield write_part(f"part-{i:06d}", outcomes, step=self.step, context=context)


def _keys_by_file(artifact: Artifact) -> list[list[str]]:
    return [
        [row.sample.key for row in read_rows_file(artifact, record) if row.status == "kept"]
        for record in rows_files(artifact)
    ]
