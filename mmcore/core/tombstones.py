"""`tombstones.json`: samples whose bytes are still in a dataset's shards and that count no more.

Shards are never written again, so what changed or vanished since is named here, by shard and key,
and readers skip it until the dataset is compacted.

    {"format": "mm.tombstones", "format_version": 1, "tombstones": [
      {"index": 3, "key": "red__002", "reason": "removed", "shard": "train/train-000000.tar"}]}

`forgotten.json` beside it has the same form. It is no part of the commit: it is written when
somebody asks for samples to be forgotten, into every version that holds them.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from mmcore import storage
from mmcore.errors import IntegrityError

TOMBSTONES_NAME = "tombstones.json"
FORGOTTEN_NAME = "forgotten.json"
FORMAT = "mm.tombstones"
FORMAT_VERSION = 1

CHANGED, REMOVED, FORGOTTEN, REVIVED = "changed", "removed", "forgotten", "revived"


@dataclass(frozen=True, slots=True, order=True)
class Tombstone:
    """A sample in a shard that is to be skipped."""

    shard: str
    """Relative to the dataset: `train/train-000000.tar`."""
    index: int
    """Position in the shard."""
    key: str
    reason: str
    """`changed`: a later shard may hold the key again; `removed` at the source; `forgotten`."""


def to_json(tombstones: Iterable[Tombstone]) -> bytes:
    """Return the file, a line per tombstone in the order of the shards; equal sets, equal bytes."""
    lines = [f"  {json.dumps(asdict(one), sort_keys=True)}" for one in sorted(set(tombstones))]
    head = f'{{"format": "{FORMAT}", "format_version": {FORMAT_VERSION}, "tombstones": ['
    return "\n".join([head, ",\n".join(lines), "]}", ""]).encode()


def from_json(data: bytes, *, where: str) -> list[Tombstone]:
    """Read the file; IntegrityError for anything else: nobody may go on as if nothing was dead."""
    try:
        value = json.loads(data)
        if value["format"] != FORMAT or value["format_version"] != FORMAT_VERSION:
            raise ValueError("another format or version")
        return [Tombstone(**one) for one in value["tombstones"]]
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(
            f"{where} is not a list of tombstones of this version of mmcore: {error}. "
            "Put the file back as it was: readers skip the samples that it names."
        ) from error


def read_tombstones(dataset_url: str, name: str = TOMBSTONES_NAME) -> list[Tombstone]:
    """Return the tombstones of a dataset version; none where it has no such file."""
    url = storage.join(dataset_url, name)
    data = storage.read_if_exists(url)
    return [] if data is None else from_json(data, where=url)
