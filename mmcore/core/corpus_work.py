"""How a rule over the whole corpus becomes the work of a step: one task for all files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mmcore.core.change import standing
from mmcore.core.manifest import Counts
from mmcore.core.rows import read_kept, read_rows_file, rows_files, write_part
from mmcore.core.stage import CorpusRule, rule_name
from mmcore.core.step import Artifact, Inputs, Task, TaskContext, TaskReport
from mmcore.errors import AccountingError
from mmcore.sample import Json, Outcome, Sample


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
        earlier = standing(context.inputs, self.step, with_changed=self.rule.remembers_what_changed)
        known = [old for one, gone in earlier for old in read_kept(one) if old.key not in gone]
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
