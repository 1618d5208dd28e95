"""The last look before a dataset is published: nothing may be found in two splits."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmcore.core.columns import (
    DIGEST_BYTES,
    Column,
    Corpus,
    Flags,
    Gatherer,
    Ints,
    Values,
    Want,
    Word,
    key_digest,
)
from mmcore.core.linkage import LINKS, MEMBERS, META_PREFIX, values_of
from mmcore.core.near_limits import Limits
from mmcore.core.nearness import near_graph
from mmcore.core.sorted_run import SEPARATOR
from mmcore.core.sorted_runs import SortedRuns
from mmcore.media.near.digests import first_of_equal
from mmcore.sample import Sample

GROUP = f"{META_PREFIX}split_group"
"""What a split calls the samples that it keeps together: after the key of one of them."""
_SPLIT = Word(f"{META_PREFIX}split")

Known = Callable[[str], SortedRuns]
"""An index of what earlier increments kept, by its name or by the modality that it compares."""


@dataclass(frozen=True, order=True)
class Leak:
    """One value that lies on both sides of a split, or two samples that are near."""

    name: str
    """What is equal or near: `image`, `meta:caption`."""
    value: str
    """The SHA-256 or the metadata value; of near ones how near they are."""
    keys: tuple[tuple[str, str], ...]
    """(split, lowest key there), for each split that has the value."""


@dataclass(frozen=True)
class _Leader:
    """The digest of the key after which a sample's group is called."""

    width: int = DIGEST_BYTES
    lies_in_file: bool = False

    def of(self, sample: Sample) -> Sequence[bytes]:
        return [key_digest(name) for name in values_of(sample, GROUP)]


class LeakCheck:
    """Looks for leaks among samples that stream by, and between them and what is known of old."""

    def __init__(
        self,
        together: Sequence[str],
        limits: Limits | None = None,
        known: Known | None = None,
    ) -> None:
        self._together = together
        self._limits = limits
        self._known = known
        self._scratch = tempfile.TemporaryDirectory(prefix="mm-leaks-")
        wants: list[Want] = [*map(Values, together), _SPLIT, *(limits.wants() if limits else ())]
        if known is not None and GROUP in together:
            wants.append(_Leader())
        self._gatherer = Gatherer(wants, Path(self._scratch.name))

    def __enter__(self) -> "LeakCheck":
        return self

    def __exit__(self, *_: object) -> None:
        self._gatherer.close()
        self._scratch.cleanup()

    def add(self, sample: Sample) -> None:
        """Take note of a sample."""
        self._gatherer.add(sample)

    def leaks(
        self, again: Callable[[], Iterable[Sample]], counts: Flags | None = None
    ) -> list[Leak]:
        """Return what is found in more than one split, sorted; empty when all is well.

        `again` gives the samples once more, and is asked where something is wrong. `counts` says
        which of those that came are looked at; all are where it is not given.
        """
        # a key that is there twice is what this looks for, too: one sample in two splits
        corpus = self._gatherer.corpus(keys_are_unique=False)
        if counts is not None:
            corpus = corpus.only(counts[corpus.arrival])
        split_of, splits = _splits(corpus)
        crossing = {
            corpus.key(row)
            for name in self._together
            for row in _crossing(corpus[Values(name)], split_of).tolist()
        }
        found = list(_near(corpus, split_of, splits, self._limits, self._known))
        of_old = list(self._of_old(corpus, split_of, splits))
        suspects = crossing | {key for _, key, *_ in of_old}
        samples = [one for one in again() if one.key in suspects] if suspects else []
        found += _equal([one for one in samples if one.key in crossing], self._together)
        by_key = {one.key: one for one in samples}
        for name, key, split, other in of_old:
            value = " ".join(values_of(by_key[key], name))
            found.append(Leak(name, value, tuple(sorted([(split, key), other]))))
        return sorted(found)

    def _of_old(
        self, corpus: Corpus, split_of: Ints, splits: Sequence[str]
    ) -> Iterator[tuple[str, str, str, tuple[str, str]]]:
        """Yield (what is equal, key, its split, (another split, a key there)) from the index."""
        if self._known is None:
            return
        asked: list[tuple[str, Want, str]] = [(one, Values(one), LINKS) for one in self._together]
        if GROUP in self._together:
            asked.append((GROUP, _Leader(), MEMBERS))
        for name, want, index in asked:
            column = corpus[want]
            values = column.take()
            answers = self._known(index).find(column.digests(), values, one_is_enough=True)
            for place, label in answers:
                row = int(column.rows[place])
                key, there, group, *_ = label.split(SEPARATOR)
                # of a group that a sample has left since nothing follows
                is_other = index == MEMBERS and key_digest(group) != values[place].tobytes()
                if there != splits[split_of[row]] and not is_other:
                    yield name, corpus.key(row), splits[split_of[row]], (there, key)


def leaks(
    samples: Iterable[Sample],
    together: Sequence[str],
    limits: Limits | None = None,
    known: Known | None = None,
) -> list[Leak]:
    """Return what is found in more than one split, sorted; empty when all is well.

    Near samples count where there are limits, and so does what the index of a split knows of old.
    """
    if isinstance(samples, Iterator):
        samples = list(samples)
    with LeakCheck(together, limits, known) as check:
        for sample in samples:
            check.add(sample)
        return check.leaks(lambda: samples)


def _splits(corpus: Corpus) -> tuple[Ints, list[str]]:
    column = corpus[_SPLIT]
    # a word is held once, so where it lies says which one it is
    return column.at, list(column.words.values())


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
    limits: Limits | None,
    known: Known | None,
) -> Iterator[Leak]:
    if limits is None:
        return
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
