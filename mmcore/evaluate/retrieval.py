"""Retrieval between modalities: how often the right caption is among the k nearest.

How it is counted, in all six directions alike:

- Queries and candidates are the samples of one language that have both modalities; every language
  is searched on its own, so a French caption competes with French captions.
- A candidate is a caption group: all samples whose captions say the same are one answer, and its
  similarity to a query is that of its nearest sample (cosine).
- The rank of a query is 1 + the number of other groups that are at least as near as its own. A tie
  counts against the model.
- Recall at k of a group is the share of its queries of rank <= k. R@k is the mean over all
  (language, group), so a caption with many pictures weighs no more than one with a single picture.
- Chance is exact: any ranking that does not look at the query puts k of G groups among the first
  k, so its R@k is min(k, G) / G in each language, averaged with the same weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from mmcore.evaluate.metrics import interval, resample_weights, rounded
from mmcore.evaluate.predictions import MODALITIES, Array, Predictions
from mmcore.sample import Json

AT = (1, 5, 10)
DIRECTIONS: tuple[tuple[str, str], ...] = tuple(permutations(MODALITIES, 2))
_QUERIES_AT_ONCE = 256


@dataclass(frozen=True)
class Ranks:
    """The ranks of Q queries of one language among G caption groups."""

    rank: Array
    """int64 [Q], from 1."""
    group: Array
    """int64 [Q], the caption group of each query, numbered over the whole split."""
    num_groups: int


@dataclass(frozen=True)
class Found:
    """One of the nearest caption groups, shown by its nearest sample."""

    index: int
    """Of the sample in the split."""
    similarity: float
    is_hit: bool


def rank_queries(queries: Array, candidates: Array, group: Array) -> Ranks:
    """Rank the own caption group of each query; all three are [Q, ...], row i is one sample."""
    names, of_query = np.unique(group, return_inverse=True)
    by_group = np.argsort(of_query, kind="stable")
    starts = np.searchsorted(of_query[by_group], np.arange(len(names)))
    ranks = []
    for first in range(0, len(queries), _QUERIES_AT_ONCE):
        some = slice(first, first + _QUERIES_AT_ONCE)
        similarity = queries[some] @ candidates[by_group].T
        nearest = np.maximum.reduceat(similarity, starts, axis=1)
        own = np.take_along_axis(nearest, of_query[some, None], axis=1)
        ranks.append((nearest >= own).sum(axis=1))
    return Ranks(np.concatenate(ranks), group, len(names))


def retrieval(predictions: Predictions, *, num_resamples: int, seed: int) -> dict[str, Json]:
    """Return R@1, R@5 and R@10 of every direction that the split allows, beside chance."""
    group = predictions.caption_groups()
    num_groups = int(group.max()) + 1
    weights = resample_weights(num_groups, num_resamples=num_resamples, seed=seed)
    result: dict[str, Json] = {}
    for source, target in DIRECTIONS:
        pools = pools_by_language(predictions, source, target)
        if not pools:
            continue
        ranks = [
            rank_queries(
                predictions.embeddings[source][pool],
                predictions.embeddings[target][pool],
                group[pool],
            )
            for pool in pools
        ]
        figures: dict[str, Json] = {
            "num_queries": sum(len(found.rank) for found in ranks),
            "num_languages": len(pools),
            "num_candidates": rounded(np.mean([found.num_groups for found in ranks])),
        }
        for k in AT:
            recall, chance, cells = _by_group(ranks, k, num_groups)
            draws = (weights @ recall) / np.maximum(weights @ cells, 1)
            value = float(recall.sum() / cells.sum())
            figures[f"recall_at_{k}"] = dict(interval(value, draws))
            figures[f"chance_at_{k}"] = rounded(chance.sum() / cells.sum())
        result[f"{source}_to_{target}"] = figures
    return result


def pools_by_language(predictions: Predictions, source: str, target: str) -> list[Array]:
    """Return the indexes of the samples with both modalities, by language in sorted order."""
    both = predictions.has[source] & predictions.has[target]
    languages = predictions.languages()
    pools: dict[str, list[int]] = {}
    for index in np.flatnonzero(both):
        pools.setdefault(languages[index], []).append(int(index))
    return [np.array(pools[language]) for language in sorted(pools)]


def nearest_groups(
    predictions: Predictions, query: int, source: str, target: str, *, k: int
) -> list[Found]:
    """Return the k caption groups nearest to one sample, in its language, nearest first."""
    language = predictions.languages()
    group = predictions.caption_groups()
    pool = next(
        pool
        for pool in pools_by_language(predictions, source, target)
        if language[pool[0]] == language[query]
    )
    similarity = predictions.embeddings[target][pool] @ predictions.embeddings[source][query]
    found: list[Found] = []
    seen: set[int] = set()
    for at in np.argsort(-similarity, kind="stable"):
        index = int(pool[at])
        if int(group[index]) not in seen:
            seen.add(int(group[index]))
            hit = bool(group[index] == group[query])
            found.append(Found(index, rounded(similarity[at]), hit))
        if len(found) == k:
            break
    return found


def _by_group(ranks: Sequence[Ranks], k: int, num_groups: int) -> tuple[Array, Array, Array]:
    """Return, by caption group, the sums over languages of recall and chance, and how many."""
    recall, chance, cells = np.zeros((3, num_groups))
    for found in ranks:
        queries = np.bincount(found.group, minlength=num_groups)
        hits = np.bincount(found.group[found.rank <= k], minlength=num_groups)
        present = queries > 0
        recall[present] += hits[present] / queries[present]
        chance[present] += min(k, found.num_groups) / found.num_groups
        cells[present] += 1
    return recall, chance, cells
