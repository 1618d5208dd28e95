"""Deletes the bytes of what is to be forgotten, once no dataset version needs them any more.

An artifact is whole or not at all, so whatever holds a row, a print, a part or a prediction of such
a sample is deleted as a whole, its manifest first: steps with what they know of earlier increments,
evaluations, and dataset versions with the shards that they share. Trained weights stay; the ledger
says which they are.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from mmcore import storage
from mmcore.core.corpus_work import knows_one
from mmcore.core.exposure import holdings
from mmcore.core.forgotten import Forgotten
from mmcore.core.lease import Holder, acquire, lease_url
from mmcore.core.lineage import (
    DATASETS,
    STEPS,
    committed_artifacts,
    dataset_versions,
    held,
    step_names,
)
from mmcore.core.manifest import manifest_url
from mmcore.core.process import Process
from mmcore.core.step import Artifact
from mmcore.core.tables import read_table
from mmcore.core.tombstones import FORGOTTEN
from mmcore.errors import StepError

_DASHBOARD_INDEX = "dashboard-samples"
_WEIGHTS = ("train", "register")
"""What these steps wrote holds no bytes of samples."""
_BARE = {"key", "raw", "is_same", "reason"}
"""A table with no other columns says of a sample only that it was there."""


def purge(root: str, name: str, forgotten: Forgotten) -> list[str]:
    """Delete every artifact of a dataset with something of the forgotten, and return their URLs.

    StepError while the newest version still counts on one of them, or another run is at work.
    """
    versions = dataset_versions(root, name)
    if versions and held(versions[-1].artifact, forgotten.keys):
        raise StepError(
            f"{versions[-1]} still holds samples that are to be forgotten. Nothing was deleted. "
            f"Compact it first: mm compact {name} --purge"
        )

    def refuse(other: Holder) -> None:
        raise StepError(
            f"{other.description} is at work on {name}. Nothing was deleted. Wait for it, or stop "
            f"it: mm cancel {other.run_id}"
        )

    now = datetime.now(UTC).isoformat(timespec="seconds")
    holder = Holder(run_id="purge", process=Process.current(), since=now)
    lease = acquire(lease_url(root, name), holder, on_wait=refuse)
    try:
        deleted = []
        for artifact in [*_with_rows(root, name, forgotten), *_versions(root, name, forgotten)]:
            lease.beat()
            _delete(artifact.url)
            deleted.append(artifact.url)
        for url in _unfinished(root, name):
            _delete(url)
        if deleted:
            _delete_index(root)
        return sorted(deleted)
    finally:
        lease.release()


def _versions(root: str, name: str, forgotten: Forgotten) -> Iterator[Artifact]:
    for holding in holdings(root, name, forgotten.keys):
        yield holding.version.artifact


def _with_rows(root: str, name: str, forgotten: Forgotten) -> Iterator[Artifact]:
    for step in step_names(root, name):
        if step in _WEIGHTS:
            continue
        for artifact in committed_artifacts(storage.join(root, STEPS, name, step)):
            if any(_names_one(table, forgotten) for table in _tables(artifact)) or knows_one(
                artifact, forgotten.keys
            ):
                yield artifact


def _unfinished(root: str, name: str) -> Iterator[str]:
    """Yield what killed runs left: while the lease is held, nobody is writing it."""
    steps = [storage.join(root, STEPS, name, step) for step in step_names(root, name)]
    for directory in [*steps, storage.join(root, DATASETS, name)]:
        for version in storage.list_directories(directory):
            url = storage.join(directory, version)
            if not storage.exists(manifest_url(url)):
                yield url


def _tables(artifact: Artifact) -> Iterator[pa.Table]:
    """Yield the tables of an artifact that tell of samples: rows, or predictions."""
    for record in artifact.manifest.files:
        if record.path.endswith(".parquet"):
            table = read_table(storage.join(artifact.url, record.path))
            if "key" in table.column_names and set(table.column_names) - _BARE:
                yield table


def _names_one(table: pa.Table, forgotten: Forgotten) -> bool:
    named = pc.is_in(table["key"], pa.array(sorted(forgotten.keys), pa.string()))
    if "reason" in table.column_names:
        # a row that says nothing but that the sample was not taken in
        named = pc.and_(named, pc.not_equal(table["reason"], FORGOTTEN))
    return bool(pc.any(named).as_py())


def _delete(url: str) -> None:
    storage.delete(manifest_url(url))
    folders = {url}
    for file in storage.list_files(url):
        storage.delete(storage.join(url, file.path))
        folder = file.path.rpartition("/")[0]
        while folder:
            folders.add(storage.join(url, folder))
            folder = folder.rpartition("/")[0]
    for each in sorted(folders, reverse=True):
        storage.delete_directory_if_empty(each)


def _delete_index(root: str) -> None:
    """Delete the dashboard's index: it holds captions, and makes itself anew."""
    state = storage.join(root, "state")
    for file in storage.list_files(state):
        if file.path.startswith(_DASHBOARD_INDEX) and ".sqlite" in file.path:
            storage.delete(storage.join(state, file.path))
