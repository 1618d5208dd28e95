"""The prints of what earlier increments kept, looked up at the cost of what is new."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from mmcore.core.columns import DIGEST_BYTES, Bytes, Corpus, Flags, Ints
from mmcore.core.near_limits import Limits, groups_of, prints_at, want_of
from mmcore.core.sorted_run import Run
from mmcore.core.sorted_runs import SortedRuns
from mmcore.media.near.compare import COMPARISONS, Comparison, vectors_agree
from mmcore.media.near.prints import Prints, hash_words
from mmcore.media.near.tables import keys_of, masks_of, meets_nothing, num_tables

VECTORS = Comparison(0, vectors_agree)
"""Embeddings have no keys to look them up by: each is compared with every other."""

_QUESTIONS_AT_ONCE = 1 << 18
_PAIRS_AT_ONCE = 1 << 14


def remember(
    corpus: Corpus,
    limits: Limits,
    kept: Flags,
    label: Callable[[int], str],
    index: Callable[[str], SortedRuns],
) -> None:
    """Add the prints of rows that were kept to the index of each modality."""
    groups = groups_of(corpus, limits)
    for name, limit in limits.by_name.items():
        column = corpus[want_of(name)]
        places = np.flatnonzero(kept[column.rows])
        rows = column.rows[places]
        prints = prints_at(column, places)
        comparison = COMPARISONS.get(name, VECTORS)
        values = _with_groups(prints.pieces(), groups, rows)
        is_vector = name not in COMPARISONS
        # embeddings are compared with all of them: one empty table keeps the form
        tables = (
            [np.zeros(len(rows), np.uint64)] if is_vector else keys_of(prints, comparison, limit)
        )
        index(name).add(
            (label(row) for row in rows.tolist()),
            values,
            prints.store.shape[1] + DIGEST_BYTES,
            tables,
            1 if is_vector else num_tables(comparison, limit),
        )


def near_known(
    index: SortedRuns,
    prints: Prints,
    groups: Bytes,
    comparison: Comparison,
    limit: float,
    name: str,
) -> Iterator[tuple[int, str, float]]:
    """Yield (class, label, value) for all that are known and near to a class."""
    tables = num_tables(comparison, limit) if name in COMPARISONS else 1
    # those of another limit cannot be asked: what is only held on to may have had one
    runs = [run for run in index.runs if len(run.keys) == tables]
    if not runs or len(prints) == 0:
        return
    if name in COMPARISONS:
        candidates = _meetings(runs, prints, comparison, limit)
    else:
        candidates = [_everyone(run, len(prints)) for run in runs]
    for run, pieces in zip(runs, candidates, strict=True):
        for one, rows in pieces:
            theirs = run.values[rows]
            near, values = comparison.agree(
                prints.take(one), np.ascontiguousarray(theirs[:, :-DIGEST_BYTES]), limit
            )
            near = near & (groups[one] == theirs[:, -DIGEST_BYTES:]).all(axis=1)
            near[near] = run.counts(rows[near])
            found = zip(one[near].tolist(), rows[near].tolist(), values[near].tolist(), strict=True)
            for number, row, value in found:
                yield number, run.label(row), value


def _meetings(
    runs: Sequence[Run], prints: Prints, comparison: Comparison, limit: float
) -> list[Iterator[tuple[Ints, Ints]]]:
    """Return for each run the (class, row) that could be near, each once, some at a time."""
    packed: list[list[Ints]] = [[] for _ in runs]
    words = prints.words(comparison.num_words) if comparison.num_words == 1 else None
    tables = zip(keys_of(prints, comparison, limit), masks_of(comparison, limit), strict=False)
    for table, (keys, masks) in enumerate(tables):
        asking = np.flatnonzero(~meets_nothing(keys))
        step = max(1, _QUESTIONS_AT_ONCE // len(masks))
        for start in range(0, len(asking), step):
            some = asking[start : start + step]
            questions = (keys[some, None] ^ masks).reshape(-1)
            for number, run in enumerate(runs):
                for question, rows in run.meet(table, questions):
                    one = some[question // len(masks)]
                    if words is not None:
                        theirs = hash_words(run.values[rows, :8], 1)[:, 0]
                        near = np.bitwise_count(words[one, 0] ^ theirs) <= limit
                        one, rows = one[near], rows[near]
                    packed[number].append(np.unique(one * run.num_rows + rows))
    return [
        _unpacked(np.unique(np.concatenate(many)), run.num_rows) if many else iter(())
        for many, run in zip(packed, runs, strict=True)
    ]


def _unpacked(packed: Ints, num_rows: int) -> Iterator[tuple[Ints, Ints]]:
    for start in range(0, len(packed), _PAIRS_AT_ONCE):
        some = packed[start : start + _PAIRS_AT_ONCE]
        yield some // num_rows, some % num_rows


def _everyone(run: Run, num_classes: int) -> Iterator[tuple[Ints, Ints]]:
    for start in range(0, num_classes * run.num_rows, _PAIRS_AT_ONCE):
        stop = min(start + _PAIRS_AT_ONCE, num_classes * run.num_rows)
        yield from _unpacked(np.arange(start, stop, dtype=np.int64), run.num_rows)


def _with_groups(pieces: Iterable[Bytes], groups: Bytes, rows: Ints) -> Iterator[Bytes]:
    start = 0
    for piece in pieces:
        yield np.hstack([piece, groups[rows[start : start + len(piece)]]])
        start += len(piece)
