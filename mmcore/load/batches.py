"""Samples to batches of arrays, in an order that any number of ranks and readers shares."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar

import numpy as np
from tokenizers import Tokenizer

from mmcore import storage
from mmcore.core.loader import Batch, SampleInfo
from mmcore.core.step import Artifact, Inputs
from mmcore.errors import ConfigError, IntegrityError
from mmcore.load.ahead import Ahead, Spot
from mmcore.load.augment import AudioAugment, ImageAugment, TextAugment
from mmcore.load.cache import ShardCache
from mmcore.load.decode import DecodeConfig, Decoder
from mmcore.load.folds import Fold
from mmcore.load.mix import Curriculum, MixedDataset, check_mix
from mmcore.load.reader import InProcess, Maker, ReaderProcess
from mmcore.load.reading import SampleReader, Wanted
from mmcore.load.ring import Arena
from mmcore.load.sampler import Shuffle, num_per_rank
from mmcore.load.sources import Member, Source, SourcePlan
from mmcore.sample import MODALITIES, Json

DATASET_STEP = "shard"
TOKENIZER_STEP = "tokenizer"
TOKENIZER_NAME = "tokenizer.json"
TRAIN_SPLIT = "train"
NO_LABEL = -1
_MIN_SLOTS = 3

_PLACEMENT = ("max_cache_bytes", "workers", "num_slots", "cache_directory", "max_disk_cache_bytes")


@dataclass(frozen=True, kw_only=True)
class MultimodalLoader:
    """Batches of pictures, captions and sounds from the shards of the step `shard`."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    code_version: ClassVar[int] = 2

    image_side: int = 64
    """In pixels. Pictures of another size are resized to this square."""
    max_tokens: int = 32
    """Longer captions are cut, [CLS] and [SEP] included."""
    num_mels: int = 64
    hop_seconds: float = 0.02
    window_seconds: float = 0.025
    max_seconds: float = 2.5
    """Longer recordings are cut."""
    label_field: str = "label"
    """The metadata field that names the class; a sample without it has the label -1."""
    group_field: str = "caption_group"
    """The metadata field that is equal for samples that mean the same; without it a sample means
    the same as itself alone."""
    requires: tuple[str, ...] = ()
    """Modalities without which a sample is passed over, in training and in evaluation. Others that
    a sample lacks are zeros, and `has_<modality>` says so."""
    shuffle: Shuffle = field(default_factory=Shuffle)
    mix: Mapping[str, MixedDataset] = field(default_factory=dict)
    """The datasets that an epoch of training is made of, by a name of their own. Without any it is
    the recipe's; validation and evaluation always are."""
    curriculum: Curriculum | None = None
    """Easy samples first. All of them at once without it."""
    length_batches: int = 0
    """So many batches in a row are sorted by the length of their captions and come in a drawn
    order: less padding. 0 leaves batches as they come."""
    pack_tokens: int = 0
    """Captions are also given in rows of so many tokens, several to a row, and the text encoder
    reads those: the same features, and no padding to compute. 0 for none."""
    fold: Fold | None = None
    """Trains on a part of what is there and holds a part out: `mm crossvalidate` sets it."""
    image_augment: ImageAugment = field(default_factory=ImageAugment)
    audio_augment: AudioAugment = field(default_factory=AudioAugment)
    text_augment: TextAugment = field(default_factory=TextAugment)
    max_cache_bytes: int = 512 * 2**20
    """Of decoded samples that each rank keeps in memory. No part of the identity, nor is anything
    below."""
    workers: int = 1
    """Threads of the reader process that each rank has; 0 reads and decodes in the rank itself."""
    num_slots: int = 4
    """Batches that a reader process may be ahead, and the memory that they take."""
    cache_directory: str = ""
    """On a disk of this machine, for shards that lie elsewhere; by default
    ~/.cache/mmcore/shards. The ranks of a machine share it."""
    max_disk_cache_bytes: int = 32 * 2**30

    def __post_init__(self) -> None:
        for name in ("image_side", "max_tokens", "num_mels", "hop_seconds", "max_seconds"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"loader.{name}={getattr(self, name)}. Use more than 0.")
        for name in ("length_batches", "pack_tokens", "workers", "max_cache_bytes"):
            if getattr(self, name) < 0:
                raise ConfigError(f"loader.{name}={getattr(self, name)}. Use 0 or more.")
        if self.num_slots < _MIN_SLOTS:
            raise ConfigError(
                f"loader.num_slots={self.num_slots}: one is filled, one is full and one is read. "
                f"Use {_MIN_SLOTS} or more."
            )
        if 0 < self.pack_tokens < self.max_tokens:
            raise ConfigError(
                f"loader.pack_tokens={self.pack_tokens} is less than "
                f"loader.max_tokens={self.max_tokens}: captions would be cut. Use that or more."
            )
        unknown = [name for name in self.requires if name not in MODALITIES]
        if unknown:
            raise ConfigError(
                f"loader.requires names {unknown[0]!r}, which is no modality. "
                f"Use some of {', '.join(MODALITIES)}."
            )
        check_mix(self.mix)

    def identity(self) -> Mapping[str, Json]:
        """Return what decides the batches, besides the dataset."""
        found = {name: value for name, value in asdict(self).items() if name not in _PLACEMENT}
        found["mix"] = {name: one.identity() for name, one in self.mix.items()}
        if len(self.mix) > 1:  # the order of the stream, and JSON has its own
            found["mix_order"] = list(self.mix)
        found["requires"] = list(self.requires)
        if self.fold is None:
            del found["fold"]
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        return {"loader": name, "code_version": self.code_version, **found}

    def open(self, inputs: Inputs) -> "OpenMultimodal":
        """Open the datasets and the tokenizer among the inputs."""
        url = storage.join(inputs[TOKENIZER_STEP].url, TOKENIZER_NAME)
        try:
            tokenizer = Tokenizer.from_str(storage.read(url).decode())
        except ValueError as error:
            raise IntegrityError(
                f"{url} is not a tokenizer: {error}. Delete the directory of the step and run "
                "again."
            ) from error
        tokenizer.enable_truncation(self.max_tokens)
        own = Source.open(
            inputs[DATASET_STEP], self.requires, hidden=inputs.forgotten.keys, fold=self.fold
        )
        mixed = {
            name: Source.open(one.artifact(name), self.requires, name=name) if one.url else own
            for name, one in self.mix.items()
        }
        return OpenMultimodal(self, own, mixed, tokenizer)

    def check_mix_is_there(self) -> None:
        """Raise ConfigError when another dataset of the mix is not there, or lacks the score."""
        for name, one in self.mix.items():
            if one.url:
                artifact = one.artifact(name)
                if self.curriculum is not None:
                    self.curriculum.easiest_first(artifact, ())

    @property
    def decoding(self) -> DecodeConfig:
        """What of it a decoder has to know."""
        return DecodeConfig(**{one.name: getattr(self, one.name) for one in fields(DecodeConfig)})

    def disk_cache(self, artifacts: Sequence[Artifact]) -> ShardCache | None:
        """Return where shards are kept that lie elsewhere, if any does."""
        if all(storage.is_local(one.url) for one in artifacts):
            return None
        directory = self.cache_directory or os.path.expanduser("~/.cache/mmcore/shards")
        return ShardCache(directory, self.max_disk_cache_bytes)


class OpenMultimodal:
    """A dataset that is ready to be read; see `mmcore.core.loader.OpenLoader`."""

    def __init__(
        self,
        config: MultimodalLoader,
        own: Source,
        mixed: Mapping[str, Source],
        tokenizer: Tokenizer,
    ) -> None:
        self.config = config
        self._own = own
        self._mixed = mixed
        self._tokenizer = tokenizer
        self._plan = SourcePlan(config, own, mixed)
        everything = [info for one in self._plan.all_sources for info in one.infos]
        self._labels = sorted({name for info in everything if (name := self._label(info))})
        self._label_ids = {name: index for index, name in enumerate(self._labels)}
        groups = sorted({self._group(one.info) for one in self._plan.all_members()})
        self._group_ids = {name: index for index, name in enumerate(groups)}
        self._cache = config.disk_cache([one.artifact for one in self._plan.all_sources])
        self._decoder = Decoder(config.decoding, tokenizer, SampleReader(self._cache))
        self._ahead: Ahead | None = None

    @property
    def labels(self) -> Sequence[str]:
        return self._labels

    @property
    def vocab_size(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def samples(self, split: str) -> Sequence[SampleInfo]:
        return [one.info for one in self._plan.members(split)]

    def parts(self, key: str) -> Mapping[str, bytes]:
        return self._plan.parts(key)

    def num_steps(self, split: str, *, global_batch_size: int) -> int:
        return self._plan.order(split, 0, global_batch_size).num_steps

    def epoch(
        self,
        split: str,
        *,
        seed: int,
        epoch: int,
        global_batch_size: int,
        rank: int,
        num_ranks: int,
        first_step: int = 0,
    ) -> Iterator[Batch]:
        per_rank = num_per_rank(global_batch_size, num_ranks)
        num_steps = self.num_steps(split, global_batch_size=global_batch_size)
        for step in range(first_step, num_steps):
            spot = Spot(split, seed, global_batch_size, rank, num_ranks, epoch, step)
            # nothing here may hold a batch that is given away: its slot would not become free
            yield self._taken(spot, per_rank)

    def in_order(self, split: str, *, batch_size: int) -> Iterator[Batch]:
        members = self._plan.members(split)
        for first in range(0, len(members), batch_size):
            started = time.perf_counter()
            some = members[first : first + batch_size]
            wanted: list[Wanted] = []
            for one in some:
                self._decoder.reader.learn(one.groups())
                wanted.append(one.wanted())
            arena = Arena()
            self._decoder.fill(wanted, arena, seed=None)
            yield self._batch(some, arena.arrays, time.perf_counter() - started)

    @property
    def reader_pid(self) -> int | None:
        """The process that reads for this rank, once there is one."""
        maker = None if self._ahead is None else self._ahead.maker
        return maker.pid if isinstance(maker, ReaderProcess) else None

    def close(self) -> None:
        """End the reader process, and let go of files."""
        self._end_reader()
        self._decoder.close()
        for one in self._plan.all_sources:
            one.dataset.close()

    def __del__(self) -> None:
        # of one that was not opened to the end there is nothing to close
        if "_ahead" in self.__dict__:
            self.close()

    def _taken(self, spot: Spot, batch_size: int) -> Batch:
        started = time.perf_counter()
        arrays = self._ahead_of(batch_size, spot.global_batch_size).take(spot)
        waited = time.perf_counter() - started
        return self._batch(self._plan.at(spot), arrays, waited)

    def _ahead_of(self, batch_size: int, global_batch_size: int) -> Ahead:
        """Return what makes batches of a size, started if it is not there."""
        if self._ahead is not None and self._ahead.maker.batch_size < batch_size:
            self._end_reader()
        if self._ahead is None:
            self._ahead = Ahead(
                self._maker(batch_size),
                self._plan,
                num_fetched_ahead=self._plan.num_fetched_ahead(global_batch_size),
            )
        return self._ahead

    def _maker(self, batch_size: int) -> Maker:
        num_slots = self.config.num_slots
        if not self.config.workers:
            return InProcess(self._decoder, num_slots=num_slots, batch_size=batch_size)
        return ReaderProcess(
            self.config.decoding,
            self._tokenizer,
            cache=self._cache,
            num_threads=self.config.workers,
            num_slots=num_slots,
            batch_size=batch_size,
        )

    def _end_reader(self) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.maker.close()

    def _label(self, info: SampleInfo) -> str:
        return str(info.meta.get(self.config.label_field) or "")

    def _group(self, info: SampleInfo) -> str:
        return str(info.meta.get(self.config.group_field) or f"key:{info.key}")

    def _batch(self, members: Sequence[Member], arrays: Mapping[str, Any], waited: float) -> Batch:
        infos = [one.info for one in members]
        labels = [self._label_ids.get(self._label(info), NO_LABEL) for info in infos]
        groups = [self._group_ids[self._group(info)] for info in infos]
        found = {**arrays, "label": np.array(labels), "group": np.array(groups)}
        return Batch([info.key for info in infos], found, waited)
