from dataclasses import replace

import numpy as np
import pytest

from mmcore.errors import ConfigError
from mmcore.load.augment import (
    AudioAugment,
    ImageAugment,
    TextAugment,
    augment_image,
    augment_mel,
    augment_text,
    generator,
)

STILL_IMAGE = ImageAugment(
    max_degrees=0, scale=0, stretch=0, shift=0, flip=0, colour=0, swap_channels=0, grey=0, erase=0
)
STILL_AUDIO = AudioAugment(speed=0, max_band_shift=0, num_masks=0)


def picture() -> np.ndarray:
    ramp = np.arange(24 * 24 * 3) % 251
    return ramp.reshape(24, 24, 3).astype(np.uint8)


def spectrogram() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32)


def draw(seed: int = 0, epoch: int = 0, key: str = "a") -> np.random.Generator:
    return generator(seed=seed, epoch=epoch, key=key)


def test_a_sample_is_augmented_alike_whoever_reads_it() -> None:
    first = augment_image(picture(), ImageAugment(), draw())
    again = augment_image(picture(), ImageAugment(), draw())
    assert (first == again).all()
    assert (
        augment_mel(spectrogram(), AudioAugment(), draw())
        == augment_mel(spectrogram(), AudioAugment(), draw())
    ).all()


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 1}, {"key": "b"}])
def test_seed_epoch_and_key_each_change_the_augmentation(other: dict[str, object]) -> None:
    first = augment_image(picture(), ImageAugment(), draw())
    second = augment_image(picture(), ImageAugment(), draw(**other))  # type: ignore[arg-type]
    assert (first != second).any()


def test_zeros_leave_a_picture_as_it_is() -> None:
    assert (augment_image(picture(), STILL_IMAGE, draw()) == picture()).all()


def test_zeros_leave_a_spectrogram_as_it_is() -> None:
    assert (augment_mel(spectrogram(), STILL_AUDIO, draw()) == spectrogram()).all()


def test_the_original_is_never_changed() -> None:
    image, mel = picture(), spectrogram()
    for epoch in range(20):
        augment_image(image, ImageAugment(), draw(epoch=epoch))
        augment_mel(mel, AudioAugment(speed=0), draw(epoch=epoch))
    assert (image == picture()).all()
    assert (mel == spectrogram()).all()


def test_a_white_page_stays_almost_white_when_colours_change() -> None:
    white = np.full((24, 24, 3), 255, np.uint8)
    coloured = ImageAugment(erase=0, colour=0.3)
    darkest = min(augment_image(white, coloured, draw(epoch=e)).min() for e in range(50))
    assert 200 < darkest < 255


def test_a_flip_is_the_mirror_image() -> None:
    flipped = ImageAugment(
        max_degrees=0,
        scale=0,
        stretch=0,
        shift=0,
        flip=1,
        colour=0,
        swap_channels=0,
        grey=0,
        erase=0,
    )
    assert (augment_image(picture(), flipped, draw()) == picture()[:, ::-1]).all()


def test_speed_changes_the_length_within_its_limits() -> None:
    config = AudioAugment(speed=0.25, max_band_shift=0, num_masks=0)
    lengths = {len(augment_mel(spectrogram(), config, draw(epoch=e))) for e in range(100)}
    assert min(lengths) >= 30
    assert max(lengths) <= 50
    assert len(lengths) > 10


def test_one_frame_survives() -> None:
    one = spectrogram()[:1]
    for epoch in range(20):
        assert augment_mel(one, AudioAugment(), draw(epoch=epoch)).shape == (1, 16)


def test_each_modality_draws_for_itself() -> None:
    numbers = [
        generator(seed=0, epoch=0, key="a", modality=name).random() for name in ("image", "audio")
    ]
    assert numbers[0] != numbers[1]


def test_a_crop_shows_a_part_as_large_as_the_whole() -> None:
    ramp = np.repeat(np.arange(100, dtype=np.uint8)[:, None, None], 100, axis=1).repeat(3, axis=2)
    for epoch in range(20):
        config = replace(STILL_IMAGE, crop=0.75)
        found = augment_image(ramp, config, draw(epoch=epoch))
        assert found.shape == ramp.shape
        # half a side at least: a quarter of the area
        shown = int(found.max()) - int(found.min())
        assert 47 <= shown <= 99
    assert shown < 99


def test_noise_has_the_strength_that_was_asked_for() -> None:
    grey = np.full((64, 64, 3), 128, np.uint8)
    config = replace(STILL_IMAGE, noise=20.0)
    deviations = [augment_image(grey, config, draw(epoch=e)).std() for e in range(40)]
    assert max(deviations) < 21
    assert 8 < np.mean(deviations) < 12


def test_background_noise_is_as_far_below_the_sound_as_was_asked_for() -> None:
    mel = np.full((200, 64), 3.0, np.float32)
    config = replace(STILL_AUDIO, noise=1.0, min_snr_db=10.0, max_snr_db=10.0)
    noise = np.exp(augment_mel(mel, config, draw()).astype(np.float64)) - np.exp(3.0)
    assert noise.min() >= -1e-3
    assert abs(10 * np.log10(np.exp(3.0) / noise.mean()) - 10) < 0.2


def test_tokens_are_left_out_but_never_the_first_and_the_last() -> None:
    ids = np.arange(2, 42)
    lengths = []
    for epoch in range(50):
        found = augment_text(ids, TextAugment(token_dropout=0.25), draw(epoch=epoch))
        assert (found[0], found[-1]) == (2, 41)
        assert set(found) <= set(ids)
        assert list(found) == sorted(found)
        lengths.append(len(found))
    assert 29 < np.mean(lengths) < 33
    assert list(augment_text(ids[:1], TextAugment(token_dropout=1.0), draw())) == [2]


def test_what_changes_nothing_says_so() -> None:
    assert not STILL_IMAGE.changes_anything
    assert not STILL_AUDIO.changes_anything
    assert not TextAugment().changes_anything
    assert ImageAugment().changes_anything
    assert AudioAugment().changes_anything
    assert replace(STILL_IMAGE, noise=1.0).changes_anything
    assert replace(STILL_AUDIO, noise=0.5).changes_anything
    assert TextAugment(token_dropout=0.1).changes_anything


@pytest.mark.parametrize("crop", [1.0, -0.1])
def test_a_crop_that_leaves_nothing_is_refused(crop: float) -> None:
    with pytest.raises(ConfigError, match="leaves nothing"):
        ImageAugment(crop=crop)


def test_a_probability_above_one_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"flip=50 is a probability"):
        ImageAugment(flip=50)
