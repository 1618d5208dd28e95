"""Samples to look at and listen to: queries drawn by hash, and the most confident mistakes.

Nothing here is chosen because it looks good: queries are taken in the order of a hash of their
caption group.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmcore.core.loader import OpenLoader
from mmcore.evaluate.predictions import FUSED, Predictions
from mmcore.evaluate.retrieval import nearest_groups
from mmcore.sample import modality_of, sha256_hex

_MEDIA_TYPES: Mapping[str, str] = {
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "gif": "image/gif",
    "wav": "audio/wav",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
    "opus": "audio/ogg",
    "mp3": "audio/mpeg",
}


@dataclass(frozen=True)
class Shown:
    """A sample as a page can show it: media as data URIs, empty where there is none."""

    key: str
    image: str
    audio: str
    caption: str
    caption_en: str
    language: str
    label: str
    predicted: str
    confidence: float


@dataclass(frozen=True)
class Answer:
    """One retrieved sample."""

    shown: Shown
    similarity: float
    is_hit: bool


@dataclass(frozen=True)
class Example:
    """A query and what was retrieved for it, nearest first."""

    query: Shown
    answers: tuple[Answer, ...]


class Showcase:
    """Finds samples of a split and makes them presentable."""

    def __init__(self, predictions: Predictions, loader: OpenLoader, *, seed: int) -> None:
        self._predictions = predictions
        self._loader = loader
        self._seed = seed
        self._predicted = predictions.predicted(FUSED)
        self._confidence = predictions.confidence()

    def retrieved(
        self, source: str, target: str, *, num_queries: int, num_answers: int
    ) -> list[Example]:
        """Return examples of one direction, at most one for each caption group."""
        predictions = self._predictions
        both = predictions.has[source] & predictions.has[target]
        examples = []
        for query in self._one_per_group([int(i) for i in np.flatnonzero(both)])[:num_queries]:
            found = nearest_groups(predictions, query, source, target, k=num_answers)
            answers = [
                Answer(self.show(near.index), near.similarity, near.is_hit) for near in found
            ]
            examples.append(Example(self.show(query), tuple(answers)))
        return examples

    def mistakes(self, *, num: int) -> list[Shown]:
        """Return the wrong answers that the model was surest of, one for each caption group."""
        predictions = self._predictions
        wrong = [int(i) for i in np.flatnonzero(self._predicted != predictions.label)]
        ordered = sorted(wrong, key=lambda i: (-self._confidence[i], predictions.keys[i]))
        group = predictions.caption_groups()
        first: dict[int, int] = {}
        for index in ordered:
            first.setdefault(int(group[index]), index)
        return [self.show(index) for index in list(first.values())[:num]]

    def show(self, index: int) -> Shown:
        """Return one sample with its parts read."""
        predictions = self._predictions
        key, meta = predictions.keys[index], predictions.meta[index]
        parts = self._loader.parts(key)
        text = _first(parts, "text")
        return Shown(
            key=key,
            image=data_uri(parts, "image"),
            audio=data_uri(parts, "audio"),
            caption="" if text is None else parts[text].decode("utf-8", errors="replace").strip(),
            caption_en=str(meta.get("caption_en") or ""),
            language=str(meta.get("language") or ""),
            label=predictions.labels[int(predictions.label[index])],
            predicted=predictions.labels[int(self._predicted[index])],
            confidence=float(self._confidence[index]),
        )

    def _one_per_group(self, indexes: Sequence[int]) -> list[int]:
        """Return one sample of each caption group, groups and samples in the order of a hash."""
        group = self._predictions.caption_groups()
        keys = self._predictions.keys
        first: dict[int, int] = {}
        for index in sorted(indexes, key=lambda i: sha256_hex(f"{self._seed}-{keys[i]}".encode())):
            first.setdefault(int(group[index]), index)
        return list(first.values())


def data_uri(parts: Mapping[str, bytes], modality: str) -> str:
    """Return the part of a modality as a data URI; empty when a browser could not show it."""
    extension = _first(parts, modality)
    kind = None if extension is None else _MEDIA_TYPES.get(extension.rsplit(".", 1)[-1])
    if extension is None or kind is None:
        return ""
    return f"data:{kind};base64,{base64.b64encode(parts[extension]).decode()}"


def _first(parts: Mapping[str, bytes], modality: str) -> str | None:
    return next(
        (extension for extension in sorted(parts) if modality_of(extension) == modality), None
    )
