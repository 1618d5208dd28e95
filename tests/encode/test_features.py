"""Features of sound and text as parts."""

import io

import numpy as np
import pytest
import soundfile

from mmcore.core.stage import Stage
from mmcore.encode.features import AudioFeatures, BagOfWords, bucket_of, words
from mmcore.errors import ConfigError, SampleError
from mmcore.media.array import array_of
from mmcore.sample import Part, Sample


def sound(seconds: float = 1.0, rate_hz: int = 22_050) -> Sample:
    times = np.arange(round(seconds * rate_hz)) / rate_hz
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.5 * np.sin(2 * np.pi * 440 * times), rate_hz, format="WAV")
    return Sample("a", {"wav": Part(data=buffer.getvalue())})


def encoded(stage: Stage, sample: Sample) -> Sample:
    outcome = stage.build()(sample)
    assert isinstance(outcome, Sample)
    return outcome


@pytest.mark.parametrize(("kind", "width"), [("log_mel", 64), ("mfcc", 20), ("spectrogram", 201)])
def test_features_of_sound_are_an_array_beside_it(kind: str, width: int) -> None:
    outcome = encoded(AudioFeatures(kind=kind), sound())  # type: ignore[arg-type]
    assert sorted(outcome.parts) == sorted(["wav", f"{kind}.npy"])
    array = array_of(outcome.data(f"{kind}.npy"))
    assert (array.dtype, array.shape) == (np.float32, (101, width))
    assert np.isfinite(array).all()


def test_features_are_stored_in_half_precision_where_that_is_asked_for() -> None:
    outcome = encoded(AudioFeatures(dtype="float16", max_seconds=0.5), sound())
    array = array_of(outcome.data("log_mel.npy"))
    assert (array.dtype, array.shape) == (np.float16, (51, 64))


def test_equal_sounds_give_equal_bytes() -> None:
    stage = AudioFeatures(kind="mfcc")
    assert encoded(stage, sound()).parts == encoded(stage, sound()).parts


def test_broken_sound_is_quarantined_and_a_sample_without_is_left_alone() -> None:
    with pytest.raises(SampleError):
        AudioFeatures().build()(Sample("a", {"wav": Part(data=b"RIFF")}))
    sample = Sample("a", {"txt": Part(data=b"x")})
    assert encoded(AudioFeatures(), sample) is sample


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"hop_seconds=0. Use more"):
        AudioFeatures(hop_seconds=0)
    with pytest.raises(ConfigError, match="Use 1 to num_mels = 64"):
        AudioFeatures(num_coefficients=65)
    with pytest.raises(ConfigError, match="num_buckets=0"):
        BagOfWords(num_buckets=0)


def test_words_are_counted_without_case_and_form() -> None:
    text = "Two birds, two B\uff49rds; \u00c9t\u00e9 e\u0301TE\u0301".encode()
    outcome = encoded(BagOfWords(num_buckets=512), Sample("a", {"txt": Part(data=text)}))
    counts = array_of(outcome.data("bow.npy"))
    assert (counts.dtype, counts.shape, counts.sum()) == (np.uint16, (512,), 6)
    for word in ("two", "birds", "\u00e9t\u00e9"):
        assert counts[bucket_of(word, 512)] == 2
    assert words("") == []


def test_the_place_of_a_word_never_changes() -> None:
    assert [bucket_of(word, 4096) for word in ("bird", "\u00e9t\u00e9")] == [3518, 444]


def test_a_word_repeated_without_end_does_not_overflow() -> None:
    sample = Sample("a", {"txt": Part(data=b"la " * 70_000)})
    counts = array_of(encoded(BagOfWords(num_buckets=8), sample).data("bow.npy"))
    assert counts.max() == 65_535
    assert np.count_nonzero(counts) == 1
