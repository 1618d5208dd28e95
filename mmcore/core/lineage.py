"""From any artifact back to the raw bytes, and from any sample forward to the models.

Everything is read from manifests and rows; nothing needs the recipe that made them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mmcore import storage
from mmcore.core.manifest import load_manifest
from mmcore.core.step import Artifact
from mmcore.core.tables import read_table
from mmcore.errors import ConfigError

DATASETS = "ds"
STEPS = "steps"
SHARD_STEP = "shard"
SHARD_TABLE = "manifest.parquet"
"""Of a dataset version: a row for each sample that counts."""


@dataclass(frozen=True)
class DatasetVersion:
    """A committed dataset."""

    name: str
    version: str
    artifact: Artifact

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


def dataset_versions(root: str, name: str | None = None) -> list[DatasetVersion]:
    """Return every committed dataset version, the oldest commit first."""
    names = [name] if name else storage.list_directories(storage.join(root, DATASETS))
    found = []
    for each in names:
        for artifact in committed_artifacts(storage.join(root, DATASETS, each)):
            version = artifact.url.rsplit("/", 1)[-1]
            found.append(DatasetVersion(each, version, artifact))
    return sorted(found, key=lambda one: (storage.modified_at(_manifest(one)), str(one)))


def find_dataset(root: str, name: str | None) -> DatasetVersion:
    """Return a dataset by `name/version`, the newest of `name`, or the newest of all."""
    wanted, _, version = (name or "").partition("/")
    found = dataset_versions(root, wanted or None)
    if version:
        found = [one for one in found if one.version.startswith(version)]
    if not found:
        known = ", ".join(str(one) for one in dataset_versions(root)) or "none"
        what = f"no dataset {name!r}" if name else "no dataset"
        raise ConfigError(f"{what} below {root}. There are: {known}. Make one with: mm run RECIPE")
    return found[-1]


def step_names(root: str, dataset: str) -> list[str]:
    """Return the steps that ever ran for a dataset's recipe."""
    return storage.list_directories(storage.join(root, STEPS, dataset))


def committed_artifacts(directory: str) -> Iterator[Artifact]:
    """Yield the committed artifacts directly below a directory."""
    for version in storage.list_directories(directory):
        url = storage.join(directory, version)
        manifest = load_manifest(url)
        if manifest is not None:
            yield Artifact(url, manifest)


def upstream(root: str, dataset: str, artifact: Artifact) -> dict[str, Artifact]:
    """Return the artifacts that an artifact was made from, the raw corpus' first, itself last."""
    found: dict[str, Artifact] = {}
    inputs: Any = artifact.manifest.identity["inputs"]
    for step, fingerprint in sorted(inputs.items()):
        parent = find_artifact(root, dataset, step, fingerprint)
        if parent is not None:
            found |= {
                name: one
                for name, one in upstream(root, dataset, parent).items()
                if name not in found
            }
    return found | {artifact.manifest.step: artifact}


def increments(root: str, version: DatasetVersion) -> list[dict[str, Artifact]]:
    """Return what made each increment of a dataset version, by step, the first increment first.

    Empty when an artifact on the way is gone.
    """
    found = [made_increment(root, version.name, one) for one in increment_versions(version)]
    return [one for one in found if one] if all(found) else []


def increment_versions(version: DatasetVersion) -> list[str]:
    """Return the versions that led to a dataset version, itself last."""
    recorded: Any = version.artifact.manifest.facts.get("increments", [])
    earlier = [str(one["dataset"]) for one in recorded[:-1]]
    return [*earlier, version.artifact.manifest.fingerprint[:16]]


def made_increment(root: str, name: str, version: str) -> dict[str, Artifact]:
    """Return what made the increment that a version added, by step; empty if some of it is gone."""
    shard = find_artifact(root, name, SHARD_STEP, version)
    if shard is None:
        return {}
    chain = upstream(root, name, shard)
    is_whole = all(_inputs(one) <= chain.keys() for one in chain.values())
    return chain if is_whole else {}


def _inputs(artifact: Artifact) -> set[str]:
    inputs: Any = artifact.manifest.identity["inputs"]
    return set(inputs)


def find_artifact(root: str, dataset: str, step: str, fingerprint: str) -> Artifact | None:
    """Return the artifact of a step by its fingerprint, or None where it is gone."""
    parts = (DATASETS, dataset) if step == SHARD_STEP else (STEPS, dataset, step)
    url = storage.join(root, *parts, fingerprint[:16])
    manifest = load_manifest(url)
    return None if manifest is None else Artifact(url, manifest)


def made_from(root: str, dataset: str, step: str, **inputs: str) -> list[Artifact]:
    """Return the artifacts of a step that were made from inputs with these fingerprints."""
    found = []
    for artifact in committed_artifacts(storage.join(root, STEPS, dataset, step)):
        had: Any = artifact.manifest.identity["inputs"]
        if all(had.get(name) == fingerprint for name, fingerprint in inputs.items()):
            found.append(artifact)
    return found


def read_shard_table(dataset: Artifact, columns: Sequence[str]) -> pa.Table:
    """Return columns of the table of a dataset version."""
    return read_table(storage.join(dataset.url, SHARD_TABLE), columns)


def held(dataset: Artifact, keys: frozenset[str]) -> frozenset[str]:
    """Return those of some keys that a dataset version holds."""
    if not keys:
        return frozenset()
    return keys.intersection(read_shard_table(dataset, ["key"])["key"].to_pylist())


def bases_of(chain: Mapping[str, Artifact]) -> dict[str, str]:
    """Return where the bytes of each step lie, to resolve part references; not the source's."""
    return {name: artifact.url for name, artifact in chain.items()}


def _manifest(one: DatasetVersion) -> str:
    return storage.join(one.artifact.url, "manifest.json")
