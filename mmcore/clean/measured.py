"""What is measured of a part and what is decided by it, apart.

A stage of this kind measures a part once and stores the scores on the sample, kept or not; its
decision reads scores and metadata alone. So a limit can move without anything being decoded
again (`whatif.py`), and a stage whose scores are there already (`measure_image`, `measure_audio`,
...) decodes nothing.

    @dataclass(frozen=True, kw_only=True)
    class MinSide(Measured):
        reads = ("image",)
        stores = ("image_width", "image_height")
        min_side: int = 32

        def measure(self, sample: Sample) -> Sample: ...
        def decide(self, sample: Sample) -> Dropped | None: ...
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from mmcore.core.stage import Stage, Worker
from mmcore.errors import SampleError
from mmcore.media.text import decode_text
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


@dataclass(frozen=True, kw_only=True)
class Measured(Stage):
    """Measures the first part of one modality; samples without one pass through."""

    stores: ClassVar[tuple[str, ...]] = ()
    """The scores that `measure` adds. A sample that has them all is not measured again."""

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
        return all(name in sample.scores for name in self.score_names())

    def build(self) -> Worker:
        (modality,) = self.reads

        def check(sample: Sample) -> Outcome:
            while (extension := sample.extension(modality)) is not None:
                optional = is_optional(sample, modality)
                try:
                    measured = sample if self.is_measured(sample) else self.measure(sample)
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


def declare_optional(sample: Sample, modalities: tuple[str, ...]) -> None:
    """Let the stages after this one leave out a bad part of these modalities, not the sample."""
    sample.scratch[_OPTIONAL] = frozenset(modalities)


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


def captions_of(sample: Sample) -> tuple[Sample, dict[str, str]]:
    """Return the texts of a sample, by extension in sorted order, for stages that change them all.

    And the sample: without captions that do not decode where it may do without, else SampleError.
    """
    texts = {}
    for extension in sorted(sample.parts):
        if modality_of(extension) == "text":
            try:
                texts[extension] = decode_text(sample.data(extension))
            except SampleError as error:
                if not is_optional(sample, "text"):
                    raise
                sample = without_bad_part(sample, extension, error.reason, error.detail)
    return sample, texts


def with_caption(sample: Sample, extension: str, text: str) -> Sample:
    """Return the sample with a text; where it differs, without what was measured of the old one."""
    data = text.encode()
    if data == sample.data(extension):
        return sample
    return without_scores(sample.with_part(extension, data), "text")


def without_scores(sample: Sample, modality: str) -> Sample:
    """Return a sample without what was measured of a modality, for a part that has changed."""
    prefixes = _PREFIXES[modality]
    scores = {name: value for name, value in sample.scores.items() if not name.startswith(prefixes)}
    return replace(sample, scores=scores)
