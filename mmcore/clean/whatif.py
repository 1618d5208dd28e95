"""What other limits would keep and drop, from the scores that are stored: nothing is decoded.

summarize(what_if(read_rows(artifact), [MinSide(min_side=32)], [MinSide(min_side=64)]))
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from mmcore.clean.parts import RequireParts
from mmcore.core.measured import Measured, declare_optional, is_optional, without_bad_part
from mmcore.core.rows import Row
from mmcore.core.stage import Stage, rule_name
from mmcore.errors import SampleError
from mmcore.sample import Dropped, Outcome, Quarantined, Sample

KEPT = "kept"
UNKNOWN = "unknown"
MAX_EXAMPLES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of a sample, or would."""

    status: str
    """`kept`, `dropped`, `quarantined`, or `unknown` where no stored score can say."""
    reason: str = ""
    detail: str = ""
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """A sample before and after."""

    key: str
    before: Verdict
    after: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """How many samples are where, before and after, and some of those that would move."""

    num_samples: int
    before: dict[str, int]
    """`kept`, and every reason, with the number of samples."""
    after: dict[str, int]
    num_gained: int
    """Kept after and not before."""
    num_lost: int
    num_unknown: int
    unknown_because: dict[str, int]
    """In words, with the number of samples."""
    gained: tuple[Change, ...] = field(repr=False)
    """The first MAX_EXAMPLES."""
    lost: tuple[Change, ...] = field(repr=False)
    unknown: tuple[Change, ...] = field(repr=False)


def what_if(
    rows: Iterable[Row], before: Sequence[Stage], after: Sequence[Stage]
) -> Iterator[Change]:
    """Yield, for each row that the stages `before` wrote, what `after` would make of it.

    A sample's way through `after` is followed to the first stage that refuses it. What passed a
    stage before passes the same one again; of the others, a `Measured` stage decides by the stored
    scores, and one that reads no bytes is asked. Where neither is possible the sample is `unknown`:
    the scores of samples that were dropped early are only there if the measuring stages
    (`measure_image`, ...) stand before the limits.
    """
    judge = _Judge(before, after)
    for row in rows:
        verdict = Verdict(status=row.status, reason=row.reason, detail=row.detail, rule=row.rule)
        yield Change(row.sample.key, verdict, judge(row))


def summarize(changes: Iterable[Change]) -> Summary:
    """Count changes, and keep the first few of each kind."""
    before: Counter[str] = Counter()
    after: Counter[str] = Counter()
    moved: dict[str, list[Change]] = {"gained": [], "lost": [], UNKNOWN: []}
    counts: Counter[str] = Counter()
    because: Counter[str] = Counter()
    for change in changes:
        before[change.before.reason or KEPT] += 1
        after[change.after.reason or change.after.status] += 1
        kind = _kind(change)
        counts[kind] += 1
        if kind == UNKNOWN:
            because[_because(change)] += 1
        if kind in moved and len(moved[kind]) < MAX_EXAMPLES:
            moved[kind].append(change)
    return Summary(
        num_samples=counts.total(),
        before=dict(sorted(before.items())),
        after=dict(sorted(after.items())),
        num_gained=counts["gained"],
        num_lost=counts["lost"],
        num_unknown=counts[UNKNOWN],
        unknown_because=dict(sorted(because.items())),
        gained=tuple(moved["gained"]),
        lost=tuple(moved["lost"]),
        unknown=tuple(moved[UNKNOWN]),
    )


def _because(change: Change) -> str:
    """Return why it is not known, in words that follow a number of samples."""
    rule, reason = change.after.rule, change.before.reason
    if reason:
        return f"{reason} before {rule} was asked"
    return f"kept, and {rule} was never asked"


def _kind(change: Change) -> str:
    if change.after.status == UNKNOWN:
        return UNKNOWN
    was, is_ = change.before.status == KEPT, change.after.status == KEPT
    return "same" if was == is_ else "gained" if is_ else "lost"


class _Judge:
    """Follows samples through the stages `after`, knowing how far they came before."""

    def __init__(self, before: Sequence[Stage], after: Sequence[Stage]) -> None:
        self._before = before
        self._after = after
        self._workers = {i: stage.build() for i, stage in enumerate(after) if not stage.reads}

    def __call__(self, row: Row) -> Verdict:
        decided = self._decided(row)
        passed = self._before[:decided]
        sample = replace(row.sample, scratch={})
        for i, stage in enumerate(self._after):
            outcome = self._outcome(i, stage, sample, passed, row, decided)
            if outcome is None:
                return Verdict(status=UNKNOWN, rule=rule_name(stage))
            if not isinstance(outcome, Sample):
                status = "dropped" if isinstance(outcome, Dropped) else "quarantined"
                return Verdict(
                    status=status,
                    reason=outcome.reason,
                    detail=outcome.detail,
                    rule=rule_name(stage),
                )
            sample = outcome
        return Verdict(status=KEPT)

    def _decided(self, row: Row) -> int:
        """Return the place of the stage that refused a row; the number of stages if none did."""
        rules = [rule_name(stage) for stage in self._before]
        if row.status == KEPT or row.rule not in rules:
            return len(rules)
        candidates = [i for i, rule in enumerate(rules) if rule == row.rule]
        # two stages of a class: the first that refuses what is stored
        refusing = (i for i in candidates if _refuses(self._before[i], row.sample))
        return next(refusing, candidates[0])

    def _outcome(
        self,
        i: int,
        stage: Stage,
        sample: Sample,
        passed: Sequence[Stage],
        row: Row,
        decided: int,
    ) -> Outcome | None:
        """Return what a stage makes of a sample, or None where that cannot be known."""
        if stage in passed:
            if isinstance(stage, RequireParts):
                declare_optional(sample, stage.optional)
            return sample
        if i in self._workers:
            try:
                return self._workers[i](sample)
            except SampleError as error:
                return Quarantined(sample, error.reason, error.detail)
        if isinstance(stage, Measured) and stage.is_measured(sample):
            return _decided_by_scores(stage, sample)
        if all(sample.extension(modality) is None for modality in stage.reads):
            return sample
        if decided < len(self._before) and stage == self._before[decided]:
            refusal = Dropped if row.status == "dropped" else Quarantined
            return refusal(sample, row.reason, row.detail)
        return None


def _decided_by_scores(stage: Measured, sample: Sample) -> Outcome:
    refused = stage.decide(sample)
    (modality,) = stage.reads
    if refused is None or not is_optional(sample, modality):
        return refused or sample
    extension = sample.extension(modality)
    if extension is None:
        # it was left out before, and its scores are still there
        return sample
    return without_bad_part(sample, extension, refused.reason, refused.detail)


def _refuses(stage: Stage, sample: Sample) -> bool:
    return (
        isinstance(stage, Measured)
        and stage.is_measured(sample)
        and stage.decide(sample) is not None
    )
