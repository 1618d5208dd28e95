import numpy as np
import pytest

from mmcore.errors import ConfigError
from mmcore.load.augment import (
    AudioAugment,
    ImageAugment,
    augment_image,
    augment_mel,
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


def test_a_probability_above_one_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"flip=50 is a probability"):
        ImageAugment(flip=50)
