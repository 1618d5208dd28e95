"""Stages that ask a model about a part and keep the answer: embeddings, computed once.

This module needs no torch, so that plans and decoder processes do without; the workers that load
the model do not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from mmcore.core.executor import Resources
from mmcore.core.stage import BatchStage, BatchWorker, Worker, prepared_as, without_prepared
from mmcore.errors import ConfigError
from mmcore.media.array import array_bytes, array_of
from mmcore.media.near.prints import with_vector_print
from mmcore.models.source import Array, ModelSource, Shown, preparation
from mmcore.sample import Json, Outcome, Sample


@dataclass(frozen=True, kw_only=True)
class ModelStage(BatchStage):
    """What the stages with a model have in common."""

    model: str
    """A directory of `transformers` or of a model of ours, or a name on the hub."""
    revision: str = ""
    """The commit, for a name on the hub."""
    device: Literal["cpu", "cuda"] = "cpu"
    num_cpus: int = 1
    """Threads of the model; on Ray also the processors that a task occupies."""

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.num_cpus < 1:
            raise ConfigError(
                f"batch_size={self.batch_size}, num_cpus={self.num_cpus}. Use 1 or more."
            )

    @property
    def source(self) -> ModelSource:
        """Return where the model comes from."""
        return ModelSource(self.model, self.revision)

    @property
    def resources(self) -> Resources:
        """Return its processors, and a GPU where it computes on one."""
        return Resources(num_cpus=self.num_cpus, num_gpus=1 if self.device == "cuda" else 0)

    def identity(self) -> dict[str, Json]:
        """Return what decides the result: of the model what it is, not where it lies."""
        identity = super().identity()
        del identity["revision"]
        return {**identity, "model": self.source.identity()}

    def embedder(self, modality: str, shown: Shown, **ways: Any) -> Any:
        """Return the function from a list of prepared arrays to unit vectors, float32 [N, D]."""
        # torch: whoever asks a model has time for it
        from mmcore.models.embedder import load_embedder

        return load_embedder(
            self.source,
            modality,
            shown,
            batch_size=self.batch_size,
            device=self.device,
            num_threads=self.num_cpus,
            **ways,
        )


@dataclass(frozen=True, kw_only=True)
class Embed(ModelStage):
    """Keep what a model makes of one modality: a unit vector, `<modality>_embedding.npy`."""

    modality: ClassVar[str]
    dtype: Literal["float16", "float32"] = "float16"
    keep: Literal["part", "print"] = "part"
    """A part of the sample, for readers of shards; or a print, for near duplicates to go by."""

    @property
    def shown(self) -> Shown:
        """Return how much of a sample the model is shown."""
        raise NotImplementedError

    def build(self) -> Worker:
        return _prepare(self.modality, self.source, self.shown)

    def build_batch(self) -> BatchWorker:
        embed = self.embedder(self.modality, self.shown)
        return _add(self.modality, embed, self.dtype, self.keep)


@dataclass(frozen=True, kw_only=True)
class EmbedImage(Embed):
    """Keep what a model makes of the picture: a unit vector, `image_embedding.npy`."""

    code_version = 2
    reads = ("image",)
    modality = "image"
    side: int = 224
    """In pixels, of the middle square; a model of ours knows its own."""
    mean: tuple[float, float, float] | None = None
    """Of RGB in 0..1, subtracted. None: as the model's preprocessor_config.json says, else 0.5."""
    std: tuple[float, float, float] | None = None

    @property
    def shown(self) -> Shown:
        return Shown(side=self.side)

    def build_batch(self) -> BatchWorker:
        embed = self.embedder(self.modality, self.shown, mean=self.mean, std=self.std)
        return _add(self.modality, embed, self.dtype, self.keep)


@dataclass(frozen=True, kw_only=True)
class EmbedText(Embed):
    """Keep what a model makes of the text: a unit vector, `text_embedding.npy`."""

    reads = ("text",)
    modality = "text"
    max_tokens: int = 64
    """Longer texts are cut; a model of ours knows its own."""

    @property
    def shown(self) -> Shown:
        return Shown(max_tokens=self.max_tokens)


@dataclass(frozen=True, kw_only=True)
class EmbedAudio(Embed):
    """Keep what a model makes of the sound: a unit vector, `audio_embedding.npy`."""

    reads = ("audio",)
    modality = "audio"
    max_seconds: float = 10.0
    """Longer sounds are cut, shorter ones padded with silence; a model of ours knows its own."""

    @property
    def shown(self) -> Shown:
        return Shown(max_seconds=self.max_seconds)


def _prepare(modality: str, source: ModelSource, shown: Shown) -> Worker:
    prepared = preparation(source, modality, shown)

    def prepare(sample: Sample) -> Outcome:
        if sample.extension(modality) is None:
            return sample
        return sample.with_part(prepared_as(f"{modality}.npy"), array_bytes(prepared(sample)))

    return prepare


def _add(modality: str, embed: Any, dtype: str, keep: str) -> BatchWorker:
    at = prepared_as(f"{modality}.npy")
    name = f"{modality}_embedding"

    def added(sample: Sample, vector: Array) -> Sample:
        if keep == "print":
            return with_vector_print(sample, name, vector)
        return sample.with_part(f"{name}.npy", array_bytes(vector))

    def add(samples: Sequence[Sample]) -> Sequence[Outcome]:
        arrays: list[Array] = [array_of(one.data(at)) for one in samples if at in one.parts]
        vectors = iter(embed(arrays).astype(dtype) if arrays else np.zeros((0, 0)))
        return [
            added(without_prepared(sample), next(vectors)) if at in sample.parts else sample
            for sample in samples
        ]

    return add
