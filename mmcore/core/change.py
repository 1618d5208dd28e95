"""What became of a corpus between two scans, and what of earlier increments counts no more.

An increment takes in what is new and what changed. `gone.parquet` of its `ingest` names the samples
of earlier increments that it puts an end to: rules do not look at their rows any more, and their
places in the shards become tombstones.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import pyarrow as pa

from mmcore import storage
from mmcore.core.rows import table_bytes
from mmcore.core.step import Artifact, Inputs
from mmcore.core.tables import table_of
from mmcore.core.tombstones import CHANGED, REVIVED

INGEST_STEP = "ingest"
GONE_NAME = "gone.parquet"
_GONE_SCHEMA = pa.schema([("key", pa.string()), ("reason", pa.string())])

ValueT = TypeVar("ValueT")


@dataclass(frozen=True)
class Change:
    """How a corpus differs from what it was, by the names of its raw samples."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    num_left: int = 0
    """How many of the raw samples that were there are there still, changed or not."""
    num_samples: Mapping[str, int] = field(default_factory=dict, kw_only=True)
    """How many samples a raw one is reckoned to bring or take, where that is not one."""
    forgotten: tuple[str, ...] = field(default=(), kw_only=True)
    """Keys of samples of the dataset that somebody asked to forget."""

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed or self.forgotten)

    @property
    def num_to_learn(self) -> int:
        """How many samples there are to be learned from that were not there before."""
        return self._num(self.added) + self._num(self.changed)

    def __str__(self) -> str:
        more = {
            name: self._num(keys)
            for name in ("changed", "removed", "forgotten")
            if (keys := getattr(self, name))
        }
        said = f"{self._num(self.added)} new samples"
        return ", ".join([said, *(f"{number} {name}" for name, number in more.items())])

    def _num(self, names: Iterable[str]) -> int:
        return sum(self.num_samples.get(name, 1) for name in names)


def compare(had: Mapping[str, ValueT], has: Mapping[str, ValueT]) -> Change:
    """Return how raw samples, by name, differ from what they were."""
    return Change(
        added=tuple(sorted(has.keys() - had.keys())),
        changed=tuple(sorted(key for key in has.keys() & had.keys() if has[key] != had[key])),
        removed=tuple(sorted(had.keys() - has.keys())),
        num_left=len(has.keys() & had.keys()),
    )


def gone_table(gone: Mapping[str, str]) -> bytes:
    """Return `gone.parquet`: keys with the reason, sorted."""
    rows = [{"key": key, "reason": gone[key]} for key in sorted(gone)]
    return table_bytes(pa.Table.from_pylist(rows, schema=_GONE_SCHEMA))


def read_gone(ingest_url: str | None) -> dict[str, str]:
    """Return what an increment puts an end to: the reason by key."""
    data = ingest_url and storage.read_if_exists(storage.join(ingest_url, GONE_NAME))
    if not data:
        return {}
    table = table_of(data)
    return dict(zip(table["key"].to_pylist(), table["reason"].to_pylist(), strict=True))


def gone_now(inputs: Inputs) -> dict[str, str]:
    """Return what the increment that is being made puts an end to."""
    return read_gone(inputs.bases.get(INGEST_STEP)) if inputs.history else {}


def ended(gone: Mapping[str, str]) -> dict[str, str]:
    """Return what is gone for good: not those samples that are taken in again."""
    return {key: reason for key, reason in gone.items() if reason not in (CHANGED, REVIVED)}


def standing(
    history: Sequence[Mapping[str, Artifact]], step: str, gone: Iterable[str] = ()
) -> list[tuple[Artifact, frozenset[str]]]:
    """Return the artifacts of a step in increments, each with the keys that do not count.

    A key that a later increment took in again counts there alone; `gone` counts nowhere.
    """
    over = set(gone)
    found = []
    for increment in reversed(history):
        found.append((increment[step], frozenset(over)))
        over |= read_gone(increment[INGEST_STEP].url).keys()
    return found[::-1]
