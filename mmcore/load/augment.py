"""Changes of pictures, sounds and texts that keep their meaning, drawn anew for each visit."""

import hashlib
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar

import cv2
import numpy as np

from mmcore.errors import ConfigError

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Frames = np.ndarray[Any, np.dtype[np.float32]]
Ids = np.ndarray[Any, np.dtype[np.int64]]
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
    crop: float = 0.0
    """Cuts away up to this share of the area, and makes what is left as large as before."""
    noise: float = 0.0
    """Adds the noise of a camera, with a deviation of up to so many of 255 levels."""

    def __post_init__(self) -> None:
        _check_probabilities(self, "image", ("flip", "swap_channels", "grey", "erase"))
        if not 0 <= self.crop < 1:
            raise ConfigError(
                f"loader.image_augment.crop={self.crop} leaves nothing. Use 0 to less than 1."
            )

    @cached_property
    def changes_anything(self) -> bool:
        """Whether a picture may come out other than it went in."""
        return any(asdict(self).values())


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
    noise: float = 0.0
    """The probability of white noise in the background."""
    min_snr_db: float = 10.0
    """How loud that noise may be: so far the sound stays above it. At least, and at most."""
    max_snr_db: float = 30.0

    def __post_init__(self) -> None:
        _check_probabilities(self, "audio", ("noise",))
        if self.min_snr_db > self.max_snr_db:
            raise ConfigError(
                f"loader.audio_augment.min_snr_db={self.min_snr_db} is more than "
                f"max_snr_db={self.max_snr_db}. Exchange them."
            )

    @cached_property
    def changes_anything(self) -> bool:
        """Whether a sound may come out other than it went in."""
        return bool(self.speed or self.max_band_shift or self.num_masks or self.noise)


@dataclass(frozen=True, kw_only=True)
class TextAugment:
    """How much of a text may be missing. Zeros leave it as it is."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    token_dropout: float = 0.0
    """The probability of each token to be left out; the first and the last always stay."""

    def __post_init__(self) -> None:
        _check_probabilities(self, "text", ("token_dropout",))

    @property
    def changes_anything(self) -> bool:
        """Whether a text may come out other than it went in."""
        return self.token_dropout > 0


def generator(*, seed: int, epoch: int, key: str, modality: str = "") -> np.random.Generator:
    """Return the generator of one sample in one epoch, whoever reads it, and in whatever order.

    Each modality has its own: what happens to a picture depends on no sound.
    """
    digest = hashlib.sha256(f"{seed}/{epoch}/{key}/{modality}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def _check_probabilities(config: object, modality: str, names: tuple[str, ...]) -> None:
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise ConfigError(
                f"loader.{modality}_augment.{name}={getattr(config, name)} is a probability. "
                "Use 0 to 1."
            )


def augment_image(image: Pixels, config: ImageAugment, draw: np.random.Generator) -> Pixels:
    """Return a moved, recoloured and partly hidden copy of a picture [H, W, 3]."""
    side = image.shape[0]
    if config.crop:
        image = _cropped(image, config.crop, draw)
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
    if config.noise:
        grain = draw.standard_normal(moved.shape, np.float32) * draw.uniform(0, config.noise)
        moved = np.clip(np.rint(moved + grain), 0, 255).astype(np.uint8)
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
    if config.noise and draw.random() < config.noise:
        mel = _with_noise(mel, draw.uniform(config.min_snr_db, config.max_snr_db), draw)
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


def augment_text(ids: Ids, config: TextAugment, draw: np.random.Generator) -> Ids:
    """Return the ids without some of them, the first and the last kept: [CLS] and [SEP]."""
    stays = draw.random(len(ids)) >= config.token_dropout
    stays[:1] = stays[-1:] = True
    return ids[stays]


def _cropped(image: Pixels, share: float, draw: np.random.Generator) -> Pixels:
    height, width = image.shape[:2]
    side = np.sqrt(1 - draw.uniform(0, share))
    rows, columns = max(1, round(height * side)), max(1, round(width * side))
    top = int(draw.integers(0, height - rows + 1))
    left = int(draw.integers(0, width - columns + 1))
    cut = image[top : top + rows, left : left + columns]
    larger: Pixels = cv2.resize(cut, (width, height), interpolation=cv2.INTER_LINEAR)
    return larger


def _with_noise(mel: Frames, snr_db: float, draw: np.random.Generator) -> Frames:
    """Add white noise to log power.

    The bands have equal areas over Hz, so that white noise has the same mean power in all of them;
    in each it is spread as the periodogram of noise is, exponentially.
    """
    power = np.exp(mel.astype(np.float64))
    level = power.mean() * 10 ** (-snr_db / 10)
    noisy: Frames = np.log(power + level * draw.exponential(size=mel.shape)).astype(np.float32)
    return noisy


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
