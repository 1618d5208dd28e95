"""Stages that look at pictures. Samples without one pass through; see `RequireParts`."""

from dataclasses import dataclass

import cv2
import numpy as np

from mmcore.core.stage import Stage, Worker
from mmcore.media.image import MAX_PIXELS, MAX_SIDE, decode_image, image_of, share_image
from mmcore.sample import Dropped, Outcome, Sample


@dataclass(frozen=True, kw_only=True)
class DecodeImage(Stage):
    """Quarantine pictures that cannot be decoded; store the scores image_width, image_height."""

    reads = ("image",)
    max_pixels: int = MAX_PIXELS
    """Held against the header, before anything is decoded."""
    max_side: int = MAX_SIDE

    def build(self) -> Worker:
        def check(sample: Sample) -> Outcome:
            extension = sample.extension("image")
            if extension is None:
                return sample
            data = sample.data(extension)
            image = decode_image(data, max_pixels=self.max_pixels, max_side=self.max_side)
            share_image(sample, image)
            return _with_size(sample)

        return check


@dataclass(frozen=True, kw_only=True)
class MinSide(Stage):
    """Drop pictures too small to learn from; store the scores image_width, image_height."""

    reads = ("image",)
    min_side: int = 32
    """Of the shorter side, in pixels."""

    def build(self) -> Worker:
        def check(sample: Sample) -> Outcome:
            if sample.extension("image") is None:
                return sample
            sample = _with_size(sample)
            side = int(min(sample.scores["image_width"], sample.scores["image_height"]))
            if side < self.min_side:
                return Dropped(sample, "image_too_small", f"{side} px < {self.min_side} px")
            return sample

        return check


@dataclass(frozen=True, kw_only=True)
class MaxAspect(Stage):
    """Drop strips and banners; store the score image_aspect: longer side over shorter side."""

    reads = ("image",)
    max_aspect: float = 4.0

    def build(self) -> Worker:
        def check(sample: Sample) -> Outcome:
            if sample.extension("image") is None:
                return sample
            height, width = image_of(sample).shape[:2]
            aspect = max(height, width) / min(height, width)
            sample = sample.with_scores(image_aspect=aspect)
            if aspect > self.max_aspect:
                detail = f"{width} x {height} px: {aspect:.2f} > {self.max_aspect:g}"
                return Dropped(sample, "image_too_elongated", detail)
            return sample

        return check


@dataclass(frozen=True, kw_only=True)
class Flatness(Stage):
    """Drop pictures of nearly one colour; store the score image_std.

    The score is the largest standard deviation of the three channels, 0 to 127.5.
    """

    reads = ("image",)
    min_std: float = 2.0

    def build(self) -> Worker:
        def check(sample: Sample) -> Outcome:
            if sample.extension("image") is None:
                return sample
            _, deviation = cv2.meanStdDev(image_of(sample))
            std = float(np.max(deviation))
            sample = sample.with_scores(image_std=std)
            if std < self.min_std:
                return Dropped(sample, "image_flat", f"std {std:.2f} < {self.min_std:g}")
            return sample

        return check


def _with_size(sample: Sample) -> Sample:
    height, width = image_of(sample).shape[:2]
    return sample.with_scores(image_width=float(width), image_height=float(height))
