"""Duplicates byte for byte."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mmcore.core.linkage import check_names, values_of
from mmcore.core.stage import CorpusRule
from mmcore.sample import Dropped, Outcome, Sample


@dataclass(frozen=True, kw_only=True)
class ExactDuplicates(CorpusRule):
    """Keep one of all samples that are equal in everything named: the one with the lowest key.

    One that an earlier increment kept outlives every newcomer. A sample that lacks one of the names
    is nobody's duplicate.
    """

    same: tuple[str, ...]
    """What must be equal, all of it: `image`, `text`, `audio`, `video`, `meta:<field>`."""

    def __post_init__(self) -> None:
        check_names(self.same, field="exact_duplicates.same")

    def decide(self, samples: Sequence[Sample], known: Sequence[Sample] = ()) -> Iterator[Outcome]:
        survivors = {self._identity(sample): sample.key for sample in known}
        for sample in sorted(samples, key=lambda sample: sample.key):
            identity = self._identity(sample)
            if not all(identity):
                yield sample
                continue
            survivor = survivors.setdefault(identity, sample.key)
            if survivor == sample.key:
                yield sample
            else:
                detail = f"same {', '.join(self.same)} as {survivor}"
                yield Dropped(sample, "exact_duplicate", detail, twin=survivor)

    def _identity(self, sample: Sample) -> tuple[tuple[str, ...], ...]:
        return tuple(values_of(sample, name) for name in self.same)
