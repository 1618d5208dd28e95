import base64

import numpy as np
import pytest

from mmcore.dedup.sign import SignAudio, SignImage, SignText, SignVideo
from mmcore.errors import ConfigError, SampleError
from mmcore.ingest import scenes, tones
from mmcore.media.near.prints import PRINT_BYTES, print_of
from mmcore.sample import Part, Sample

SCENE = scenes.Scene(shape="star", colour="yellow", size="large", field="teal")


def full_sample() -> Sample:
    rng = np.random.default_rng(0)
    sound = np.concatenate(
        [tones.play(SCENE, rng), tones.play(SCENE, rng) ** 3, tones.play(SCENE, rng)]
    )
    data = {
        "png": scenes.to_png(scenes.draw(SCENE, rng)),
        "txt": b"a yellow star",
        "wav": tones.encoded(sound, "wav"),
        "mp4": scenes.film(SCENE, rng),
    }
    return Sample("a", {extension: Part(data=value) for extension, value in data.items()})


STAGES = {"image": SignImage(), "text": SignText(), "audio": SignAudio(), "video": SignVideo()}


@pytest.mark.parametrize("modality", STAGES)
def test_print_of_a_modality_is_stored_in_few_bytes(modality: str) -> None:
    stage = STAGES[modality]
    assert stage.reads == (modality,)
    signed = stage.build()(full_sample())
    assert isinstance(signed, Sample)
    value = signed.meta[f"print_{modality}"]
    assert len(base64.b64decode(str(value))) == PRINT_BYTES[modality] <= 300
    assert len(print_of(signed, modality) or b"") == PRINT_BYTES[modality]
    again = stage.build()(full_sample())
    assert isinstance(again, Sample)
    assert again.meta == signed.meta


@pytest.mark.parametrize("modality", STAGES)
def test_sample_without_the_modality_is_as_it_was(modality: str) -> None:
    sample = Sample("a", meta={"label": "x"})
    assert STAGES[modality].build()(sample) == sample


@pytest.mark.parametrize(
    ("modality", "extension", "data"),
    [
        ("image", "png", scenes.to_png(np.full((9, 9, 3), 7, np.uint8))),
        ("text", "txt", b" ...\n"),
        ("audio", "wav", tones.encoded(np.zeros(4000), "wav")),
    ],
)
def test_what_holds_nothing_gets_an_empty_print(modality: str, extension: str, data: bytes) -> None:
    signed = STAGES[modality].build()(Sample("a", {extension: Part(data=data)}))
    assert isinstance(signed, Sample)
    assert signed.meta == {f"print_{modality}": ""}
    assert print_of(signed, modality) is None


@pytest.mark.parametrize(
    ("modality", "extension"),
    [("image", "png"), ("text", "txt"), ("audio", "wav"), ("video", "mp4")],
)
def test_broken_bytes_are_quarantined(modality: str, extension: str) -> None:
    with pytest.raises(SampleError):
        STAGES[modality].build()(Sample("a", {extension: Part(data=b"\xff\xfe\x00broken")}))


def test_the_number_of_pixels_is_a_score() -> None:
    signed = SignImage().build()(full_sample())
    assert isinstance(signed, Sample)
    assert signed.scores == {"image_pixels": 96.0 * 96.0}


def test_runs_of_no_words_are_a_config_error() -> None:
    with pytest.raises(ConfigError, match="shingle_words=0"):
        SignText(shingle_words=0)
