"""Cleaning of pictures: kept, dropped with a reason, broken, absent."""

import io

import numpy as np
import pytest
from PIL import Image

from mmcore.clean.image import DecodeImage, Flatness, MaxAspect, MinSide
from mmcore.core.stage import Stage
from mmcore.errors import SampleError
from mmcore.sample import Dropped, Part, Sample

STAGES = [DecodeImage(), MinSide(), MaxAspect(), Flatness()]


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
    assert outcome.scores == {"image_width": 64.0, "image_height": 48.0}


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
