"""The whole story of one sample: where it is from, what was measured, who decided, who learned."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mmcore import storage
from mmcore.core.change import INGEST_STEP, read_gone
from mmcore.core.exposure import ROLES, Holding, holdings, seen_by
from mmcore.core.forgotten import Wish, load_forgotten
from mmcore.core.lineage import (
    SHARD_STEP,
    SHARD_TABLE,
    DatasetVersion,
    increment_versions,
    increments,
)
from mmcore.core.rows import Row, decode_row, rows_files
from mmcore.core.step import Artifact
from mmcore.core.tables import read_table, rows_where
from mmcore.errors import ConfigError
from mmcore.media.near.prints import without_prints
from mmcore.sample import Json

__all__ = ["INGEST_STEP", "SHARD_TABLE", "explain", "find_keys"]


def find_keys(root: str, dataset: DatasetVersion, name: str) -> list[str]:
    """Return the keys of the samples that a name means: a key, or the original name of several."""
    flat = name.strip("/").casefold().replace("/", "__")
    keys = load_forgotten(root, dataset.name).keys
    forgotten = keys & {name, flat} or {key for key in keys if key.startswith(f"{flat}__")}
    if forgotten:
        return sorted(forgotten)
    made = increments(root, dataset)
    if not made:
        raise ConfigError(f"{dataset}: an artifact that it was made from is gone from {root}.")
    ingests = [increment[INGEST_STEP] for increment in made]
    tables = [_read(one, path, ["key", "meta"]) for one in ingests for path in _paths(one)]
    keys = pa.concat_tables(tables)
    exact = keys.filter(pc.equal(keys["key"], name))["key"].to_pylist()
    if exact:
        return list(dict.fromkeys(exact))
    rows = keys.to_pylist()
    originals = [str(json.loads(row["meta"]).get("original_key", "")) for row in rows]
    wanted = name.strip("/")
    for fold in (str, str.casefold):
        paired = zip(rows, originals, strict=True)
        found = [row["key"] for row, original in paired if fold(original) == fold(wanted)]
        if found:
            return sorted(set(found))
    near = sorted(row["key"] for row in rows if flat in row["key"])[:5]
    hint = f" Near: {', '.join(near)}." if near else ""
    raise ConfigError(
        f"no sample {name!r} among the {len(rows)} that {dataset} was made from.{hint}"
    )


def explain(root: str, dataset: DatasetVersion, key: str) -> dict[str, Json]:
    """Return what is known of a sample, as JSON; the keys are stable.

    Of a sample that is to be forgotten nothing is told but who asked for it, where it lay and who
    has seen it.
    """
    wish = load_forgotten(root, dataset.name).wish_for(key)
    held = holdings(root, dataset.name, [key])
    story: dict[str, Json] = {
        "key": key,
        "dataset": str(dataset),
        "status": "forgotten",
        "decided_by": None,
        "source": None,
        "meta": {},
        "scores": {},
        "steps": [],
        "increment": None,
        "earlier": [],
        "outlived": [],
        "shard": None,
        "tombstones": [
            {"dataset": str(one.version), **asdict(place)}
            for one in held
            for place in one.places
            if place.reason
        ],
        "forgotten": None if wish is None else _wish(wish),
        "models": _models(root, dataset.name, key, held) or _models_told(wish, key),
    }
    if wish is None:
        story |= _fate(root, dataset, key)
    return story


def _fate(root: str, dataset: DatasetVersion, key: str) -> dict[str, Json]:
    """Return what the steps said of a sample, and where it lies."""
    chains = increments(root, dataset)
    versions = increment_versions(dataset)
    took_it = [i for i, chain in enumerate(chains) if _find(chain[INGEST_STEP], key) is not None]
    told = [_rows_of(chains[i], key) for i in took_it]
    rows, chain = told[-1], chains[took_it[-1]]
    last = list(rows.values())[-1]
    over: dict[str, str] = {}
    for later in chains[took_it[-1] + 1 :]:
        over |= read_gone(later[INGEST_STEP].url)
    decided = next((step for step, row in rows.items() if row.status != "kept"), None)
    outlived: list[Json] = [*sorted(_outlived(chains, key))]
    earlier: list[Json] = [
        {"dataset": f"{dataset.name}/{versions[i]}", "status": list(each.values())[-1].status}
        for i, each in zip(took_it[:-1], told[:-1], strict=True)
    ]
    return {
        "status": over.get(key, last.status),
        "decided_by": None if decided is None else _decision(decided, rows[decided]),
        "source": _source(rows[INGEST_STEP]),
        "meta": without_prints(last.sample.meta),
        "scores": dict(last.sample.scores),
        "steps": [{"step": step, "status": row.status} for step, row in rows.items()],
        "increment": {
            "dataset": f"{dataset.name}/{chain[SHARD_STEP].manifest.fingerprint[:16]}",
            "number": took_it[-1] + 1,
            "of": len(chains),
        },
        "earlier": earlier,
        "outlived": outlived,
        "shard": _stored(dataset.artifact, key),
    }


def _rows_of(chain: Mapping[str, Artifact], key: str) -> dict[str, Row]:
    return {step: row for step, artifact in chain.items() if (row := _find(artifact, key))}


def _decision(step: str, row: Row) -> dict[str, Json]:
    told: dict[str, Json] = {
        name: getattr(row, name) for name in ("rule", "reason", "detail", "twin")
    }
    return {"step": step, **told}


def _outlived(chains: Sequence[Mapping[str, Artifact]], key: str) -> set[str]:
    """Return the keys of the samples that were dropped because this one is there."""
    found: set[str] = set()
    for chain in chains:
        found -= read_gone(chain[INGEST_STEP].url).keys()
        for artifact in chain.values():
            for path in _paths(artifact):
                rows = _read(artifact, path, ["key", "twin"])
                found.update(rows.filter(pc.equal(rows["twin"], key))["key"].to_pylist())
    return found


def _wish(wish: Wish) -> dict[str, Json]:
    return {"wish": wish.wish_id, "at": wish.at, "by": wish.by, "why": wish.why}


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


def _models(root: str, name: str, key: str, held: Sequence[Holding]) -> list[Json]:
    """Return the models that had a sample before them, and what it was to them."""
    return [_model(training, key) for training in seen_by(root, name, held)]


def _models_told(wish: Wish | None, key: str) -> list[Json]:
    """Return the same as the ledger says it, for when the versions are gone."""
    trainings = wish.models if wish is not None else ()
    has_it = [one for one in trainings if any(key in keys for keys in one["roles"].values())]
    return [_model(training, key) for training in has_it]


def _model(training: Mapping[str, Any], key: str) -> Json:
    role = next(role for role, keys in training["roles"].items() if key in keys)
    has_learned = role == ROLES["train"]
    return {
        "train_fingerprint": training["train_fingerprint"],
        "versions": list(training["versions"]),
        "dataset": training["dataset"],
        "role": role,
        "times_read": training["epochs"] if has_learned else None,
    }


def _find(artifact: Artifact, key: str) -> Row | None:
    for path in _paths(artifact):
        data = storage.read(storage.join(artifact.url, path))
        for values in rows_where(data, "key", [key]):
            return decode_row(values)
    return None


def _paths(artifact: Artifact) -> list[str]:
    return [record.path for record in rows_files(artifact)]


def _read(artifact: Artifact, path: str, columns: list[str]) -> pa.Table:
    return read_table(storage.join(artifact.url, path), columns)
