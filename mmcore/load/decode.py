"""Bytes of samples to the arrays of a batch: pictures straight into it, the rest padded."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from tokenizers import Tokenizer

from mmcore.errors import IntegrityError, SampleError
from mmcore.load.augment import (
    AudioAugment,
    Frames,
    Ids,
    ImageAugment,
    Pixels,
    TextAugment,
    augment_image,
    augment_mel,
    augment_text,
    generator,
)
from mmcore.load.packing import packed
from mmcore.load.reading import SampleReader, Wanted
from mmcore.load.ring import Arena, room
from mmcore.media.audio import decode_audio, log_mel, resample
from mmcore.media.image import decode_image
from mmcore.media.jpeg import decode_into
from mmcore.media.text import decode_text
from mmcore.sample import modality_of

RATE_HZ = 16_000
MIN_FRAMES = 8
"""Shorter recordings are padded: a strided encoder needs something to stride over."""
_MODALITIES = ("image", "text", "audio")


@dataclass(frozen=True, kw_only=True)
class DecodeConfig:
    """What decides the arrays of a sample; see `mmcore.load.batches.MultimodalLoader`."""

    image_side: int
    max_tokens: int
    num_mels: int
    hop_seconds: float
    window_seconds: float
    max_seconds: float
    pack_tokens: int = 0
    image_augment: ImageAugment = field(default_factory=ImageAugment)
    audio_augment: AudioAugment = field(default_factory=AudioAugment)
    text_augment: TextAugment = field(default_factory=TextAugment)
    max_cache_bytes: int = 0

    @staticmethod
    def from_json(fields: dict[str, Any]) -> "DecodeConfig":
        """Return what `asdict` has taken apart."""
        kinds = {"image": ImageAugment, "audio": AudioAugment, "text": TextAugment}
        augment = {f"{name}_augment": of(**fields[f"{name}_augment"]) for name, of in kinds.items()}
        return DecodeConfig(**{**fields, **augment})

    def batch_bytes(self, num_samples: int) -> int:
        """Return what the largest batch of so many samples takes in a slot."""
        hop = round(self.hop_seconds * RATE_HZ)
        frames = 2 + int(self.max_seconds * RATE_HZ + RATE_HZ / 10) // hop
        frames = max(MIN_FRAMES, 1 + int(frames * (1 + self.audio_augment.speed)))
        per_sample = (
            (self.image_side**2 * 3, 1, 1, 1)
            + (self.max_tokens * 8, self.max_tokens)
            + (frames * self.num_mels * 4, frames)
            + (self.pack_tokens * 8,) * 3
        )
        return sum(room(num_bytes * num_samples) for num_bytes in per_sample)


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


@lru_cache(1024)  # few kinds of samples, and every sample of an epoch asks
def _chosen(extensions: tuple[str, ...]) -> tuple[Mapping[str, str], frozenset[str]]:
    """Return which part serves for each modality, the first in sorted order, and all of them."""
    found = {
        modality: extension
        for extension in sorted(extensions, reverse=True)
        if (modality := modality_of(extension)) in _MODALITIES
    }
    return found, frozenset(found.values())


class Decoder:
    """Makes batches; what it has decoded it keeps, as far as there is room."""

    def __init__(
        self, config: DecodeConfig, tokenizer: Tokenizer, reader: SampleReader, num_threads: int = 1
    ) -> None:
        self.config = config
        self.reader = reader
        self._tokenizer = tokenizer
        self._threads = ThreadPoolExecutor(num_threads, "decode") if num_threads > 1 else None
        self._num_threads = num_threads
        self._kept: dict[str, Decoded] = {}
        self.num_kept_bytes = 0
        # ranks share the cores: one thread each, and the same bytes whatever their number
        cv2.setNumThreads(0)

    def fill(self, wanted: Sequence[Wanted], arena: Arena, *, seed: int | None) -> None:
        """Make the arrays of a batch, augmented unless there is no seed."""
        self.reader.begin_batch()
        side = self.config.image_side
        image = arena.empty("image", (len(wanted), side, side, 3), "|u1")

        def row(number: int) -> Decoded:
            return self._row(wanted[number], image[number], seed)

        if self._threads is None:
            rows = [row(number) for number in range(len(wanted))]
        else:
            size = max(1, -(-len(wanted) // (4 * self._num_threads)))
            stretches = [range(len(wanted))[at : at + size] for at in range(0, len(wanted), size)]
            done = self._threads.map(lambda stretch: [row(number) for number in stretch], stretches)
            rows = [one for some in done for one in some]
        self._assemble(rows, arena)

    def close(self) -> None:
        """Let go of shards and threads."""
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
        self.reader.close()

    def _row(self, wanted: Wanted, out: Pixels, seed: int | None) -> Decoded:
        """Put the picture of a sample into the batch, and return the rest of it."""
        config = self.config
        decoded = self._kept.get(wanted.key)
        if decoded is None:
            decoded = self._decode(wanted, out)
            decoded = self._keep(wanted.key, decoded, out)
        image, text_ids, mel = decoded.image, decoded.text_ids, decoded.mel

        def draw(modality: str) -> np.random.Generator:
            assert seed is not None, "what is not augmented draws nothing"
            return generator(seed=seed, epoch=wanted.visit, key=wanted.key, modality=modality)

        if image is None:
            out[...] = 0
        elif seed is not None and config.image_augment.changes_anything:
            out[...] = augment_image(image, config.image_augment, draw("image"))
        elif image is not out:
            out[...] = image
        if seed is not None:
            if text_ids is not None and config.text_augment.changes_anything:
                text_ids = augment_text(text_ids, config.text_augment, draw("text"))
            if mel is not None and config.audio_augment.changes_anything:
                mel = augment_mel(mel, config.audio_augment, draw("audio"))
        return Decoded(image, text_ids, mel)

    def _keep(self, key: str, decoded: Decoded, out: Pixels) -> Decoded:
        """Keep a sample while there is room: of one pass after another any part serves as well."""
        room_left = self.config.max_cache_bytes - self.num_kept_bytes
        if room_left <= 0 or decoded.num_bytes > room_left:
            return decoded
        image = decoded.image.copy() if decoded.image is out else decoded.image
        kept = Decoded(image, decoded.text_ids, decoded.mel)
        self._kept[key] = kept
        self.num_kept_bytes += kept.num_bytes
        return kept

    def _decode(self, wanted: Wanted, out: Pixels) -> Decoded:
        chosen, extensions = _chosen(tuple([part.extension for part in wanted.parts]))
        data = self.reader.parts(wanted, extensions)
        found = {modality: data[extension] for modality, extension in chosen.items()}
        try:
            return Decoded(
                image=self._image(found["image"], out) if "image" in found else None,
                text_ids=self._text_ids(found["text"]) if "text" in found else None,
                mel=self._mel(found["audio"]) if "audio" in found else None,
            )
        except SampleError as error:
            raise IntegrityError(
                f"{wanted.key} in {wanted.shard} of {wanted.dataset_url} cannot be decoded: "
                f"{error}. The steps before should have quarantined it: add the decode_* rules to "
                "the recipe's clean section."
            ) from error

    def _image(self, data: bytes, out: Pixels) -> Pixels:
        if decode_into(data, out):
            return out
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

    def _assemble(self, rows: Sequence[Decoded], arena: Arena) -> None:
        texts = [row.text_ids for row in rows]
        mels = [row.mel for row in rows]
        num_tokens = max((len(ids) for ids in texts if ids is not None), default=1)
        num_frames = max((len(mel) for mel in mels if mel is not None), default=1)
        shape = len(rows), max(1, num_tokens)
        text_ids = arena.zeros("text_ids", shape, "<i8")
        text_mask = arena.zeros("text_mask", shape, "|b1")
        frames = len(rows), max(MIN_FRAMES, num_frames)
        audio_mel = arena.zeros("audio_mel", (*frames, self.config.num_mels), "<f4")
        audio_mask = arena.zeros("audio_mask", frames, "|b1")
        for number, (ids, mel) in enumerate(zip(texts, mels, strict=True)):
            if ids is not None:
                text_ids[number, : len(ids)] = ids
                text_mask[number, : len(ids)] = True
            if mel is not None:
                audio_mel[number, : len(mel)] = mel
                audio_mask[number, : len(mel)] = True
        arena.put("has_image", np.array([row.image is not None for row in rows]))
        arena.put("has_text", np.array([ids is not None for ids in texts]))
        arena.put("has_audio", np.array([mel is not None for mel in mels]))
        if self.config.pack_tokens:
            some = [np.zeros(0, np.int64) if ids is None else ids for ids in texts]
            for name, array in packed(some, row_tokens=self.config.pack_tokens).items():
                arena.put(name, array)
