"""Forgetting samples: written down once, obeyed by every reader at once, carried out by `compact`.

The wish goes to the ledger first (`mmcore/core/forgotten.py`); from then on it is in force. The
file beside each version that holds a sample is for readers that have nothing but the version.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mmcore import storage
from mmcore.core.change import INGEST_STEP
from mmcore.core.exposure import Holding, holdings, seen_by
from mmcore.core.forgotten import Forgotten, load_forgotten, principal_sha256, record_wish
from mmcore.core.lineage import DATASETS, STEPS, committed_artifacts
from mmcore.core.rows import decode_row, rows_files
from mmcore.core.tables import read_table
from mmcore.core.tombstones import FORGOTTEN, FORGOTTEN_NAME, Tombstone, read_tombstones, to_json
from mmcore.errors import ConfigError
from mmcore.sample import Json


@dataclass(frozen=True)
class Known:
    """A sample as it came in."""

    key: str
    original_key: str
    sha256: str
    """Of its principal part at the source."""


@dataclass(frozen=True)
class Asked:
    """What forgetting some samples comes to."""

    samples: dict[str, tuple[str, ...]]
    """The hashes by key, of all that is to be forgotten."""
    copies: dict[str, str]
    """Of those the ones that nobody named: the key with the same bytes that was named."""
    held: list[Holding]
    models: list[dict[str, Json]]


def find_dataset_name(root: str, names: Sequence[str], dataset: str | None) -> str:
    """Return the dataset that the samples belong to; ConfigError when that is not plain."""
    there = storage.list_directories(storage.join(root, DATASETS))
    if dataset is not None:
        name = dataset.partition("/")[0]
        if name not in there:
            raise ConfigError(f"no dataset {name!r} below {root}. There are: {', '.join(there)}.")
        return name
    having = [
        one for one in there if any(set(names) & {k.key, k.original_key} for k in known(root, one))
    ]
    if len(having) == 1:
        return having[0]
    if having:
        raise ConfigError(
            f"{', '.join(names)}: known to the datasets {', '.join(having)}. Say which one is to "
            f"forget: --dataset {having[0]}"
        )
    raise ConfigError(f"no dataset below {root} knows {', '.join(names)}. `mm explain` finds keys.")


def known(root: str, name: str) -> Iterator[Known]:
    """Yield every sample that ever came into a dataset and is still in the rows of its steps."""
    for artifact in committed_artifacts(storage.join(root, STEPS, name, INGEST_STEP)):
        for record in rows_files(artifact):
            table = read_table(storage.join(artifact.url, record.path))
            for row in map(decode_row, table.to_pylist()):
                original = str(row.sample.meta.get("original_key") or "")
                yield Known(row.sample.key, original, principal_sha256(row.sample))


def ask(root: str, name: str, names: Sequence[str], before: Forgotten) -> Asked:
    """Return what forgetting samples, by key or original name, would come to.

    A sample with the same principal part as one that was named goes with it, or else its bytes
    would stay. ConfigError for a name that nothing has.
    """
    there = list(known(root, name))
    hashes: dict[str, set[str]] = {}
    for one in there:
        hashes.setdefault(one.key, set()).add(one.sha256)
    named: set[str] = set()
    for wanted in names:
        found = {wanted} & hashes.keys() or {
            one.key for one in there if one.original_key == wanted.strip("/")
        }
        if not found and wanted not in before.keys:
            raise ConfigError(
                f"{name} never had a sample {wanted!r}. Nothing was forgotten. `mm explain` finds "
                "keys by the names that samples had in the corpus."
            )
        named |= found
    first_with = {
        value: key for key in sorted(named, reverse=True) for value in hashes[key] if value
    }
    copies = {
        one.key: first_with[one.sha256]
        for one in there
        if one.sha256 in first_with and one.key not in named
    }
    samples = {
        key: tuple(sorted(hashes[key] - {""}))
        for key in sorted(named | copies.keys())
        if key not in before.keys
    }
    held = holdings(root, name, samples)
    return Asked(samples, copies, held, seen_by(root, name, held))


def forget(root: str, name: str, asked: Asked, *, by: str, why: str) -> str:
    """Put a wish in force, and return its id."""
    wish = record_wish(
        root,
        name,
        by=by,
        why=why,
        samples=asked.samples,
        versions=[str(one.version) for one in asked.held],
        models=asked.models,
    )
    mark_versions(root, name)
    return wish.wish_id


def mark_versions(root: str, name: str) -> None:
    """Write `forgotten.json` into every version that holds something to be forgotten."""
    keys = load_forgotten(root, name).keys
    for held in holdings(root, name, keys) if keys else ():
        url = held.version.artifact.url
        tombstones = [Tombstone(one.shard, one.index, one.key, FORGOTTEN) for one in held.places]
        if set(tombstones) != set(read_tombstones(url, FORGOTTEN_NAME)):
            storage.write(storage.join(url, FORGOTTEN_NAME), to_json(tombstones))
