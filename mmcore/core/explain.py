"""The whole story of one sample: where it is from, what was measured, who decided, who learned."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmcore import storage
from mmcore.core.lineage import (
    SHARD_STEP,
    STEPS,
    DatasetVersion,
    committed_artifacts,
    dataset_versions,
    increments,
    made_from,
)
from mmcore.core.rows import Row, decode_row, rows_files
from mmcore.core.step import Artifact
from mmcore.errors import ConfigError
from mmcore.media.near.prints import without_prints
from mmcore.sample import Json

INGEST_STEP = "ingest"
SHARD_TABLE = "manifest.parquet"
_ROLES = {"train": "learned from it", "val": "was tuned on it", "test": "was judged on it"}


def find_keys(root: str, dataset: DatasetVersion, name: str) -> list[str]:
    """Return the keys of the samples that a name means: a key, or the original name of several."""
    made = increments(root, dataset)
    if not made:
        raise ConfigError(f"{dataset}: an artifact that it was made from is gone from {root}.")
    ingests = [increment[INGEST_STEP] for increment in made]
    tables = [_read(one, path, ["key", "meta"]) for one in ingests for path in _paths(one)]
    keys = pa.concat_tables(tables)
    exact = keys.filter(pc.equal(keys["key"], name))["key"].to_pylist()
    if exact:
        return list(exact)
    rows = keys.to_pylist()
    originals = [str(json.loads(row["meta"]).get("original_key", "")) for row in rows]
    wanted = name.strip("/")
    for fold in (str, str.casefold):
        paired = zip(rows, originals, strict=True)
        found = [row["key"] for row, original in paired if fold(original) == fold(wanted)]
        if found:
            return sorted(found)
    flat = wanted.casefold().replace("/", "__")
    near = sorted(row["key"] for row in rows if flat in row["key"])[:5]
    hint = f" Near: {', '.join(near)}." if near else ""
    raise ConfigError(
        f"no sample {name!r} among the {len(rows)} that {dataset} was made from.{hint}"
    )


def explain(root: str, dataset: DatasetVersion, key: str) -> dict[str, Json]:
    """Return what is known of a sample, as JSON; the keys are stable."""
    chain = next(
        chain for chain in increments(root, dataset) if _find(chain[INGEST_STEP], key) is not None
    )
    rows = {step: row for step, artifact in chain.items() if (row := _find(artifact, key))}
    decided = next((step for step, row in rows.items() if row.status != "kept"), None)
    last = list(rows.values())[-1]
    first = rows[INGEST_STEP]
    story: dict[str, Json] = {
        "key": key,
        "dataset": str(dataset),
        "status": last.status,
        "decided_by": None,
        "source": _source(first),
        "meta": without_prints(last.sample.meta),
        "scores": dict(last.sample.scores),
        "steps": [{"step": step, "status": row.status} for step, row in rows.items()],
        "shard": None,
        "models": [],
    }
    if decided:
        row = rows[decided]
        story["decided_by"] = {
            "step": decided,
            "rule": row.rule,
            "reason": row.reason,
            "detail": row.detail,
            "twin": row.twin,
        }
    stored = _stored(dataset.artifact, key)
    if stored is not None:
        story["shard"] = stored
        added_by = chain[SHARD_STEP].manifest.fingerprint
        story["models"] = list(_models(root, dataset.name, added_by, str(stored["split"])))
    return story


def _source(row: Row) -> dict[str, Json]:
    sample = row.sample
    refs: dict[str, Json] = {
        extension: asdict(part.ref) for extension, part in sample.parts.items() if part.ref
    }
    named = {name: sample.meta.get(name) for name in ("original_key", "licence", "source")}
    return {**named, "parts": refs}


def _stored(dataset: Artifact, key: str) -> dict[str, Json] | None:
    """Return where a sample lies in the shards, part by part."""
    table = _read(dataset, SHARD_TABLE, ["key", "split", "shard", "index", "parts"])
    rows = table.filter(pc.equal(table["key"], key)).to_pylist()
    if not rows:
        return None
    row: dict[str, Json] = rows[0]
    del row["key"]
    return {**row, "url": storage.join(dataset.url, str(row["shard"]))}


def _models(root: str, name: str, added_by: str, split: str) -> Iterator[Json]:
    """Yield the models made from a version that holds an increment, and what it was to them."""
    holding = {
        version.artifact.manifest.fingerprint
        for version in dataset_versions(root, name)
        for increment in increments(root, version)
        if increment[SHARD_STEP].manifest.fingerprint == added_by
    }
    for train in committed_artifacts(storage.join(root, STEPS, name, "train")):
        if _get(train.manifest.identity, "inputs", SHARD_STEP) not in holding:
            continue
        fingerprint = train.manifest.fingerprint
        registered = made_from(root, name, "register", train=fingerprint)
        names: list[Json] = [
            f"{one.manifest.facts['model_name']}/{one.manifest.facts['version']}"
            for one in registered
        ]
        epochs = _get(train.manifest.identity, "work", "train", "epochs")
        yield {
            "train_fingerprint": fingerprint,
            "versions": names,
            "role": _ROLES.get(split, split),
            "times_read": epochs if split == "train" else None,
        }


def _get(value: Any, *path: str) -> Json:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    found: Json = value
    return found


def _find(artifact: Artifact, key: str) -> Row | None:
    for path in _paths(artifact):
        table = pq.read_table(
            pa.BufferReader(storage.read(storage.join(artifact.url, path))),
            filters=pc.field("key") == key,
        )
        if table.num_rows:
            return decode_row(table.to_pylist()[0])
    return None


def _paths(artifact: Artifact) -> list[str]:
    return [record.path for record in rows_files(artifact)]


def _read(artifact: Artifact, path: str, columns: list[str]) -> pa.Table:
    data = storage.read(storage.join(artifact.url, path))
    return pq.read_table(pa.BufferReader(data), columns=columns)
