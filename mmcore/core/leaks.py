"""The last look before a dataset is published: nothing may be found in two splits."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmcore.core.columns import Column, Corpus, Gatherer, Ints, Values, Want, Word
from mmcore.core.linkage import META_PREFIX, values_of
from mmcore.core.near_limits import Limits
from mmcore.core.nearness import near_graph
from mmcore.core.sorted_runs import SEPARATOR, SortedRuns
from mmcore.media.near.digests import first_of_equal
from mmcore.sample import Sample

_SPLIT = Word(f"{META_PREFIX}split")


@dataclass(frozen=True, order=True)
class Leak:
    """One value that lies on both sides of a split, or two samples that are near."""

    name: str
    """What is equal or near: `image`, `meta:caption`."""
    value: str
    """The SHA-256 or the metadata value; of near ones how near they are."""
    keys: tuple[tuple[str, str], ...]
    """(split, lowest key there), for each split that has the value."""


def leaks(
    samples: Iterable[Sample],
    together: Sequence[str],
    limits: Limits | None = None,
    known: Callable[[str], SortedRuns] | None = None,
) -> list[Leak]:
    """Return what is found in more than one split, sorted; empty when all is well.

    Near samples count where there are limits, also those that the index of the split knows of old.
    """
    if isinstance(samples, Iterator):
        samples = list(samples)
    wants: list[Want] = [*map(Values, together), _SPLIT, *(limits.wants() if limits else ())]
    with tempfile.TemporaryDirectory(prefix="mm-leaks-") as scratch:
        gatherer = Gatherer(wants, Path(scratch))
        for sample in samples:
            gatherer.add(sample)
        # a key that is there twice is what this looks for, too: one sample in two splits
        corpus = gatherer.corpus(keys_are_unique=False)
        split_of, splits = _splits(corpus)
        suspects = {
            corpus.key(row)
            for name in together
            for row in _crossing(corpus[Values(name)], split_of).tolist()
        }
        found = list(_near(corpus, split_of, splits, limits, known)) if limits else []
    if suspects:
        found += _equal([one for one in samples if one.key in suspects], together)
    return sorted(found)


def _splits(corpus: Corpus) -> tuple[Ints, list[str]]:
    column = corpus[_SPLIT]
    words = list(column.words.items())
    number = {digest: number for number, (digest, _) in enumerate(words)}
    found = np.array([number[value.tobytes()] for value in column.take()], np.int64)
    return found, [word for _, word in words]


def _crossing(column: Column, split_of: Ints) -> Ints:
    """Return the rows that have a value which is found in two splits."""
    first = first_of_equal(column.digests())
    split = split_of[column.rows]
    values = first[split != split[first]]
    return np.unique(column.rows[np.isin(first, values)])


def _equal(samples: Iterable[Sample], together: Sequence[str]) -> list[Leak]:
    lowest: dict[tuple[str, str], dict[str, str]] = {}
    for sample in samples:
        split = str(sample.meta.get("split", ""))
        for name in together:
            for value in values_of(sample, name):
                keys = lowest.setdefault((name, value), {})
                keys[split] = min(sample.key, keys.get(split, sample.key))
    return [
        Leak(name, value, tuple(sorted(keys.items())))
        for (name, value), keys in lowest.items()
        if len(keys) > 1
    ]


def _near(
    corpus: Corpus,
    split_of: Ints,
    splits: Sequence[str],
    limits: Limits,
    known: Callable[[str], SortedRuns] | None,
) -> Iterator[Leak]:
    graph = near_graph(corpus, limits, known)
    for row, node in graph.ties(split_of).tolist():
        tie = graph.tie(row, node)
        assert tie is not None, "they are near"
        split = splits[split_of[row]]
        if node < corpus.num_rows:
            other = (splits[split_of[node]], corpus.key(node))
        else:
            key, there, _ = graph.labels[node - corpus.num_rows].split(SEPARATOR)
            other = (there, key)
        if other[0] != split:
            yield Leak(tie.modality, tie.found, tuple(sorted([(split, corpus.key(row)), other])))
