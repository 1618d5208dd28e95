"""All captions of a sample at once, for stages that change them."""

from mmcore.core.measured import is_optional, without_bad_part, without_scores
from mmcore.errors import SampleError
from mmcore.media.text import decode_text
from mmcore.sample import Sample, modality_of


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
