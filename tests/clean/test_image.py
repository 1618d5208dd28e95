"""Cleaning of pictures: kept, dropped with a reason, broken, absent."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from mmcore.clean.image import (
    Blurred,
    DecodeImage,
    Flatness,
    MaxAspect,
    MaxMegapixels,
    MeasureImage,
    MinSide,
)
from mmcore.core.stage import Stage
from mmcore.errors import SampleError
from mmcore.sample import Dropped, Part, Quarantined, Sample

DECODING = [DecodeImage(), MeasureImage(), MinSide(), MaxAspect(), Flatness(), Blurred()]
STAGES = [*DECODING, MaxMegapixels()]


def picture(width: int, height: int, *, noise: int = 100) -> Sample:
    pixels = np.random.default_rng(0).integers(0, noise + 1, (height, width, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return Sample("a", parts={"txt": Part(data=b"A cat."), "png": Part(data=buffer.getvalue())})


@pytest.mark.parametrize("stage", STAGES)
def test_sample_without_a_picture_passes_through(stage: Stage) -> None:
    sample = Sample("a", parts={"txt": Part(data=b"A cat.")})
    assert stage.build()(sample) is sample


@pytest.mark.parametrize("stage", STAGES)
def test_empty_picture_is_quarantined(stage: Stage) -> None:
    with pytest.raises(SampleError) as caught:
        stage.build()(Sample("a", parts={"png": Part(data=b"")}))
    assert caught.value.reason == "image_format_refused"


@pytest.mark.parametrize("stage", DECODING)
def test_broken_picture_is_quarantined(stage: Stage) -> None:
    whole = picture(64, 64).data("png")
    with pytest.raises(SampleError) as caught:
        stage.build()(Sample("a", parts={"png": Part(data=whole[: len(whole) // 2])}))
    assert caught.value.reason == "image_undecodable"


@pytest.mark.parametrize("stage", STAGES)
def test_sound_picture_is_kept_with_its_bytes(stage: Stage) -> None:
    sample = picture(64, 48)
    outcome = stage.build()(sample)
    assert isinstance(outcome, Sample)
    assert outcome.parts == sample.parts


def test_svg_is_quarantined_as_refused() -> None:
    with pytest.raises(SampleError) as caught:
        DecodeImage().build()(Sample("a", parts={"svg": Part(data=b"<svg/>")}))
    assert caught.value.reason == "image_format_refused"


def test_size_is_stored() -> None:
    outcome = DecodeImage().build()(picture(64, 48))
    assert isinstance(outcome, Sample)
    scores = {"image_width": 64.0, "image_height": 48.0, "image_frames": 1.0}
    assert outcome.scores == scores


def test_picture_over_the_declared_limit_is_quarantined() -> None:
    assert isinstance(DecodeImage(max_pixels=64 * 48).build()(picture(64, 48)), Sample)
    with pytest.raises(SampleError) as caught:
        DecodeImage(max_pixels=64 * 48 - 1).build()(picture(64, 48))
    assert caught.value.reason == "image_over_limit"


def test_image_at_the_limit_is_kept() -> None:
    assert isinstance(MinSide(min_side=32).build()(picture(32, 100)), Sample)


def test_image_below_the_limit_is_dropped_with_value_and_limit() -> None:
    outcome = MinSide(min_side=32).build()(picture(100, 31))
    assert isinstance(outcome, Dropped)
    assert (outcome.reason, outcome.detail) == ("image_too_small", "31 px < 32 px")
    assert outcome.sample.scores == {"image_width": 100.0, "image_height": 31.0}


@pytest.mark.parametrize(("width", "height"), [(80, 40), (40, 80)])
def test_aspect_at_the_limit_is_kept(width: int, height: int) -> None:
    outcome = MaxAspect(max_aspect=2.0).build()(picture(width, height))
    assert isinstance(outcome, Sample)
    assert outcome.scores == {"image_aspect": 2.0}


@pytest.mark.parametrize(("width", "height"), [(81, 40), (40, 81)])
def test_elongated_picture_is_dropped(width: int, height: int) -> None:
    outcome = MaxAspect(max_aspect=2.0).build()(picture(width, height))
    assert isinstance(outcome, Dropped)
    assert outcome.reason == "image_too_elongated"
    assert "> 2" in outcome.detail


def test_flat_picture_is_dropped() -> None:
    outcome = Flatness(min_std=2.0).build()(picture(40, 40, noise=1))
    assert isinstance(outcome, Dropped)
    assert outcome.reason == "image_flat"
    assert outcome.sample.scores["image_std"] == pytest.approx(0.5, abs=0.02)


def test_picture_with_one_lively_channel_is_not_flat() -> None:
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:20, :, 2] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    outcome = Flatness().build()(Sample("a", parts={"png": Part(data=buffer.getvalue())}))
    assert isinstance(outcome, Sample)
    assert outcome.scores == {"image_std": 127.5}


def test_megapixels_are_told_by_the_header_of_a_file_that_is_cut() -> None:
    whole = picture(1000, 500).data("png")
    cut = Sample("a", parts={"png": Part(data=whole[:200])})
    assert isinstance(MaxMegapixels(max_megapixels=0.5).build()(cut), Sample)
    outcome = MaxMegapixels(max_megapixels=0.49).build()(cut)
    assert isinstance(outcome, Dropped)
    detail = "1000 x 500 px: 0.50 MP > 0.49 MP"
    assert (outcome.reason, outcome.detail) == ("image_too_large", detail)
    assert outcome.sample.scores == {"image_width": 1000.0, "image_height": 500.0}


def test_size_from_the_header_does_not_pass_for_a_decoded_picture() -> None:
    whole = picture(64, 64).data("png")
    sample = MaxMegapixels().build()(Sample("a", parts={"png": Part(data=whole[:200])}))
    assert isinstance(sample, Sample)
    with pytest.raises(SampleError):
        DecodeImage().build()(sample)


def animation(num_frames: int) -> Sample:
    frames = [Image.new("RGB", (40, 40), (20 * i, 0, 0)) for i in range(num_frames)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return Sample("a", parts={"gif": Part(data=buffer.getvalue())})


def test_first_frame_of_an_animation_is_the_picture() -> None:
    outcome = DecodeImage().build()(animation(3))
    assert isinstance(outcome, Sample)
    assert outcome.scores["image_frames"] == 3.0


def test_animation_is_dropped_when_asked() -> None:
    assert isinstance(DecodeImage(animated="refuse").build()(animation(1)), Sample)
    outcome = DecodeImage(animated="refuse").build()(animation(3))
    assert isinstance(outcome, Dropped)
    assert (outcome.reason, outcome.detail) == ("image_animated", "3 frames")
    assert outcome.sample.scores["image_width"] == 40.0


def half_and_half(blur: int) -> Sample:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, 32:] = 255
    if blur:
        pixels = cv2.GaussianBlur(pixels, (0, 0), blur)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return Sample("a", parts={"png": Part(data=buffer.getvalue())})


def sharpness(sample: Sample) -> float:
    outcome = Blurred().build()(sample)
    assert isinstance(outcome, Sample)
    return outcome.scores["image_sharpness"]


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    # next to the edge the kernel [1, -4, 1] gives 255 and -255, elsewhere 0
    assert sharpness(half_and_half(0)) == pytest.approx(2 * 255**2 / 64)


def test_sharpness_falls_with_blur_and_nothing_is_dropped_unless_asked() -> None:
    found = [sharpness(half_and_half(blur)) for blur in (0, 1, 2, 4)]
    assert found == sorted(found, reverse=True)


def test_picture_at_the_sharpness_is_kept_and_a_blurred_one_dropped() -> None:
    at = sharpness(half_and_half(2))
    assert isinstance(Blurred(min_sharpness=at).build()(half_and_half(2)), Sample)
    outcome = Blurred(min_sharpness=100).build()(half_and_half(4))
    assert isinstance(outcome, Dropped)
    assert outcome.reason == "image_blurred"
    assert outcome.detail.endswith("< 100")


def test_all_scores_come_from_one_decode_and_spare_the_stages_after() -> None:
    measured = MeasureImage().build()(picture(80, 40))
    assert isinstance(measured, Sample)
    assert set(measured.scores) == set(MeasureImage.stores)
    # nothing is there to be decoded any more
    bare = Sample("a", parts={"png": Part(data=b"gone")}, scores=measured.scores)
    for stage in STAGES:
        assert isinstance(stage.build()(bare), Sample)
    outcome = MaxAspect(max_aspect=1.9).build()(bare)
    assert isinstance(outcome, Dropped)


def test_measuring_gives_what_each_stage_gives_alone() -> None:
    measured = MeasureImage().build()(picture(80, 40))
    assert isinstance(measured, Sample)
    for stage in STAGES:
        alone = stage.build()(picture(80, 40))
        assert isinstance(alone, Sample)
        assert alone.scores.items() <= measured.scores.items()


def test_stored_size_is_held_against_a_lower_limit() -> None:
    measured = DecodeImage().build()(picture(80, 40))
    assert isinstance(measured, Sample)
    outcome = DecodeImage(max_pixels=3_199).build()(measured)
    assert isinstance(outcome, Quarantined)
    assert outcome.reason == "image_over_limit"
