"""How many samples of each class each split has, over all increments."""

import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mmcore.core.columns import Ints
from mmcore.core.shelf import Shelf
from mmcore.core.step import canonical_json

SPLITS = ("train", "val", "test")
_COUNTS = "classes"


def read_counts(shelf: Shelf) -> Mapping[str, Mapping[str, int]]:
    """Return the samples of each class by split, as earlier increments left them."""
    if _COUNTS not in shelf.names:
        return {}
    found: dict[str, dict[str, int]] = json.loads(bytes(shelf.load(_COUNTS)))
    return found


def add_counts(shelf: Shelf, class_of: Ints, words: Sequence[str], splits: Ints) -> None:
    """Add samples, each with the number of its class and of its split in `SPLITS`."""
    counts = _counts(shelf)
    pairs, numbers = np.unique(class_of * len(SPLITS) + splits, return_counts=True)
    for pair, number in zip(pairs.tolist(), numbers.tolist(), strict=True):
        of_word = counts.setdefault(words[pair // len(SPLITS)], {})
        split = SPLITS[pair % len(SPLITS)]
        of_word[split] = of_word.get(split, 0) + number
    _save(shelf, counts)


def take_counts(shelf: Shelf, gone: Iterable[tuple[str, str]]) -> None:
    """Take away samples that are not there any more, each by its class and split."""
    counts = _counts(shelf)
    for word, split in gone:
        counts[word][split] -= 1
    _save(shelf, counts)


def _counts(shelf: Shelf) -> dict[str, dict[str, int]]:
    return {word: dict(found) for word, found in read_counts(shelf).items()}


def _save(shelf: Shelf, counts: Mapping[str, Mapping[str, int]]) -> None:
    shelf.save(_COUNTS, np.frombuffer(canonical_json(counts), np.uint8))
