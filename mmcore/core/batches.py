"""Chains in which a stage wants many samples at once: a model, between stages that decode."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import accumulate
from typing import Protocol

from mmcore.core.decoder import Chain, borrowed
from mmcore.core.decoder_limits import DecoderLimits
from mmcore.core.stage import BatchStage, BatchWorker, Stage, rule_name
from mmcore.errors import AccountingError
from mmcore.sample import Json, Outcome, Sample

_MAX_MODELS = 2
"""Kept by a worker from task to task."""


class ChainOf(Protocol):
    """Makes a chain of some of the stages, given those that come before them."""

    def __call__(self, stages: tuple[Stage, ...], /, *, before: tuple[Stage, ...]) -> Chain: ...


def through_batches(
    stages: Sequence[Stage],
    samples: Sequence[Sample],
    chain_of: ChainOf,
    limits: DecoderLimits,
    along: Json = None,
) -> Iterator[tuple[str, Outcome]]:
    """Yield (rule, outcome) for every sample, in order.

    Samples go through in groups of the largest batch size, each group through all stages before
    the next: memory is bounded by a group, and which samples form a batch follows from the input.
    `along` is what the chains may know of this task.
    """
    parts = _parts(stages)
    group_size = max(stage.batch_size for stage in stages if isinstance(stage, BatchStage))
    firsts = accumulate((len(part) for part, _ in parts), initial=0)
    chains = [
        chain_of(part, before=tuple(stages[:first]))
        for (part, _), first in zip(parts, firsts, strict=False)
    ]
    with borrowed(chains) as decoder:
        for first in range(0, len(samples), group_size):
            group = samples[first : first + group_size]
            yield from _through(
                group, parts, lambda n, kept: decoder.outcomes(n, kept, limits, along)
            )


def _parts(stages: Sequence[Stage]) -> list[tuple[tuple[Stage, ...], BatchStage | None]]:
    """Divide stages behind each that wants batches: its own first half belongs to those before."""
    parts: list[tuple[tuple[Stage, ...], BatchStage | None]] = []
    before: tuple[Stage, ...] = ()
    for stage in stages:
        before = (*before, stage)
        if isinstance(stage, BatchStage):
            parts.append((before, stage))
            before = ()
    return [*parts, (before, None)] if before else parts


def _through(
    group: Sequence[Sample],
    parts: Sequence[tuple[tuple[Stage, ...], BatchStage | None]],
    decoded: Callable[[int, Sequence[Sample]], Iterator[tuple[str, Outcome]]],
) -> list[tuple[str, Outcome]]:
    found: list[tuple[str, Outcome]] = [("", sample) for sample in group]
    for number, (_, batch_stage) in enumerate(parts):
        found = _replaced(found, partial(decoded, number))
        if batch_stage is not None:
            found = _replaced(found, partial(_in_batches, batch_stage))
    return found


def _replaced(
    found: Sequence[tuple[str, Outcome]],
    work: Callable[[Sequence[Sample]], Iterator[tuple[str, Outcome]]],
) -> list[tuple[str, Outcome]]:
    """Put what becomes of the kept samples in their places; the others stay."""
    done = work([outcome for _, outcome in found if isinstance(outcome, Sample)])
    return [next(done) if isinstance(one[1], Sample) else one for one in found]


def _in_batches(stage: BatchStage, samples: Sequence[Sample]) -> Iterator[tuple[str, Outcome]]:
    worker = _built(stage)
    for first in range(0, len(samples), stage.batch_size):
        batch = samples[first : first + stage.batch_size]
        outcomes = worker(batch)
        keys = [one.key if isinstance(one, Sample) else one.sample.key for one in outcomes]
        if keys != [sample.key for sample in batch]:
            raise AccountingError(
                f"the stage {rule_name(stage)} answered for {keys} when given "
                f"{[sample.key for sample in batch]}. It returns one outcome for each, in order."
            )
        for outcome in outcomes:
            yield ("" if isinstance(outcome, Sample) else rule_name(stage)), outcome


@lru_cache(maxsize=_MAX_MODELS)
def _built(stage: BatchStage) -> BatchWorker:
    return stage.build_batch()
