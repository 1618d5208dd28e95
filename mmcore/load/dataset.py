"""A dataset of shards, opened by its table: any part of any sample by its offset, checked."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from mmcore import storage
from mmcore.core.forgotten import hidden_keys
from mmcore.core.loader import SampleInfo
from mmcore.core.step import Artifact
from mmcore.core.tables import table_of
from mmcore.errors import IntegrityError, StepError
from mmcore.load.cache import Group
from mmcore.load.reading import BLOCK_BYTES, SampleReader, Slice, Wanted
from mmcore.sample import PartRef, sha256_hex

TABLE_NAME = "manifest.parquet"
_OFFSET = attrgetter("offset")
GROUP_SAMPLES = 256
GROUP_BYTES = 8 << 20
"""Samples of a shard elsewhere are fetched in groups: so many of them, or so many bytes."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A sample of the table: what is known of it, and where its parts lie."""

    info: SampleInfo
    parts: Mapping[str, PartRef]
    """By extension; the base is `shard`, the path that of the shard in the dataset."""


class ShardedDataset:
    """Reads parts of samples from the shards of one dataset version.

    What is to be forgotten is not there: `hidden` are its keys, or, where nobody has looked yet,
    what is asked for at this moment. Ranks are given it, so that all see the same samples.
    `arranged` may give samples other splits, and leave some out.
    """

    def __init__(
        self,
        artifact: Artifact,
        hidden: frozenset[str] | None = None,
        arranged: Callable[[Sequence[Entry]], list[Entry]] | None = None,
    ) -> None:
        self._reader = SampleReader()
        self.artifact = artifact
        self.url = artifact.url.rstrip("/")
        hidden = hidden_keys(artifact.url) if hidden is None else hidden
        self.entries = [one for one in _read_table(artifact) if one.info.key not in hidden]
        if arranged is not None:
            self.entries = arranged(self.entries)
        self._by_key = {entry.info.key: entry for entry in self.entries}
        self._by_split: dict[str, list[Entry]] = {}
        self._last: dict[str, int] = {}
        self._num_bytes = {file.path: file.num_bytes for file in artifact.manifest.files}
        for entry in self.entries:
            self._by_split.setdefault(entry.info.split, []).append(entry)
            self._last[entry.info.shard] = entry.info.index
        self._groups: dict[tuple[str, int], Group] | None = None

    @property
    def splits(self) -> Sequence[str]:
        """Return the names of the splits, sorted."""
        return sorted(self._by_split)

    def split(self, name: str) -> Sequence[Entry]:
        """Return the samples of a split, in the order of the shards; StepError without any."""
        if name not in self._by_split:
            raise StepError(
                f"the dataset {self.url} has no split {name!r}, only {', '.join(self.splits)}. "
                "Look at the fractions of the split step."
            )
        return self._by_split[name]

    def entry(self, key: str) -> Entry:
        """Return one sample; StepError when the dataset does not hold it."""
        if key not in self._by_key:
            raise StepError(
                f"the dataset {self.url} holds no sample {key!r}. `mm explain {key}` says why."
            )
        return self._by_key[key]

    def read(self, entry: Entry) -> dict[str, bytes]:
        """Return the parts of a sample by extension; IntegrityError when bytes have changed."""
        return self._reader.checked(self.wanted(entry))

    def wanted(self, entry: Entry, *, visit: int = 0, group: str = "") -> Wanted:
        """Return what a reader has to know of a sample."""
        info = entry.info
        parts = [Slice(name, r.offset, r.num_bytes, r.sha256) for name, r in entry.parts.items()]
        parts.sort(key=_OFFSET)
        end = parts[-1].offset + parts[-1].num_bytes
        return Wanted(
            info.key,
            self.url,
            info.shard,
            parts[0].offset - BLOCK_BYTES,
            end + -end % BLOCK_BYTES,
            tuple(parts),
            visit,
            self._last[info.shard] == info.index,
            self._num_bytes.get(info.shard, 0),
            group,
        )

    def group(self, entry: Entry) -> Group:
        """Return the neighbours with which a sample is fetched from elsewhere."""
        if self._groups is None:
            self._groups = _grouped(self)
        return self._groups[entry.info.shard, entry.info.index]

    def close(self) -> None:
        """Close the shards that were opened."""
        self._reader.close()

    def __del__(self) -> None:
        self.close()


def _first(entry: Entry) -> int:
    return min(ref.offset for ref in entry.parts.values()) - BLOCK_BYTES


def _last(entry: Entry) -> int:
    end = max(ref.offset + ref.num_bytes for ref in entry.parts.values())
    return end + -end % BLOCK_BYTES


def _grouped(dataset: ShardedDataset) -> dict[tuple[str, int], Group]:
    """Return the group of every sample by shard and index: the same for whoever looks."""
    shas = {file.path: file.sha256 for file in dataset.artifact.manifest.files}
    found: dict[tuple[str, int], Group] = {}
    some: list[Entry] = []

    def close() -> None:
        shard = some[0].info.shard
        url = storage.join(dataset.url, shard)
        first, last = _first(some[0]), _last(some[-1])
        # by content where that is known: the same shard has one name wherever it lies
        of = shas.get(shard) or sha256_hex(url.encode())
        parts = tuple(
            (ref.offset, ref.num_bytes, ref.sha256) for one in some for ref in one.parts.values()
        )
        group = Group(f"{of[:40]}-{first}-{last}", url, first, last, parts)
        found.update(((one.info.shard, one.info.index), group) for one in some)
        some.clear()

    for entry in dataset.entries:
        if some and (
            entry.info.shard != some[0].info.shard
            or len(some) == GROUP_SAMPLES
            or _last(entry) - _first(some[0]) > GROUP_BYTES
        ):
            close()
        some.append(entry)
    if some:
        close()
    return found


def _read_table(artifact: Artifact) -> list[Entry]:
    url = storage.join(artifact.url, TABLE_NAME)
    data = storage.read(url)
    recorded = [file.sha256 for file in artifact.manifest.files if file.path == TABLE_NAME]
    if recorded and sha256_hex(data) != recorded[0]:
        raise IntegrityError(
            f"{url} is not the file that was committed (SHA-256 differs). Delete the directory "
            f"{artifact.url} and run again: the step will be made anew."
        )
    entries = []
    for row in table_of(data).to_pylist():
        parts = {
            part["extension"]: PartRef(
                base="shard",
                path=row["shard"],
                offset=part["offset"],
                num_bytes=part["num_bytes"],
                sha256=part["sha256"],
            )
            for part in row["parts"]
        }
        info = SampleInfo(
            key=row["key"],
            split=row["split"],
            shard=row["shard"],
            index=row["index"],
            extensions=tuple(sorted(parts)),
            meta=json.loads(row["meta"]),
        )
        entries.append(Entry(info, parts))
    return sorted(entries, key=lambda entry: (entry.info.shard, entry.info.index))
