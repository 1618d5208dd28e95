"""How rules over the whole corpus become the work of a step: one task for all files.

Rows stream by twice: once to leave their columns behind, and once to be written with what was
decided. In between, memory holds some tens of bytes per sample.
"""

import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmcore.core.change import gone_now
from mmcore.core.columns import Corpus, Gatherer, Ints
from mmcore.core.manifest import Counts, FileRecord
from mmcore.core.rows import read_kept, read_rows_file, rows_files, write_part
from mmcore.core.shelf import Shelf
from mmcore.core.sorted_runs import indexes
from mmcore.core.stage import CorpusRule, Verdict, rule_name
from mmcore.core.step import Artifact, Inputs, Task, TaskContext, TaskReport
from mmcore.errors import AccountingError
from mmcore.sample import Json, Outcome, Sample

KNOWN = "known"
"""The folder of an artifact that holds what rules remember for the increments after it."""
CODE_VERSION = 2


@dataclass(frozen=True, kw_only=True)
class CorpusWork:
    """Rules over all samples at once, each over what those before it kept. Files stay divided."""

    step: str
    samples_from: str
    rules: tuple[CorpusRule, ...]
    runs_in_driver: bool = False

    def identity(self) -> Mapping[str, Json]:
        rules: list[Json] = [rule.identity() for rule in self.rules]
        return {"work": "corpus", "code_version": CODE_VERSION, "rules": rules}

    def tasks(self, inputs: Inputs) -> Sequence[Task]:
        return [Task("all")]

    def run(self, task: Task, context: TaskContext) -> TaskReport:
        artifact = context.inputs[self.samples_from]
        settled = context.inputs.settled.get(self.step)
        with tempfile.TemporaryDirectory(prefix="mm-corpus-") as scratch:
            shelves = list(self._shelves(context, Path(scratch)))
            # what is only held on to is read, and what is kept of it is written anew
            known = [known_shelf(settled, i) for i in range(len(shelves))] if settled else None
            gone = gone_now(context.inputs)
            samples = read_kept(artifact)
            decided = decide(self.rules, samples, shelves, Path(scratch), known=known, gone=gone)
            reports = list(self._write(artifact, decided, context))
            kept_files = [record for shelf in shelves for record in shelf.close()]
        files = [file for report in reports for file in report.files]
        counts = Counts.total(report.counts for report in reports)
        return TaskReport(files=[*files, *kept_files], counts=counts)

    def _shelves(self, context: TaskContext, scratch: Path) -> Iterator[Shelf]:
        earlier = context.inputs.earlier(self.step)
        for number, rule in enumerate(self.rules):
            folder = f"{KNOWN}/{number}-{rule_name(rule)}"
            before = earlier[-1] if earlier else None
            yield Shelf(context.output_url, folder, scratch, earlier=before)

    def finish(self, reports: Sequence[TaskReport], context: TaskContext) -> TaskReport:
        return TaskReport(files=())

    def _write(
        self, artifact: Artifact, decided: "Decided", context: TaskContext
    ) -> Iterator[TaskReport]:
        came = 0
        for number, record in enumerate(rows_files(artifact)):
            kept = [row.sample for row in read_rows_file(artifact, record) if row.status == "kept"]
            outcomes = (decided.outcome(came + i, sample) for i, sample in enumerate(kept))
            yield write_part(f"part-{number:06d}", outcomes, step=self.step, context=context)
            came += len(kept)


@dataclass(frozen=True)
class Decided:
    """What rules decided, to be asked for each sample in the order in which samples came."""

    verdicts: tuple[tuple[str, Verdict], ...]
    """By rule, in their order."""
    row_of: tuple[Ints, ...]
    """For each rule the row of each sample in the order in which they came; -1 for none."""

    def outcome(self, came: int, sample: Sample) -> tuple[str, Outcome]:
        """Return what becomes of a sample, and the rule that decided."""
        for (name, verdict), row_of in zip(self.verdicts, self.row_of, strict=True):
            outcome = verdict.outcome(int(row_of[came]), sample)
            after = outcome if isinstance(outcome, Sample) else outcome.sample
            if after.key != sample.key:
                raise AccountingError(
                    f"the rule {name} decided about {after.key!r} when it was asked about "
                    f"{sample.key!r}. This is a fault of the rule's code."
                )
            if not isinstance(outcome, Sample):
                return name, outcome
            sample = outcome
        return self.verdicts[-1][0] if self.verdicts else "", sample


def decide(
    rules: Sequence[CorpusRule],
    samples: Iterable[Sample],
    shelves: Sequence[Shelf],
    scratch: Path,
    *,
    known: Sequence[Shelf] | None = None,
    gone: Mapping[str, str] | None = None,
) -> Decided:
    """Let rules decide over samples that stream by, and remember on their shelves.

    `known` are the shelves to decide by, where they are others; `gone` is what counts no more, the
    reason by key. Files in `scratch` must outlive what is returned.
    """
    if gone:
        for rule, shelf in zip(rules, shelves, strict=True):
            rule.forget(gone, shelf)
    gatherer = Gatherer([want for rule in rules for want in rule.wants()], scratch)
    for sample in samples:
        gatherer.add(sample)
    corpus = whole = gatherer.corpus()
    seen: list[Corpus] = []
    verdicts: list[tuple[str, Verdict]] = []
    for rule, shelf in zip(rules, known or shelves, strict=True):
        verdict = rule.decide(corpus, shelf)
        if len(verdict.kept) != corpus.num_rows:
            raise AccountingError(
                f"the rule {rule_name(rule)} was given {corpus.num_rows} samples and decided about "
                f"{len(verdict.kept)}. It must decide about each."
            )
        seen.append(corpus)
        verdicts.append((rule_name(rule), verdict))
        corpus = corpus.only(verdict.kept)
    left = np.zeros(whole.num_rows, bool)
    left[corpus.arrival] = True
    for rule, shelf, given, (_, verdict) in zip(rules, shelves, seen, verdicts, strict=True):
        rule.remember(given, verdict, left[given.arrival], shelf)
    return Decided(tuple(verdicts), tuple(_row_of(given, whole.num_rows) for given in seen))


def outcomes(
    rules: Sequence[CorpusRule], samples: Sequence[Sample]
) -> Iterator[tuple[str, Outcome]]:
    """Yield what rules decide about samples, in their order, with the rule's name; write nothing.

    What if: the same decisions as those of a step that builds on nothing.
    """
    with tempfile.TemporaryDirectory(prefix="mm-corpus-") as scratch:
        shelves = [Shelf(scratch, f"{KNOWN}/{i}", Path(scratch)) for i in range(len(rules))]
        decided = decide(rules, samples, shelves, Path(scratch))
        yield from (decided.outcome(came, sample) for came, sample in enumerate(samples))


def known_shelf(artifact: Artifact, number: int = 0) -> Shelf:
    """Return what the rule of that number left in an artifact, to be read alone."""
    folders = {record.path.split("/")[1] for record in _known_files(artifact)}
    folder = next((name for name in sorted(folders) if name.startswith(f"{number}-")), "none")
    return Shelf(artifact.url, f"{KNOWN}/{folder}", None, earlier=artifact)


def knows_one(artifact: Artifact, keys: Collection[str]) -> bool:
    """Return whether an index that lies in an artifact has a row of one of some samples."""
    if next(_known_files(artifact), None) is None:
        return False
    shelf = Shelf(artifact.url, KNOWN, None, earlier=artifact)
    return any(run.names_one(keys) for index in indexes(shelf) for run in index.runs)


def _known_files(artifact: Artifact) -> Iterator[FileRecord]:
    return (record for record in artifact.manifest.files if record.path.startswith(f"{KNOWN}/"))


def _row_of(corpus: Corpus, num_samples: int) -> Ints:
    found = np.full(num_samples, -1, np.int64)
    found[corpus.arrival] = np.arange(corpus.num_rows)
    return found
