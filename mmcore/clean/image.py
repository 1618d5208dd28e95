"""Stages that look at pictures. Samples without one pass through; see `RequireParts`."""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from mmcore.core.measured import Measured
from mmcore.media.animation import count_frames
from mmcore.media.image import (
    MAX_PIXELS,
    MAX_SIDE,
    decode_picture,
    image_size,
    over_limit,
    picture_of,
    share_picture,
)
from mmcore.media.resize import fit_within
from mmcore.sample import Dropped, Quarantined, Sample

_SIZE = ("image_width", "image_height")
# Sharpness depends on the scale; pictures of a camera are compared at one, and cost is bounded
_SHARPNESS_SIDE = 512
_FLATNESS_ROWS = 64


@dataclass(frozen=True, kw_only=True)
class DecodeImage(Measured):
    """Quarantine pictures that cannot be decoded; store image_width, image_height, image_frames.

    Of an animation, or of a file with pages, the first frame is the picture, or it is dropped as
    `image_animated`, as declared.
    """

    code_version = 2
    reads = ("image",)
    # image_frames is stored by nothing that has not decoded
    stores = (*_SIZE, "image_frames")
    limits = ("max_pixels", "max_side", "animated")
    guards = ("max_pixels", "max_side")
    max_pixels: int = MAX_PIXELS
    """Held against the header, before anything is decoded."""
    max_side: int = MAX_SIDE
    animated: Literal["first", "refuse"] = "first"

    def measure(self, sample: Sample) -> Sample:
        extension = sample.extension("image")
        assert extension is not None, f"{sample.key} has no image"
        data = sample.data(extension)
        picture = decode_picture(data, max_pixels=self.max_pixels, max_side=self.max_side)
        share_picture(sample, picture)
        return _with_size(sample).with_scores(image_frames=float(count_frames(data)))

    def decide(self, sample: Sample) -> Dropped | Quarantined | None:
        width, height = _size(sample)
        detail = over_limit(height, width, self.max_pixels, self.max_side)
        if detail is not None:
            return Quarantined(sample, "image_over_limit", detail)
        frames = int(sample.scores["image_frames"])
        if self.animated == "refuse" and frames > 1:
            return Dropped(sample, "image_animated", f"{frames} frames")
        return None


@dataclass(frozen=True, kw_only=True)
class MeasureImage(Measured):
    """Measure everything cheap about a picture from one decode; drop nothing.

    Stores image_width, image_height, image_frames, image_aspect, image_std and image_sharpness,
    so that the stages after it only compare.
    """

    code_version = 2
    reads = ("image",)
    stores = (*_SIZE, "image_frames", "image_aspect", "image_std", "image_sharpness")

    def measure(self, sample: Sample) -> Sample:
        for stage in (DecodeImage(), MaxAspect(), Flatness(), Blurred()):
            sample = sample if stage.is_measured(sample) else stage.measure(sample)
        return sample


@dataclass(frozen=True, kw_only=True)
class MaxMegapixels(Measured):
    """Drop pictures with more pixels than the training needs, before they are decoded.

    Stores the scores image_width and image_height, from the header where nothing was decoded.
    """

    reads = ("image",)
    stores = _SIZE
    limits = ("max_megapixels",)
    max_megapixels: float = 24.0

    def measure(self, sample: Sample) -> Sample:
        extension = sample.extension("image")
        assert extension is not None, f"{sample.key} has no image"
        width, height = image_size(sample.data(extension))
        return sample.with_scores(image_width=float(width), image_height=float(height))

    def decide(self, sample: Sample) -> Dropped | None:
        width, height = _size(sample)
        megapixels = width * height / 1e6
        if megapixels > self.max_megapixels:
            detail = f"{width} x {height} px: {megapixels:.2f} MP > {self.max_megapixels:g} MP"
            return Dropped(sample, "image_too_large", detail)
        return None


@dataclass(frozen=True, kw_only=True)
class MinSide(Measured):
    """Drop pictures too small to learn from; store the scores image_width, image_height."""

    reads = ("image",)
    stores = _SIZE
    limits = ("min_side",)
    min_side: int = 32
    """Of the shorter side, in pixels."""

    def measure(self, sample: Sample) -> Sample:
        return _with_size(sample)

    def decide(self, sample: Sample) -> Dropped | None:
        side = min(_size(sample))
        if side < self.min_side:
            return Dropped(sample, "image_too_small", f"{side} px < {self.min_side} px")
        return None


@dataclass(frozen=True, kw_only=True)
class MaxAspect(Measured):
    """Drop strips and banners; store the score image_aspect: longer side over shorter side."""

    code_version = 2
    reads = ("image",)
    stores = ("image_aspect",)
    limits = ("max_aspect",)
    max_aspect: float = 4.0

    def measure(self, sample: Sample) -> Sample:
        picture = picture_of(sample)
        longer, shorter = sorted((picture.width, picture.height), reverse=True)
        return sample.with_scores(image_aspect=longer / shorter)

    def decide(self, sample: Sample) -> Dropped | None:
        aspect = sample.scores["image_aspect"]
        if aspect > self.max_aspect:
            return Dropped(sample, "image_too_elongated", f"{aspect:.2f} > {self.max_aspect:g}")
        return None


@dataclass(frozen=True, kw_only=True)
class Flatness(Measured):
    """Drop pictures of nearly one colour; store the score image_std.

    The score is the largest standard deviation of the three channels, 0 to 127.5, at the size that
    `decode_picture` decodes at; of a tall picture some 64 of its rows stand for all.
    """

    code_version = 3
    reads = ("image",)
    stores = ("image_std",)
    limits = ("min_std",)
    min_std: float = 2.0

    def measure(self, sample: Sample) -> Sample:
        image = picture_of(sample).pixels
        _, deviation = cv2.meanStdDev(image[:: max(1, len(image) // _FLATNESS_ROWS)])
        return sample.with_scores(image_std=float(np.max(deviation)))

    def decide(self, sample: Sample) -> Dropped | None:
        std = sample.scores["image_std"]
        if std < self.min_std:
            return Dropped(sample, "image_flat", f"std {std:.2f} < {self.min_std:g}")
        return None


@dataclass(frozen=True, kw_only=True)
class Blurred(Measured):
    """Measure how sharp a picture is: the score image_sharpness, the variance of its Laplacian.

    Of the luma, 0 to 255, at no more than 512 pixels a side, to which a large JPEG comes by way of
    a half, a quarter or an eighth of its size. Pech-Pacheco et al., Diatom
    autofocusing in brightfield microscopy, ICPR 2000. A drawing of a few flat colours has few
    edges too: look at the scores of a corpus before a limit is set.
    """

    code_version = 2
    reads = ("image",)
    stores = ("image_sharpness",)
    limits = ("min_sharpness",)
    min_sharpness: float | None = None
    """None drops nothing: what is sharp depends on what the pictures show."""

    def measure(self, sample: Sample) -> Sample:
        pixels = picture_of(sample).pixels
        gray = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)
        luma = fit_within(gray, _SHARPNESS_SIDE)
        # 16 bits hold four times 255 either way; cv2.meanStdDev takes ten times as long as these
        edges = cv2.Laplacian(luma, cv2.CV_16S)
        mean = cv2.sumElems(edges)[0] / edges.size
        variance = cv2.norm(edges, cv2.NORM_L2SQR) / edges.size - mean**2
        return sample.with_scores(image_sharpness=max(0.0, float(variance)))

    def decide(self, sample: Sample) -> Dropped | None:
        sharpness = sample.scores["image_sharpness"]
        if self.min_sharpness is not None and sharpness < self.min_sharpness:
            detail = f"sharpness {sharpness:.1f} < {self.min_sharpness:g}"
            return Dropped(sample, "image_blurred", detail)
        return None


def _size(sample: Sample) -> tuple[int, int]:
    return int(sample.scores["image_width"]), int(sample.scores["image_height"])


def _with_size(sample: Sample) -> Sample:
    picture = picture_of(sample)
    return sample.with_scores(image_width=float(picture.width), image_height=float(picture.height))
