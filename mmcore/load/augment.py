"""Changes of pictures and sounds that keep their meaning, drawn anew for every sample and epoch."""

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np

from mmcore.errors import ConfigError

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Frames = np.ndarray[Any, np.dtype[np.float32]]
_WHITE = (255, 255, 255)
_GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


@dataclass(frozen=True, kw_only=True)
class ImageAugment:
    """How far pictures may move. Zeros leave them as they are."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    max_degrees: float = 20.0
    scale: float = 0.3
    """Grows or shrinks by up to this share."""
    stretch: float = 0.18
    """Of one side against the other."""
    shift: float = 0.1
    """Of the side."""
    flip: float = 0.5
    """The probability of a mirror image."""
    colour: float = 0.3
    """How far contrast, saturation and the strength of each channel may move."""
    swap_channels: float = 0.15
    """The probability that red, green and blue change places."""
    grey: float = 0.1
    """The probability of losing the colours."""
    erase: float = 0.5
    """The probability of a random rectangle of one colour (Zhong et al., AAAI 2020)."""

    def __post_init__(self) -> None:
        for name in ("flip", "swap_channels", "grey", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(
                    f"augment.image.{name}={getattr(self, name)} is a probability. Use 0 to 1."
                )


@dataclass(frozen=True, kw_only=True)
class AudioAugment:
    """How far spectrograms may move. Zeros leave them as they are."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    speed: float = 0.15
    """Faster or slower by up to this share."""
    max_band_shift: int = 3
    """Up or down, in mel bands: another voice."""
    num_masks: int = 2
    """Stretches of time, and of frequency, that are hidden (Park et al., SpecAugment, 2019)."""
    max_mask_bands: int = 10
    max_mask_time: float = 0.16
    """Of the length of the recording."""


def generator(*, seed: int, epoch: int, key: str) -> np.random.Generator:
    """Return the generator of one sample in one epoch, whoever reads it, and in whatever order."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{key}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def augment_image(image: Pixels, config: ImageAugment, draw: np.random.Generator) -> Pixels:
    """Return a moved, recoloured and partly hidden copy of a picture [H, W, 3]."""
    side = image.shape[0]
    moved: Pixels = cv2.warpAffine(
        image,
        _affine(image.shape[1], side, config, draw),
        (image.shape[1], side),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=_WHITE,
    )
    if config.colour or config.swap_channels or config.grey:
        moved = cv2.transform(moved, _colour(config, draw))
    if draw.random() < config.erase:
        height, width = draw.integers(side // 8, max(side // 8 + 1, side * 2 // 5), 2)
        top, left = draw.integers(0, side - height), draw.integers(0, image.shape[1] - width)
        moved[top : top + height, left : left + width] = draw.integers(0, 256, 3)
    return moved


def augment_mel(mel: Frames, config: AudioAugment, draw: np.random.Generator) -> Frames:
    """Return a stretched, shifted and partly hidden copy of a log-mel spectrogram [T, M]."""
    num_frames, num_mels = mel.shape
    length = max(1, round(num_frames * draw.uniform(1 - config.speed, 1 + config.speed)))
    mel = cv2.resize(mel, (num_mels, length), interpolation=cv2.INTER_LINEAR)
    shift = int(draw.integers(-config.max_band_shift, config.max_band_shift + 1))
    if shift:
        # the edge band is repeated, as if the recording went on below or above it
        mel = mel[:, np.clip(np.arange(num_mels) - shift, 0, num_mels - 1)]
    # hidden frames hold what an average frame holds: nothing to be learnt from
    mean = mel.mean(axis=0)
    for _ in range(config.num_masks):
        width = int(draw.integers(0, min(config.max_mask_bands, num_mels - 1) + 1))
        first = int(draw.integers(0, num_mels - width))
        mel[:, first : first + width] = mean[first : first + width]
        width = int(draw.integers(0, int(length * config.max_mask_time) + 1))
        first = int(draw.integers(0, length - width + 1))
        mel[first : first + width] = mean
    return mel


def _affine(
    width: int, height: int, config: ImageAugment, draw: np.random.Generator
) -> np.ndarray[Any, np.dtype[np.float64]]:
    angle = np.deg2rad(draw.uniform(-config.max_degrees, config.max_degrees))
    scale = draw.uniform(1 - config.scale, 1 + config.scale)
    stretch = draw.uniform(1 - config.stretch, 1 + config.stretch)
    mirror = -1.0 if draw.random() < config.flip else 1.0
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]])
    linear = turn @ np.diag([mirror * scale * stretch, scale / stretch])
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    move = draw.uniform(-config.shift, config.shift, 2) * (width, height)
    return np.column_stack([linear, centre - linear @ centre + move])


def _colour(
    config: ImageAugment, draw: np.random.Generator
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the 3x4 matrix of a change of colours that leaves white nearly white."""
    amount = config.colour
    contrast = draw.uniform(1 - amount, 1 + amount)
    saturation = draw.uniform(1 - 2 * amount, 1 + 2 * amount)
    gains = draw.uniform(1 - amount / 2, 1 + amount / 3, 3)
    grey = np.broadcast_to(_GREY, (3, 3))
    is_grey = draw.random() < config.grey
    matrix = grey + (0.0 if is_grey else saturation) * (np.eye(3) - grey)
    if draw.random() < config.swap_channels:
        matrix = matrix[draw.permutation(3)]
    linear = contrast * matrix
    offset = 255 * (1 - linear.sum(axis=1))
    mixed: np.ndarray[Any, np.dtype[np.float64]] = gains[:, None] * np.column_stack(
        [linear, offset]
    )
    return mixed
