"""Stages that want batches, without a model."""

from collections.abc import Sequence
from dataclasses import dataclass

from mmcore.core.stage import (
    BatchStage,
    BatchWorker,
    Stage,
    Worker,
    prepared_as,
    without_prepared,
)
from mmcore.sample import Dropped, Outcome, Sample


@dataclass(frozen=True, kw_only=True)
class Together(BatchStage):
    """Say which samples came together; drop what says so."""

    reads = ("text",)
    batch_size: int = 3

    def build(self) -> Worker:
        return lambda sample: sample.with_part(prepared_as("txt"), sample.data("txt")[::-1])

    def build_batch(self) -> BatchWorker:
        def work(samples: Sequence[Sample]) -> Sequence[Outcome]:
            keys = " ".join(sample.key for sample in samples)
            return [self._said(sample, keys) for sample in samples]

        return work

    @staticmethod
    def _said(sample: Sample, keys: str) -> Outcome:
        word = sample.data(prepared_as("txt")).decode()
        sample = without_prepared(sample).with_meta(came_with=keys, backwards=word)
        return Dropped(sample, "unwanted") if word == "detnawnu" else sample


@dataclass(frozen=True, kw_only=True)
class Loses(Together):
    """Forget the last of each batch."""

    def build_batch(self) -> BatchWorker:
        work = super().build_batch()
        return lambda samples: work(samples)[:-1]


@dataclass(frozen=True, kw_only=True)
class Joined(Stage):
    """Put what a batch said into a part."""

    reads = ("text",)

    def build(self) -> Worker:
        def join(sample: Sample) -> Outcome:
            word = f"{sample.meta['backwards']} {sample.data('up.txt').decode()}"
            return sample.with_part("joined.txt", word.encode())

        return join
