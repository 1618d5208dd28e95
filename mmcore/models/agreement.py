"""How well the parts of a sample fit each other, as a model sees it: a score, and a limit on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mmcore.core.stage import BatchWorker, Worker, prepared_as, without_prepared
from mmcore.media.array import array_bytes, array_of
from mmcore.models.embed import ModelStage
from mmcore.models.source import Shown, preparation
from mmcore.sample import Dropped, Outcome, Sample

_DIGITS = 4
"""Of a score: what differs beyond is rounding of one machine or another."""


@dataclass(frozen=True, kw_only=True)
class Agreement(ModelStage):
    """Score the cosine of the embeddings of two parts; drop below a limit, where one is given."""

    pair: ClassVar[tuple[str, str]]
    min_agreement: float | None = None
    """None measures and drops nothing."""
    max_tokens: int = 64

    @property
    def score(self) -> str:
        """Return the name of the score."""
        return f"{self.pair[0]}_{self.pair[1]}_agreement"

    def shown(self) -> Shown:
        """Return how samples are shown to the model."""
        return Shown(max_tokens=self.max_tokens)

    def build(self) -> Worker:
        prepared = {name: preparation(self.source, name, self.shown()) for name in self.pair}

        def prepare(sample: Sample) -> Outcome:
            if any(sample.extension(name) is None for name in self.pair):
                return sample
            made = sample
            for name, array_from in prepared.items():
                made = made.with_part(prepared_as(f"{name}.npy"), array_bytes(array_from(sample)))
            return made

        return prepare

    def build_batch(self) -> BatchWorker:
        embedders = {name: self.embedder(name, self.shown()) for name in self.pair}

        def score(samples: Sequence[Sample]) -> Sequence[Outcome]:
            pairs = [one for one in samples if prepared_as(f"{self.pair[0]}.npy") in one.parts]
            if not pairs:
                return samples
            first, second = (
                embed([array_of(one.data(prepared_as(f"{name}.npy"))) for one in pairs])
                for name, embed in embedders.items()
            )
            found = dict(zip((one.key for one in pairs), (first * second).sum(axis=1), strict=True))
            return [
                self._decided(one, round(float(found[one.key]), _DIGITS))
                if one.key in found
                else one
                for one in samples
            ]

        return score

    def _decided(self, sample: Sample, agreement: float) -> Outcome:
        sample = without_prepared(sample).with_scores(**{self.score: agreement})
        if self.min_agreement is None or agreement >= self.min_agreement:
            return sample
        detail = f"{agreement:.4f} < {self.min_agreement:g}"
        return Dropped(sample, f"{self.pair[0]}_{self.pair[1]}_disagree", detail)


@dataclass(frozen=True, kw_only=True)
class ImageTextAgreement(Agreement):
    """Score how well picture and text fit: image_text_agreement, as CLIP does, -1 to 1.

    Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021.
    """

    code_version = 2
    reads = ("image", "text")
    pair = ("image", "text")
    side: int = 224

    def shown(self) -> Shown:
        """Return how samples are shown to the model."""
        return Shown(side=self.side, max_tokens=self.max_tokens)


@dataclass(frozen=True, kw_only=True)
class AudioTextAgreement(Agreement):
    """Score how well sound and text fit: audio_text_agreement, as CLAP does, -1 to 1.

    Elizalde et al., CLAP: Learning Audio Concepts From Natural Language Supervision, ICASSP 2023.
    """

    reads = ("audio", "text")
    pair = ("audio", "text")
    max_seconds: float = 10.0

    def shown(self) -> Shown:
        """Return how samples are shown to the model."""
        return Shown(max_seconds=self.max_seconds, max_tokens=self.max_tokens)
