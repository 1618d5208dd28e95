"""What distinguishes two dataset versions: samples, splits, scores, labels; no media are read.

A sample is the same under its key. It changed when a part of it or its metadata did, and moved when
it lies in another split. What is to be forgotten is in neither version.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mmcore.core.forgotten import hidden_keys
from mmcore.core.lineage import DatasetVersion, read_shard_table
from mmcore.core.step import canonical_json
from mmcore.sample import Json, sha256_hex

COUNTED = ("label", "language", "licence")
"""The metadata fields whose values are counted."""
QUANTILES = {"p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95}
_OF_THE_SPLIT = frozenset({"split", "split_group"})
_DOCUMENT = "json"
"""The part that repeats the metadata."""

Numbers = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Contents:
    """What a version holds, as far as it is compared."""

    split: Mapping[str, str]
    """By key."""
    digest: Mapping[str, str]
    """What stands for parts and metadata, by key."""
    scores: Mapping[str, Numbers]
    """Every measured value by score; a score that a sample lacks is not there."""
    counted: Mapping[str, Counter[str]]
    """By field how many samples have each value."""


def diff(before: DatasetVersion, after: DatasetVersion) -> dict[str, Json]:
    """Return how a version differs from another, as JSON with stable keys."""
    old, new = read_contents(before), read_contents(after)
    added = sorted(new.split.keys() - old.split.keys())
    removed = sorted(old.split.keys() - new.split.keys())
    both = sorted(old.split.keys() & new.split.keys())
    changed = [key for key in both if old.digest[key] != new.digest[key]]
    moved = [key for key in both if old.split[key] != new.split[key]]
    kinds = {
        "before": Counter(old.split.values()),
        "after": Counter(new.split.values()),
        "added": Counter(new.split[key] for key in added),
        "removed": Counter(old.split[key] for key in removed),
        "changed": Counter(new.split[key] for key in changed),
    }
    by_split: dict[str, Json] = {
        kind: {split: counted[split] for split in sorted(counted)}
        for kind, counted in kinds.items()
    }
    moves: dict[str, Json] = {key: {"from": old.split[key], "to": new.split[key]} for key in moved}
    return {
        "before": str(before),
        "after": str(after),
        "by_split": by_split,
        "added": list(added),
        "removed": list(removed),
        "changed": list(changed),
        "moved": moves,
        "scores": {
            name: drift(old.scores.get(name, _NONE), new.scores.get(name, _NONE))
            for name in sorted(old.scores.keys() | new.scores.keys())
        },
        "counts": {
            field: _counts(old.counted[field], new.counted[field])
            for field in COUNTED
            if old.counted[field] or new.counted[field]
        },
    }


def read_contents(version: DatasetVersion) -> Contents:
    """Read what a version holds from its table."""
    columns = ["key", "split", "parts", "meta", "scores"]
    table = read_shard_table(version.artifact, columns).combine_chunks()
    hidden = hidden_keys(version.artifact.url)
    keys = table["key"].to_pylist()
    table = table.filter(pa.array([key not in hidden for key in keys], pa.bool_()))
    split: dict[str, str] = {}
    digest: dict[str, str] = {}
    counted: dict[str, Counter[str]] = {field: Counter() for field in COUNTED}
    for batch in table.select(columns[:4]).to_batches(max_chunksize=8192):
        for row in batch.to_pylist():
            meta = json.loads(row["meta"])
            split[row["key"]] = row["split"]
            digest[row["key"]] = contents_digest(row["parts"], meta)
            for field in COUNTED:
                if meta.get(field) not in (None, ""):
                    counted[field][str(meta[field])] += 1
    return Contents(split, digest, _scores(table["scores"]), counted)


def drift(before: Numbers, after: Numbers) -> dict[str, Json]:
    """Return mean and quantiles on both sides, and how far the two distributions are apart.

    `ks` is the two-sample Kolmogorov-Smirnov statistic, from 0 (the same) to 1; `p_value` its
    asymptotic significance with Stephens' correction. Both None where a side has no value.
    """
    found: dict[str, Json] = {"before": _summary(before), "after": _summary(after)}
    if not (before.size and after.size):
        return {**found, "ks": None, "p_value": None}
    every = np.concatenate([before, after])
    below_before = np.searchsorted(np.sort(before), every, side="right") / before.size
    below_after = np.searchsorted(np.sort(after), every, side="right") / after.size
    statistic = float(np.abs(below_before - below_after).max())
    weight = np.sqrt(before.size * after.size / (before.size + after.size))
    scaled = (weight + 0.12 + 0.11 / weight) * statistic
    terms = np.arange(1, 101)
    tail = 2 * np.sum((-1.0) ** (terms - 1) * np.exp(-2 * (terms * scaled) ** 2))
    # the series converges badly near nought, where there is no difference to speak of
    p_value = 1.0 if scaled < 0.2 else min(1.0, max(0.0, float(tail)))
    return {**found, "ks": statistic, "p_value": p_value}


_NONE: Numbers = np.zeros(0)


def _summary(values: Numbers) -> dict[str, Json]:
    if not values.size:
        return {"num": 0}
    quantiles: dict[str, Json] = {
        name: float(np.quantile(values, share)) for name, share in QUANTILES.items()
    }
    return {"num": int(values.size), "mean": float(values.mean()), **quantiles}


def _scores(column: pa.ChunkedArray) -> dict[str, Numbers]:
    names: list[Numbers] = []
    found: dict[str, list[Numbers]] = {}
    for chunk in column.chunks:
        first, last = chunk.offsets[0].as_py(), chunk.offsets[len(chunk)].as_py()
        names = chunk.keys.slice(first, last - first).to_numpy(zero_copy_only=False)
        values = chunk.items.slice(first, last - first).to_numpy(zero_copy_only=False)
        for name in np.unique(names).tolist():
            of_score = values[names == name].astype(np.float64)
            found.setdefault(name, []).append(of_score[np.isfinite(of_score)])
    return {name: np.concatenate(parts) for name, parts in sorted(found.items())}


def contents_digest(parts: Sequence[Mapping[str, Any]], meta: Mapping[str, Json]) -> str:
    """Return what stands for parts and metadata of a sample, whatever split it is in."""
    told = {name: value for name, value in meta.items() if name not in _OF_THE_SPLIT}
    hashes = {one["extension"]: one["sha256"] for one in parts if one["extension"] != _DOCUMENT}
    return sha256_hex(canonical_json([hashes, told]))


def _counts(before: Counter[str], after: Counter[str]) -> dict[str, Json]:
    return {
        value: {"before": before[value], "after": after[value]}
        for value in sorted(before.keys() | after.keys())
    }
