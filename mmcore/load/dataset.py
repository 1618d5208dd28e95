"""A dataset of shards, opened by its table: any part of any sample by its offset, checked."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmcore import storage
from mmcore.core.forgotten import hidden_keys
from mmcore.core.loader import SampleInfo
from mmcore.core.step import Artifact
from mmcore.core.tables import table_of
from mmcore.errors import IntegrityError, StepError, StorageError
from mmcore.sample import PartRef, sha256_hex

TABLE_NAME = "manifest.parquet"


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
    """

    def __init__(self, artifact: Artifact, hidden: frozenset[str] | None = None) -> None:
        self._handles: dict[str, int] = {}
        self.url = artifact.url
        hidden = hidden_keys(artifact.url) if hidden is None else hidden
        self.entries = [one for one in _read_table(artifact) if one.info.key not in hidden]
        self._by_key = {entry.info.key: entry for entry in self.entries}
        self._by_split: dict[str, list[Entry]] = {}
        for entry in self.entries:
            self._by_split.setdefault(entry.info.split, []).append(entry)

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
        return {extension: self._read_part(entry, ref) for extension, ref in entry.parts.items()}

    def _read_part(self, entry: Entry, ref: PartRef) -> bytes:
        url = storage.join(self.url, ref.path)
        if storage.is_local(url):
            data = self._read_local(url, ref)
        else:
            data = storage.read(url, offset=ref.offset, num_bytes=ref.num_bytes)
        if len(data) != ref.num_bytes or sha256_hex(data) != ref.sha256:
            raise IntegrityError(
                f"{url} holds other bytes at {ref.offset} than the table says for "
                f"{entry.info.key}. Delete the directory {self.url} and run again: "
                "the step will be made anew."
            )
        return data

    def _read_local(self, url: str, ref: PartRef) -> bytes:
        """Read through a handle that stays open: opening a file anew costs more than the read."""
        try:
            if url not in self._handles:
                self._handles[url] = os.open(url, os.O_RDONLY)
            return os.pread(self._handles[url], ref.num_bytes, ref.offset)
        except OSError as error:
            raise StorageError(f"cannot read {url}: {error}. Run again when it is back.") from error

    def close(self) -> None:
        """Close the shards that were opened."""
        for handle in self._handles.values():
            os.close(handle)
        self._handles.clear()

    def __del__(self) -> None:
        self.close()


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
