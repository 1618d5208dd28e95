"""The dataset version that an increment builds on: its shards stay, and new ones are like them."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mmcore import storage
from mmcore.core.change import gone_now
from mmcore.core.grown_table import read_groups
from mmcore.core.manifest import FileRecord
from mmcore.core.step import Artifact, Inputs
from mmcore.core.tombstones import Tombstone, read_tombstones
from mmcore.errors import StepError
from mmcore.sample import Sample
from mmcore.shard.document import EXTENSION, Schema, misfit
from mmcore.shard.table import TABLE_NAME, StoredSample, of_keys, samples_in

_SHARD_SUFFIXES = (".tar", ".tar.idx", ".idx")


@dataclass(frozen=True)
class Earlier:
    """A committed dataset version, as the next one has to take it."""

    artifact: Artifact
    gone: Mapping[str, str] = field(default_factory=dict)
    """What counts no more in the next version: the reason by key."""

    @property
    def extensions(self) -> tuple[str, ...]:
        """The extensions of all parts."""
        extensions: Any = self.artifact.manifest.facts["extensions"]
        return tuple(extensions)

    @property
    def parts(self) -> tuple[str, ...]:
        """The extensions that every sample has, but for what we know of it."""
        return tuple(name for name in self.extensions if name != EXTENSION)

    @property
    def schema(self) -> Schema:
        """The fields of the `json` part of every sample."""
        recorded: Any = self.artifact.manifest.facts["schema"]
        return Schema(recorded["fields"], tuple(recorded["scores"]))

    @property
    def num_shards(self) -> dict[str, int]:
        """How many shards each split has."""
        counted: dict[str, int] = defaultdict(int)
        for record in self.files:
            counted[record.path.split("/", 1)[0]] += record.path.endswith(".tar")
        return dict(counted)

    @property
    def files(self) -> list[FileRecord]:
        """The shards and the index beside each: what the next version holds under the same name."""
        return [
            record
            for record in self.artifact.manifest.files
            if record.path.endswith(_SHARD_SUFFIXES)
        ]

    @property
    def increments(self) -> list[Any]:
        """What each increment added, the first one first."""
        added: Any = self.artifact.manifest.facts["increments"]
        return list(added)

    @property
    def table_url(self) -> str:
        """Where the row of each sample lies."""
        return storage.join(self.artifact.url, TABLE_NAME)

    def rows(self) -> Iterator[pa.Table]:
        """Yield the rows of what counts still."""
        return of_keys(read_groups(self.table_url), self.gone, but=True)

    def with_parts(self, digests: Collection[str]) -> Iterator[StoredSample]:
        """Yield the samples that count still of which a part has one of some SHA-256."""
        wanted = pa.array(sorted(digests), pa.string())
        columns = ["key", "parts.list.element.sha256"]
        keys: set[str] = set()
        # two columns of all rows, and whole rows only where there is something to see
        for group in read_groups(self.table_url, columns) if digests else ():
            parts = group["parts"].combine_chunks()
            found = pc.is_in(pc.struct_field(parts.flatten(), "sha256"), wanted)
            rows = parts.value_parent_indices().filter(found)
            keys.update(group["key"].take(rows).to_pylist())
        keys -= self.gone.keys()
        if keys:
            yield from samples_in(of_keys(read_groups(self.table_url), keys))

    def dead(self) -> list[StoredSample]:
        """Return the samples that count no more from now on, in the order of the shards."""
        if not self.gone:
            return []
        found = samples_in(of_keys(read_groups(self.table_url), self.gone))
        return sorted(found, key=lambda one: (one.shard, one.index))

    def counted(self, fact: str, dead: Iterable[str]) -> Counter[str]:
        """Return how many samples each of a fact's values has: of what counts still."""
        recorded: Any = self.artifact.manifest.facts[fact]
        return Counter(recorded) - Counter(dead)

    def tombstones(self, dead: Sequence[StoredSample]) -> list[Tombstone]:
        """Return the tombstones of the next version: those that are there, and new ones."""
        new = [Tombstone(one.shard, one.index, one.key, self.gone[one.key]) for one in dead]
        return [*read_tombstones(self.artifact.url), *new]

    def check_fit(self, sample: Sample) -> None:
        """Raise StepError where the `json` part of a newcomer would be of another type."""
        problem = misfit(sample, self.schema)
        if problem is not None:
            raise StepError(
                f"{sample.key}: {problem}, as in the {sum(self.num_shards.values())} shards "
                "that are there. Nothing was published. Correct the sample at the source, or "
                "make the dataset from the ground up: mm run RECIPE --rebuild."
            )

    def link_into(self, url: str) -> None:
        """Give every shard and its index a second name in a new version; no byte is written."""
        for record in self.files:
            storage.link(
                storage.join(self.artifact.url, record.path), storage.join(url, record.path)
            )


def earlier(inputs: Inputs, step: str) -> Earlier | None:
    """Return the version that is built on, or None in the first increment."""
    found = inputs.earlier(step)
    return Earlier(found[-1], gone_now(inputs)) if found else None
