"""How stages become the work of a step: a task per file of the input."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmcore.core.rows import read_rows_file, rows_files, with_loaded, write_part
from mmcore.core.stage import Stage, Worker, rule_name
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
