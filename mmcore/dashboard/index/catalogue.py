"""What there is below a root: dataset versions with their increments, and trainings.

Manifests never change, so each is read once. What has been deleted is forgotten.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmcore import storage
from mmcore.core.change import INGEST_STEP, read_gone
from mmcore.core.lineage import (
    DATASETS,
    SHARD_STEP,
    STEPS,
    DatasetVersion,
    committed_artifacts,
    increments,
    upstream,
)
from mmcore.core.manifest import MANIFEST_NAME, Counts, load_manifest
from mmcore.core.step import Artifact
from mmcore.dashboard.index.entries import Chain, num_entries
from mmcore.dashboard.index.store import SampleDatabase, add_text_table, drop_segment
from mmcore.errors import IntegrityError

TRAIN_STEP = "train"
Places = set[tuple[str, str]]
"""(name, version) or (name, fingerprint) of what is committed."""


def committed_datasets(root: str) -> Places:
    """Return the dataset versions of a root; a manifest that cannot be read is one as well."""
    return set(_committed(storage.join(root, DATASETS), ""))


def committed_trainings(root: str) -> Places:
    """Return the trainings of a root that came to an end."""
    return set(_committed(storage.join(root, STEPS), TRAIN_STEP))


def known_places(database: SampleDatabase) -> tuple[Places, Places]:
    """Return the dataset versions and the trainings that the index knows."""
    connection = database.read()
    datasets = {tuple(row) for row in connection.execute("SELECT name, version FROM dataset")}
    trainings = {tuple(row) for row in connection.execute("SELECT name, fingerprint FROM training")}
    return datasets, trainings


def update_catalogue(root: str, database: SampleDatabase) -> None:
    """Make the index know every dataset version and every training, and nothing that is gone."""
    datasets, trainings = known_places(database)
    there = committed_datasets(root)
    for name, version in sorted(datasets - there):
        with database.write() as connection:
            _forget(connection, name, version)
    new = [found for place in sorted(there - datasets) if (found := _load(root, *place))]
    for one, committed_at in sorted(new, key=lambda pair: pair[1]):
        _add_dataset(root, database, one, committed_at)
    there = committed_trainings(root)
    with database.write() as connection:
        for place in sorted(trainings - there):
            connection.execute("DELETE FROM training WHERE name=? AND fingerprint=?", place)
        for name, fingerprint in sorted(there - trainings):
            _add_training(root, connection, name, fingerprint)
        for name in {name for name, _ in there}:
            _note_models(root, connection, name)


def chains_of(root: str, version: DatasetVersion) -> list[Chain]:
    """Return what made each increment of a version, the first one first.

    Where artifacts of earlier steps are gone, the version is one increment of what is left.
    """
    found: Sequence[Chain] = increments(root, version)
    return list(found) or [upstream(root, version.name, version.artifact)]


def segment_version(root: str, name: str, fingerprint: str) -> DatasetVersion | None:
    """Return the dataset version that published an increment, while it is there."""
    found = _load(root, name, fingerprint[:16])
    return found[0] if found else None


def _committed(directory: str, below: str) -> Iterator[tuple[str, str]]:
    for name in storage.list_directories(directory):
        parts = (directory, name, below) if below else (directory, name)
        for version in storage.list_directories(storage.join(*parts)):
            if storage.exists(storage.join(*parts, version, MANIFEST_NAME)):
                yield name, version


def _load(root: str, name: str, version: str) -> tuple[DatasetVersion, float] | None:
    url = storage.join(root, DATASETS, name, version)
    try:
        manifest = load_manifest(url)
    except IntegrityError:
        return None  # `mm verify` speaks of it; here it is not a dataset
    if manifest is None:
        return None
    committed_at = storage.modified_at(storage.join(url, MANIFEST_NAME))
    return DatasetVersion(name, version, Artifact(url, manifest)), committed_at


def _add_dataset(
    root: str, database: SampleDatabase, version: DatasetVersion, committed_at: float
) -> None:
    manifest = version.artifact.manifest
    chains = chains_of(root, version)
    facts: Mapping[str, Any] = manifest.facts
    with database.write() as connection:
        cursor = connection.execute(
            "INSERT INTO dataset(name, version, fingerprint, committed_at, num_samples, num_bytes,"
            " num_shards, base, facts, funnel, lineage) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            (
                version.name,
                version.version,
                manifest.fingerprint,
                committed_at,
                sum(facts["num_samples"].values()),
                facts["num_bytes"],
                facts["num_shards"],
                manifest.identity.get("base"),
                json.dumps(facts),
                json.dumps(funnel(chains)),
                json.dumps(_lineage(root, chains[-1])),
            ),
        )
        dataset = cursor.lastrowid
        connection.executemany(
            "INSERT INTO shard VALUES (?,?,?,?,?)",
            [
                (dataset, file.path, file.num_samples, file.num_bytes, file.sha256)
                for file in manifest.files
                if file.path.endswith(".tar")
            ],
        )
        for position, chain in enumerate(chains):
            segment = _add_segment(root, connection, version.name, chain)
            connection.execute(
                "INSERT INTO dataset_segment VALUES (?,?,?)", (dataset, position, segment)
            )


def _add_segment(root: str, connection: sqlite3.Connection, name: str, chain: Chain) -> int:
    fingerprint = chain[SHARD_STEP].manifest.fingerprint
    row = connection.execute(
        "SELECT id FROM segment WHERE name=? AND fingerprint=?", (name, fingerprint)
    ).fetchone()
    if row is not None:
        return int(row["id"])
    cursor = connection.execute(
        "INSERT INTO segment(name, fingerprint, state, total, done) VALUES (?,?,'waiting',?,0)",
        (name, fingerprint, num_entries(chain)),
    )
    segment = cursor.lastrowid
    assert segment is not None, "a row was inserted"
    connection.executemany(
        "INSERT INTO base VALUES (?,?,?)",
        [(segment, step, relative(root, artifact.url)) for step, artifact in chain.items()],
    )
    ingest = chain.get(INGEST_STEP)
    gone = read_gone(ingest.url) if ingest is not None else {}
    connection.executemany(
        "INSERT INTO gone VALUES (?,?,?)",
        [(segment, key, reason) for key, reason in gone.items()],
    )
    add_text_table(connection, segment)
    return segment


def relative(root: str, url: str) -> str:
    """Return a URL below the root without it, so that a root may be moved with its index."""
    return url.removeprefix(root.rstrip("/") + "/")


def funnel(chains: Sequence[Chain]) -> list[dict[str, Any]]:
    """Return what each step found, kept and lost over all increments, in the order of steps."""
    steps = list(dict.fromkeys(step for chain in chains for step in chain))
    levels = []
    for step in steps:
        counts = Counts.total(chain[step].manifest.counts for chain in chains if step in chain)
        if counts.found:
            levels.append(
                {
                    "step": step,
                    "found": counts.found,
                    "kept": counts.kept,
                    "dropped": dict(counts.dropped),
                    "quarantined": dict(counts.quarantined),
                }
            )
    return levels


def _lineage(root: str, chain: Chain) -> list[dict[str, Any]]:
    """Return the steps before a dataset: fingerprint, place, inputs, what it says of itself."""
    return [
        {
            "step": step,
            "fingerprint": artifact.manifest.fingerprint,
            "path": relative(root, artifact.url),
            "inputs": artifact.manifest.identity["inputs"],
            "unclaimed": artifact.manifest.facts.get("unclaimed") if step == INGEST_STEP else None,
            "num_files": artifact.manifest.facts.get("num_files"),
            "num_bytes": artifact.manifest.facts.get("num_bytes"),
        }
        for step, artifact in chain.items()
    ]


def _forget(connection: sqlite3.Connection, name: str, version: str) -> None:
    row = connection.execute(
        "SELECT id FROM dataset WHERE name=? AND version=?", (name, version)
    ).fetchone()
    connection.execute("DELETE FROM dataset_segment WHERE dataset=?", (row["id"],))
    connection.execute("DELETE FROM shard WHERE dataset=?", (row["id"],))
    connection.execute("DELETE FROM dataset WHERE id=?", (row["id"],))
    unused = connection.execute(
        "SELECT id FROM segment WHERE id NOT IN (SELECT segment FROM dataset_segment)"
    ).fetchall()
    for segment in unused:
        drop_segment(connection, segment["id"])


def _add_training(root: str, connection: sqlite3.Connection, name: str, version: str) -> None:
    url = storage.join(root, STEPS, name, TRAIN_STEP, version)
    manifest = load_manifest(url)
    if manifest is None:
        return
    inputs: Any = manifest.identity["inputs"]
    connection.execute(
        "INSERT INTO training(name, fingerprint, dataset, committed_at, facts, config, models,"
        " evaluation) VALUES (?,?,?,?,?,?,'[]','{}')",
        (
            name,
            version,
            inputs.get(SHARD_STEP),
            storage.modified_at(storage.join(url, MANIFEST_NAME)),
            json.dumps(manifest.facts),
            json.dumps(manifest.identity["work"]),
        ),
    )


def _note_models(root: str, connection: sqlite3.Connection, name: str) -> None:
    """Write down what became of each training: what it was registered as, how it was judged."""
    models: dict[str, list[str]] = {}
    for artifact in committed_artifacts(storage.join(root, STEPS, name, "register")):
        facts = artifact.manifest.facts
        label = f"{facts.get('model_name')}/{facts.get('version')}"
        models.setdefault(_train_of(artifact), []).append(label)
    for fingerprint, labels in models.items():
        connection.execute(
            "UPDATE training SET models=? WHERE name=? AND fingerprint=?",
            (json.dumps(labels), name, fingerprint),
        )
    for artifact in committed_artifacts(storage.join(root, STEPS, name, "evaluate")):
        connection.execute(
            "UPDATE training SET evaluation=? WHERE name=? AND fingerprint=?",
            (json.dumps(artifact.manifest.facts), name, _train_of(artifact)),
        )


def _train_of(artifact: Artifact) -> str:
    inputs: Any = artifact.manifest.identity["inputs"]
    return str(inputs.get(TRAIN_STEP, ""))[:16]
