"""Rules over a corpus in tests: over samples in memory, and as a step that grows."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mmcore import storage
from mmcore.core.change import GONE_NAME, gone_table
from mmcore.core.corpus_work import CorpusWork, outcomes
from mmcore.core.manifest import Counts, Manifest
from mmcore.core.rows import Row, read_rows, write_part
from mmcore.core.stage import CorpusRule
from mmcore.core.step import Artifact, Inputs, Task, TaskContext
from mmcore.sample import Outcome, Sample


def decided(rule: CorpusRule, samples: Sequence[Sample]) -> list[Outcome]:
    """What a rule decides about samples, in their order."""
    return [outcome for _, outcome in outcomes([rule], samples)]


class Growing:
    """A step of rules, and what its increments made."""

    def __init__(self, directory: Path, *rules: CorpusRule) -> None:
        self.directory = directory
        self.work = CorpusWork(step="dedup", samples_from="clean", rules=rules)
        self.made: list[Artifact] = []

    def add(
        self,
        samples: Sequence[Sample],
        *,
        num_files: int = 1,
        gone: Mapping[str, str] | None = None,
        settled: Artifact | None = None,
    ) -> dict[str, Row]:
        """Take in the samples of an increment, divided over files; return what came of each.

        `gone` is what counts no more, the reason by key; on `settled` is held, and on nothing
        built.
        """
        number = len(self.made)
        clean = self._artifact(f"clean-{number}", samples, num_files)
        url = str(self.directory / f"dedup-{number}")
        history = tuple({"dedup": artifact} for artifact in self.made)
        ingest = str(self.directory / f"ingest-{number}")
        storage.write(storage.join(ingest, GONE_NAME), gone_table(gone or {}))
        inputs = Inputs({"clean": clean}, {"ingest": ingest}, history)
        if settled is not None:
            inputs = replace(inputs, history=(), settled={"dedup": settled})
        context = TaskContext(inputs, url, str(self.directory))
        report = self.work.run(Task("all"), context)
        manifest = Manifest("dedup", "", {}, report.counts, tuple(report.files))
        self.made.append(Artifact(url, manifest))
        rows = {row.sample.key: row for row in read_rows(self.made[-1])}
        assert rows.keys() == {sample.key for sample in samples}
        return rows

    def _artifact(self, name: str, samples: Sequence[Sample], num_files: int) -> Artifact:
        url = str(self.directory / name)
        context = TaskContext(Inputs({}, {}), url, str(self.directory))
        reports = [
            write_part(
                f"part-{i:06d}",
                (("", sample) for sample in samples[i::num_files]),
                step="clean",
                context=context,
            )
            for i in range(num_files)
        ]
        files = tuple(file for report in reports for file in report.files)
        counts = Counts.total(report.counts for report in reports)
        return Artifact(url, Manifest("clean", "", {}, counts, files))
