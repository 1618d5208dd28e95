"""Which dataset versions hold a sample, and which models have seen it: read from manifests."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mmcore import storage
from mmcore.core.lineage import (
    SHARD_STEP,
    STEPS,
    DatasetVersion,
    committed_artifacts,
    dataset_versions,
    made_from,
    read_shard_table,
)
from mmcore.core.step import Artifact
from mmcore.core.tombstones import Tombstone, read_tombstones
from mmcore.sample import Json

ROLES = {"train": "learned from it", "val": "was tuned on it", "test": "was judged on it"}


@dataclass(frozen=True)
class Holding:
    """What a dataset version has of some samples."""

    version: DatasetVersion
    splits: Mapping[str, str]
    """The split by key, of samples that count."""
    places: tuple[Tombstone, ...]
    """Where they lie in its shards; `reason` is empty for samples that count."""


def holdings(root: str, name: str, keys: Iterable[str]) -> list[Holding]:
    """Return the versions of a dataset whose shards have one of some samples, the oldest first."""
    wanted = frozenset(keys)
    found = []
    for version in dataset_versions(root, name):
        table = read_shard_table(version.artifact, ["key", "split", "shard", "index"])
        rows = table.filter(
            pc.is_in(table["key"], pa.array(sorted(wanted), pa.string()))
        ).to_pylist()
        dead = [one for one in read_tombstones(version.artifact.url) if one.key in wanted]
        if rows or dead:
            live = [Tombstone(row["shard"], row["index"], row["key"], "") for row in rows]
            splits = {row["key"]: row["split"] for row in rows}
            found.append(Holding(version, splits, tuple(sorted([*live, *dead]))))
    return found


def seen_by(root: str, name: str, held: Iterable[Holding]) -> list[dict[str, Json]]:
    """Return the trainings that had one of some samples before them, as JSON with stable keys."""
    splits = {one.version.artifact.manifest.fingerprint: one.splits for one in held if one.splits}
    judged: dict[str, set[str]] = {}
    for evaluation in committed_artifacts(storage.join(root, STEPS, name, "evaluate")):
        on = splits.get(str(_get(evaluation.manifest.identity, "inputs", SHARD_STEP)), {})
        model = str(_get(evaluation.manifest.identity, "inputs", "train"))
        judged.setdefault(model, set()).update(key for key, split in on.items() if split == "test")
    found = []
    # a training of another recipe may have mixed a version of this dataset in
    for recipe in storage.list_directories(storage.join(root, STEPS)):
        for train in committed_artifacts(storage.join(root, STEPS, recipe, "train")):
            dataset = str(_get(train.manifest.identity, "inputs", SHARD_STEP))
            roles = dict.fromkeys(sorted(judged.get(train.manifest.fingerprint, ())), "test")
            mixed = mixed_versions(train)
            own = splits.get(dataset, {}) if recipe == name else {}
            is_learned = not mixed or "" in mixed
            roles |= {key: split for key, split in own.items() if is_learned or split != "train"}
            for version in filter(None, mixed):
                there = [each for each in splits if each.startswith(version)]
                learned = [key for each in there for key, s in splits[each].items() if s == "train"]
                if learned and not own:
                    dataset = there[0]
                roles |= dict.fromkeys(learned, "train")
            if roles:
                found.append(_training(root, recipe, train, f"{name}/{dataset[:16]}", roles))
    return found


def mixed_versions(train: Artifact) -> list[str]:
    """Return the first 16 digits of each dataset version in the mix of a training, in its order.

    Empty without a mix; an empty one stands for the recipe's own.
    """
    mix: Any = _get(train.manifest.identity, "work", "loader", "mix")
    return [str(one["version"]) for one in (mix or {}).values()]


def _training(
    root: str, recipe: str, train: Artifact, dataset: str, roles: Mapping[str, str]
) -> dict[str, Json]:
    fingerprint = train.manifest.fingerprint
    names: list[Json] = [
        f"{one.manifest.facts['model_name']}/{one.manifest.facts['version']}"
        for one in made_from(root, recipe, "register", train=fingerprint)
    ]
    by_split: dict[str, Json] = {
        ROLES.get(split, split): list(_with(roles, split)) for split in sorted(set(roles.values()))
    }
    return {
        "train_fingerprint": fingerprint,
        "versions": names,
        "dataset": dataset,
        "roles": by_split,
        "epochs": _get(train.manifest.identity, "work", "train", "epochs"),
    }


def _with(roles: Mapping[str, str], split: str) -> Iterator[str]:
    return (key for key in sorted(roles) if roles[key] == split)


def _get(value: Any, *path: str) -> Json:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    found: Json = value
    return found
