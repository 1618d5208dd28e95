"""What is measured of a part and what is decided by it, apart.

A stage of this kind measures a part once and stores the scores on the sample, kept or not; its
decision reads scores and metadata alone. So a limit can move without anything being decoded
again: scores that an earlier run stored are taken over (`memory.py`), and what other limits would
keep can be asked. A stage whose scores are there already (`measure_image`, ...) decodes nothing.

    @dataclass(frozen=True, kw_only=True)
    class MinSide(Measured):
        reads = ("image",)
        stores = ("image_width", "image_height")
        limits = ("min_side",)
        min_side: int = 32

        def measure(self, sample: Sample) -> Sample: ...
        def decide(self, sample: Sample) -> Dropped | None: ...
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from mmcore.core.stage import Stage, Worker
from mmcore.core.step import fingerprint_of
from mmcore.errors import SampleError
from mmcore.sample import Dropped, Outcome, Quarantined, Sample, modality_of

DROPPED_PARTS = "dropped_parts"
"""The metadata in which parts that were left out are named, with the reason."""
NUM_DROPPED_PARTS = "num_dropped_parts"

# What scores are called that say something of a part of the modality
_PREFIXES = {
    "image": ("image_",),
    "audio": ("audio_",),
    "video": ("video_",),
    "text": ("caption_", "language_"),
}
_OPTIONAL = ("", "optional")
FAILURE = "measuring_failed"
"""Under it, in the scratch of a part: the reason and the detail of a failure that is known."""


@dataclass(frozen=True, kw_only=True)
class Measured(Stage):
    """Measures the first part of one modality; samples without one pass through.

    What is measured follows from the bytes of that part and the fields that are no `limits`, and
    from nothing else. A score means the same whichever stage stores it.
    """

    rewrites = ()
    stores: ClassVar[tuple[str, ...]] = ()
    """The scores that `measure` adds. A sample that has them all is not measured again."""
    stores_meta: ClassVar[tuple[str, ...]] = ()
    """The metadata that `measure` adds, as text."""
    limits: ClassVar[tuple[str, ...]] = ()
    """The fields that change no score. Another value of theirs measures nothing anew; another value
    of any other field does."""
    guards: ClassVar[tuple[str, ...]] = ()
    """Those of the limits that `measure` holds too: what it refused under one value, it may measure
    under another."""

    def score_names(self) -> tuple[str, ...]:
        """Return `stores`; a stage whose fields change what is measured names other scores."""
        return self.stores

    def measure(self, sample: Sample) -> Sample:
        """Return the sample with its scores; SampleError where the part is broken."""
        raise NotImplementedError

    def decide(self, sample: Sample) -> Dropped | Quarantined | None:
        """Return why not to keep a sample that was measured, by its scores and metadata alone."""
        return None

    def is_measured(self, sample: Sample) -> bool:
        """Return whether every score is there."""
        has_scores = all(name in sample.scores for name in self.score_names())
        return has_scores and all(name in sample.meta for name in self.stores_meta)

    def measuring(self) -> str:
        """Return the identity of what is measured: that of the stage without its limits."""
        identity = self.identity()
        return fingerprint_of({name: identity[name] for name in identity.keys() - self.limits})[:16]

    def build(self) -> Worker:
        (modality,) = self.reads

        def check(sample: Sample) -> Outcome:
            while (extension := sample.extension(modality)) is not None:
                optional = is_optional(sample, modality)
                try:
                    measured = sample if self.is_measured(sample) else self._measured(sample)
                except SampleError as error:
                    if not optional:
                        raise
                    sample = without_bad_part(sample, extension, error.reason, error.detail)
                    continue
                refused = self.decide(measured)
                if refused is None or not optional:
                    return refused or measured
                sample = without_bad_part(measured, extension, refused.reason, refused.detail)
            return sample

        return check

    def _measured(self, sample: Sample) -> Sample:
        failed = sample.scratch.get((str(sample.extension(self.reads[0])), FAILURE))
        if failed is not None:
            raise SampleError(*failed)
        return self.measure(sample)


def declare_optional(sample: Sample, modalities: tuple[str, ...]) -> None:
    """Let the stages after this one leave out a bad part of these modalities, not the sample."""
    sample.scratch[_OPTIONAL] = list(modalities)


def is_optional(sample: Sample, modality: str) -> bool:
    """Return whether a sample may do without a modality, as `require_parts` declared."""
    return modality in sample.scratch.get(_OPTIONAL, ())


def without_bad_part(sample: Sample, extension: str, reason: str, detail: str = "") -> Sample:
    """Return a sample without a part, and with its name and the reason in `dropped_parts`.

    The scores of the part stay, so that the decision can be asked for, unless there is another
    part of the modality: they would be taken for its own.
    """
    before = sample.meta.get(DROPPED_PARTS)
    named = dict(before) if isinstance(before, Mapping) else {}
    named[extension] = f"{reason}: {detail}" if detail else reason
    sample = sample.without_part(extension).with_meta(**{DROPPED_PARTS: named})
    modality = modality_of(extension)
    if modality is not None and sample.extension(modality) is not None:
        sample = without_scores(sample, modality)
    return sample.with_scores(**{NUM_DROPPED_PARTS: float(len(named))})


def without_scores(sample: Sample, modality: str) -> Sample:
    """Return a sample without what was measured of a modality, for a part that has changed."""
    prefixes = _PREFIXES[modality]
    scores = {name: value for name, value in sample.scores.items() if not name.startswith(prefixes)}
    return Sample(sample.key, sample.parts, sample.meta, scores, sample.scratch)
