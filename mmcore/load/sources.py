"""The datasets behind a loader, and which of their samples stand where in the global stream."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from mmcore import storage
from mmcore.core.loader import SampleInfo
from mmcore.core.step import Artifact
from mmcore.errors import StepError
from mmcore.load.ahead import Spot
from mmcore.load.cache import Group
from mmcore.load.dataset import Entry, ShardedDataset
from mmcore.load.folds import Fold
from mmcore.load.mix import Curriculum, MixedDataset, num_drawn
from mmcore.load.order import Order, Stream
from mmcore.load.reading import Wanted
from mmcore.load.sampler import Indices, Shuffle
from mmcore.sample import modality_of

MIXED_SPLIT = "train"
"""Datasets are mixed to learn from; what a model is judged on is the recipe's own."""
_MAX_RECENT = 64
_FETCHED_SHARE = 4
"""At most one of so many parts of the cache is fetched before it is needed."""


class Settings(Protocol):
    """What of a loader decides the order."""

    @property
    def shuffle(self) -> Shuffle: ...
    @property
    def mix(self) -> Mapping[str, MixedDataset]: ...
    @property
    def curriculum(self) -> Curriculum | None: ...
    @property
    def length_batches(self) -> int: ...
    @property
    def max_disk_cache_bytes(self) -> int: ...


@dataclass(eq=False)
class Source:
    """A dataset, without the samples that lack what is required."""

    dataset: ShardedDataset
    requires: Sequence[str]
    name: str = ""
    """In the mix; empty for the recipe's own."""
    _splits: dict[str, Sequence[Entry]] = field(default_factory=dict)

    @staticmethod
    def open(
        artifact: Artifact,
        requires: Sequence[str],
        *,
        name: str = "",
        hidden: frozenset[str] | None = None,
        fold: Fold | None = None,
    ) -> "Source":
        """Open a dataset version, as it is or with a fold of it held out."""
        arranged = None if fold is None else fold.apply
        return Source(ShardedDataset(artifact, hidden, arranged), requires, name)

    @property
    def artifact(self) -> Artifact:
        """The dataset version."""
        return self.dataset.artifact

    @property
    def infos(self) -> Sequence[SampleInfo]:
        """What is known of every sample, of all splits."""
        return [entry.info for entry in self.dataset.entries]

    def entries(self, split: str) -> Sequence[Entry]:
        """Return the samples of a split that have what is required, in the order of the shards."""
        if split not in self._splits:
            entries = self.dataset.split(split)
            found = [entry for entry in entries if self._has_required(entry)]
            if not found:
                raise StepError(
                    f"none of the {len(entries)} samples of the split {split!r} of "
                    f"{self.dataset.url} has {' and '.join(self.requires)}. Require less in "
                    "loader.requires."
                )
            self._splits[split] = found
        return self._splits[split]

    def key(self, entry: Entry) -> str:
        """Return what a sample is called in batches: in a mix two datasets may use one key."""
        return f"{self.name}/{entry.info.key}" if self.name else entry.info.key

    def _has_required(self, entry: Entry) -> bool:
        if not self.requires:
            return True
        return set(map(modality_of, entry.info.extensions)).issuperset(self.requires)


@dataclass(frozen=True, slots=True)
class Member:
    """A sample of one of the sources."""

    source: Source
    entry: Entry
    visit: int = 0

    @property
    def info(self) -> SampleInfo:
        """What is known of it, under the key that it has in batches."""
        info = self.entry.info
        return replace(info, key=self.source.key(self.entry)) if self.source.name else info

    def groups(self) -> Sequence[Group]:
        """Return what it is fetched with, where its shard lies elsewhere."""
        dataset = self.source.dataset
        return () if storage.is_local(dataset.url) else (dataset.group(self.entry),)

    def wanted(self) -> Wanted:
        """Return what a reader has to know of it."""
        group = "".join(group.name for group in self.groups())
        wanted = self.source.dataset.wanted(self.entry, visit=self.visit, group=group)
        return wanted._replace(key=self.source.key(self.entry)) if self.source.name else wanted


class SourcePlan:
    """Which samples stand at which spot of the stream."""

    def __init__(self, settings: Settings, own: Source, mixed: Mapping[str, Source]) -> None:
        self._settings = settings
        self._own = own
        self._mixed = mixed
        self._orders: dict[tuple[str, int, int], Order] = {}
        self._recent: OrderedDict[Spot, Sequence[Member]] = OrderedDict()

    @property
    def all_sources(self) -> Sequence[Source]:
        """Every dataset, the recipe's own first."""
        return [self._own, *(one for one in self._mixed.values() if one is not self._own)]

    def sources(self, split: str) -> Sequence[Source]:
        """Return the datasets that a split is made of."""
        mixed = list(self._mixed.values())
        return mixed if mixed and split == MIXED_SPLIT else [self._own]

    def all_members(self) -> Sequence[Member]:
        """Return every sample of every dataset."""
        return [Member(one, entry) for one in self.all_sources for entry in one.dataset.entries]

    def members(self, split: str) -> Sequence[Member]:
        """Return the samples of a split, in the order of the shards."""
        return [Member(one, entry) for one in self.sources(split) for entry in one.entries(split)]

    def parts(self, key: str) -> Mapping[str, bytes]:
        """Return the bytes of a sample by extension."""
        name, _, rest = key.partition("/")
        source = self._mixed.get(name) if rest else None
        if source is None or not source.name:
            source, rest = self._own, key
        return source.dataset.read(source.dataset.entry(rest))

    def order(self, split: str, seed: int, global_batch_size: int) -> Order:
        """Return the order of a split."""
        at = split, seed, global_batch_size
        if at not in self._orders:
            sources = self.sources(split)
            lengths = None
            if self._settings.length_batches:
                lengths = [_text_bytes(one.entries(split)) for one in sources]
            self._orders[at] = Order(
                self._streams(split, sources),
                seed,
                global_batch_size,
                self._settings.shuffle,
                lengths,
                self._settings.length_batches,
            )
        return self._orders[at]

    def at(self, spot: Spot) -> Sequence[Member]:
        """Return the samples of a batch; it is asked for twice, when it is ordered and when it is
        there.
        """
        if spot not in self._recent:
            self._recent[spot] = self._members_at(spot)
            if len(self._recent) > _MAX_RECENT:
                self._recent.popitem(last=False)
        return self._recent[spot]

    def _members_at(self, spot: Spot) -> Sequence[Member]:
        per_rank = spot.global_batch_size // spot.num_ranks
        rows = slice(spot.rank * per_rank, (spot.rank + 1) * per_rank)
        order = self.order(spot.split, spot.seed, spot.global_batch_size)
        picks = order.batch(spot.epoch, spot.step, rows)
        sources = [(one, one.entries(spot.split)) for one in self.sources(spot.split)]
        return [
            Member(sources[source][0], sources[source][1][index], visit)
            for source, index, visit in zip(
                picks.sources.tolist(), picks.indices.tolist(), picks.visits.tolist(), strict=True
            )
        ]

    def wanted(self, spot: Spot) -> tuple[Sequence[Wanted], Sequence[Group]]:
        members = self.at(spot)
        groups = {group.name: group for one in members for group in one.groups()}
        return [one.wanted() for one in members], list(groups.values())

    def after(self, spot: Spot, num_steps: int) -> Spot:
        in_epoch = self.order(spot.split, spot.seed, spot.global_batch_size).num_steps
        epochs, step = divmod(spot.step + num_steps, in_epoch)
        return spot._replace(epoch=spot.epoch + epochs, step=step)

    def num_fetched_ahead(self, global_batch_size: int) -> int:
        """Return how many steps before it is needed a group is fetched: a window, if there is room.

        When a window of the shuffle begins, all of its blocks are needed at once.
        """
        elsewhere = [one for one in self.all_sources if not storage.is_local(one.dataset.url)]
        if not elsewhere:
            return 0
        shuffle = self._settings.shuffle
        num_samples = shuffle.block_samples * shuffle.window_blocks
        entries = [entry for one in elsewhere for entry in one.dataset.entries]
        total = sum(ref.num_bytes for entry in entries for ref in entry.parts.values())
        room = self._settings.max_disk_cache_bytes // _FETCHED_SHARE
        num_samples = min(num_samples, room * len(entries) // max(1, total))
        return max(1, num_samples // global_batch_size)

    def _streams(self, split: str, sources: Sequence[Source]) -> Sequence[Stream]:
        sizes = [len(one.entries(split)) for one in sources]
        is_mixed = split == MIXED_SPLIT and bool(self._mixed)
        drawn = num_drawn(list(self._settings.mix.values()), sizes) if is_mixed else sizes
        curriculum = self._settings.curriculum if split == MIXED_SPLIT else None
        streams = []
        for one, size, num in zip(sources, sizes, drawn, strict=True):
            stream = Stream(size, num, one.name)
            if curriculum is not None:
                easiest = curriculum.easiest_first(one.artifact, one.entries(split))
                stream = replace(stream, easiest_first=easiest, shares=curriculum.shares())
            streams.append(stream)
        return streams


def _text_bytes(entries: Sequence[Entry]) -> Indices:
    """Return the length of each caption as the table has it: nothing is read for it."""
    return np.array(
        [
            sum(ref.num_bytes for name, ref in entry.parts.items() if modality_of(name) == "text")
            for entry in entries
        ],
        np.int64,
    )
