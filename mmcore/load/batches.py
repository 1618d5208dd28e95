"""Samples to arrays: pictures, token ids and log-mel frames, augmented, padded and masked."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import cv2
import numpy as np
from tokenizers import Tokenizer

from mmcore import storage
from mmcore.core.loader import Batch, SampleInfo
from mmcore.core.step import Inputs
from mmcore.errors import ConfigError, IntegrityError, SampleError, StepError
from mmcore.load.augment import (
    AudioAugment,
    Frames,
    ImageAugment,
    Pixels,
    augment_image,
    augment_mel,
    generator,
)
from mmcore.load.dataset import Entry, ShardedDataset
from mmcore.load.sampler import rank_batches
from mmcore.media.audio import decode_audio, log_mel, resample
from mmcore.media.image import decode_image
from mmcore.media.text import decode_text
from mmcore.sample import MODALITIES, Json, modality_of

DATASET_STEP = "shard"
TOKENIZER_STEP = "tokenizer"
TOKENIZER_NAME = "tokenizer.json"
RATE_HZ = 16_000
NO_LABEL = -1
MIN_FRAMES = 8
"""Shorter recordings are padded: a strided encoder needs something to stride over."""

Ids = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, kw_only=True)
class MultimodalLoader:
    """Batches of pictures, captions and sounds from the shards of the step `shard`."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    code_version: ClassVar[int] = 1

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
    image_augment: ImageAugment = field(default_factory=ImageAugment)
    audio_augment: AudioAugment = field(default_factory=AudioAugment)
    max_cache_bytes: int = 512 * 2**20
    """Of decoded samples that each rank keeps in memory. No part of the identity."""

    def __post_init__(self) -> None:
        for name in ("image_side", "max_tokens", "num_mels", "hop_seconds", "max_seconds"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"loader.{name}={getattr(self, name)}. Use more than 0.")
        unknown = [name for name in self.requires if name not in MODALITIES]
        if unknown:
            raise ConfigError(
                f"loader.requires names {unknown[0]!r}, which is no modality. "
                f"Use some of {', '.join(MODALITIES)}."
            )

    def identity(self) -> Mapping[str, Json]:
        """Return what decides the batches, besides the dataset."""
        fields = asdict(self)
        del fields["max_cache_bytes"]
        if not self.requires:
            del fields["requires"]
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        return {"loader": name, "code_version": self.code_version, **fields}

    def open(self, inputs: Inputs) -> "OpenMultimodal":
        """Open the dataset and the tokenizer among the inputs."""
        dataset = ShardedDataset(inputs[DATASET_STEP], inputs.forgotten.keys)
        url = storage.join(inputs[TOKENIZER_STEP].url, TOKENIZER_NAME)
        try:
            tokenizer = Tokenizer.from_str(storage.read(url).decode())
        except ValueError as error:
            raise IntegrityError(
                f"{url} is not a tokenizer: {error}. Delete the directory of the step and run "
                "again."
            ) from error
        tokenizer.enable_truncation(self.max_tokens)
        return OpenMultimodal(self, dataset, tokenizer)


@dataclass(frozen=True, slots=True)
class Decoded:
    """A sample as arrays, before augmentation. What is absent is None."""

    image: Pixels | None
    text_ids: Ids | None
    mel: Frames | None

    @property
    def num_bytes(self) -> int:
        """Return what it takes in memory."""
        return sum(
            array.nbytes for array in (self.image, self.text_ids, self.mel) if array is not None
        )


class OpenMultimodal:
    """A dataset that is ready to be read; see `mmcore.core.loader.OpenLoader`."""

    def __init__(
        self, config: MultimodalLoader, dataset: ShardedDataset, tokenizer: Tokenizer
    ) -> None:
        self.config = config
        self._dataset = dataset
        self._tokenizer = tokenizer
        self._labels = sorted({name for entry in dataset.entries if (name := self._label(entry))})
        self._label_ids = {name: index for index, name in enumerate(self._labels)}
        groups = sorted({self._group(entry) for entry in dataset.entries})
        self._group_ids = {name: index for index, name in enumerate(groups)}
        self._cache: OrderedDict[str, Decoded] = OrderedDict()
        self._num_cached_bytes = 0
        self._required: dict[str, list[Entry]] = {}
        # ranks share the cores: one thread each, and the same bytes whatever their number
        cv2.setNumThreads(0)

    @property
    def labels(self) -> Sequence[str]:
        return self._labels

    @property
    def vocab_size(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def samples(self, split: str) -> Sequence[SampleInfo]:
        return [entry.info for entry in self._entries(split)]

    def parts(self, key: str) -> Mapping[str, bytes]:
        return self._dataset.read(self._dataset.entry(key))

    def num_steps(self, split: str, *, global_batch_size: int) -> int:
        return len(self._entries(split)) // global_batch_size

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
        entries = self._entries(split)
        for chosen in rank_batches(
            len(entries),
            seed=seed,
            epoch=epoch,
            global_batch_size=global_batch_size,
            rank=rank,
            num_ranks=num_ranks,
            first_step=first_step,
        ):
            some = [entries[index] for index in chosen]
            yield self._batch(some, [self._augmented(entry, seed, epoch) for entry in some])

    def in_order(self, split: str, *, batch_size: int) -> Iterator[Batch]:
        entries = self._entries(split)
        for first in range(0, len(entries), batch_size):
            some = entries[first : first + batch_size]
            yield self._batch(some, [self._decoded(entry) for entry in some])

    def _entries(self, split: str) -> Sequence[Entry]:
        """Return the samples of a split that have what is required."""
        entries = self._dataset.split(split)
        if not self.config.requires:
            return entries
        if split not in self._required:
            self._required[split] = [entry for entry in entries if self._has_required(entry)]
        if not self._required[split]:
            raise StepError(
                f"none of the {len(entries)} samples of the split {split!r} of {self._dataset.url} "
                f"has {' and '.join(self.config.requires)}. Require less in loader.requires."
            )
        return self._required[split]

    def _has_required(self, entry: Entry) -> bool:
        found = set(map(modality_of, entry.info.extensions))
        return found.issuperset(self.config.requires)

    def _augmented(self, entry: Entry, seed: int, epoch: int) -> Decoded:
        decoded = self._decoded(entry)
        draw = generator(seed=seed, epoch=epoch, key=entry.info.key)
        image, mel = decoded.image, decoded.mel
        if image is not None:
            image = augment_image(image, self.config.image_augment, draw)
        if mel is not None:
            mel = augment_mel(mel, self.config.audio_augment, draw)
        return Decoded(image, decoded.text_ids, mel)

    def _decoded(self, entry: Entry) -> Decoded:
        """Decode a sample, or take it from the cache, which lets go of the oldest first."""
        key = entry.info.key
        if key in self._cache:
            return self._cache[key]
        decoded = self._decode(entry)
        self._cache[key] = decoded
        self._num_cached_bytes += decoded.num_bytes
        while self._num_cached_bytes > self.config.max_cache_bytes:
            _, oldest = self._cache.popitem(last=False)
            self._num_cached_bytes -= oldest.num_bytes
        return decoded

    def _decode(self, entry: Entry) -> Decoded:
        found = {
            modality: data
            for extension, data in sorted(self._dataset.read(entry).items(), reverse=True)
            if (modality := modality_of(extension)) is not None
        }
        try:
            return Decoded(
                image=self._image(found["image"]) if "image" in found else None,
                text_ids=self._text_ids(found["text"]) if "text" in found else None,
                mel=self._mel(found["audio"]) if "audio" in found else None,
            )
        except SampleError as error:
            raise IntegrityError(
                f"{entry.info.key} in {entry.info.shard} of {self._dataset.url} cannot be decoded: "
                f"{error}. The steps before should have quarantined it: add the decode_* rules to "
                "the recipe's clean section."
            ) from error

    def _image(self, data: bytes) -> Pixels:
        image = decode_image(data)
        side = self.config.image_side
        if image.shape[:2] == (side, side):
            return image
        smaller = max(image.shape[:2]) > side
        method = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
        resized: Pixels = cv2.resize(image, (side, side), interpolation=method)
        return resized

    def _text_ids(self, data: bytes) -> Ids:
        return np.array(self._tokenizer.encode(decode_text(data)).ids, dtype=np.int64)

    def _mel(self, data: bytes) -> Frames:
        waveform, rate_hz = decode_audio(data)
        waveform = resample(waveform[: round(self.config.max_seconds * rate_hz)], rate_hz, RATE_HZ)
        return log_mel(
            waveform,
            rate_hz=RATE_HZ,
            num_mels=self.config.num_mels,
            hop_seconds=self.config.hop_seconds,
            window_seconds=self.config.window_seconds,
        )

    def _label(self, entry: Entry) -> str:
        return str(entry.info.meta.get(self.config.label_field) or "")

    def _group(self, entry: Entry) -> str:
        return str(entry.info.meta.get(self.config.group_field) or f"key:{entry.info.key}")

    def _batch(self, entries: Sequence[Entry], decoded: Sequence[Decoded]) -> Batch:
        side, num_mels = self.config.image_side, self.config.num_mels
        image = np.zeros((len(entries), side, side, 3), np.uint8)
        num_tokens = max((len(d.text_ids) for d in decoded if d.text_ids is not None), default=1)
        text_ids = np.zeros((len(entries), max(1, num_tokens)), np.int64)
        text_mask = np.zeros(text_ids.shape, bool)
        num_frames = max((len(d.mel) for d in decoded if d.mel is not None), default=1)
        audio_mel = np.zeros((len(entries), max(MIN_FRAMES, num_frames), num_mels), np.float32)
        audio_mask = np.zeros(audio_mel.shape[:2], bool)
        for row, sample in enumerate(decoded):
            if sample.image is not None:
                image[row] = sample.image
            if sample.text_ids is not None:
                text_ids[row, : len(sample.text_ids)] = sample.text_ids
                text_mask[row, : len(sample.text_ids)] = True
            if sample.mel is not None:
                audio_mel[row, : len(sample.mel)] = sample.mel
                audio_mask[row, : len(sample.mel)] = True
        arrays: dict[str, np.ndarray[Any, Any]] = {
            "image": image,
            "has_image": np.array([d.image is not None for d in decoded]),
            "text_ids": text_ids,
            "text_mask": text_mask,
            "has_text": np.array([d.text_ids is not None for d in decoded]),
            "audio_mel": audio_mel,
            "audio_mask": audio_mask,
            "has_audio": np.array([d.mel is not None for d in decoded]),
            "label": np.array([self._label_ids.get(self._label(e), NO_LABEL) for e in entries]),
            "group": np.array([self._group_ids[self._group(e)] for e in entries]),
        }
        return Batch([entry.info.key for entry in entries], arrays)
