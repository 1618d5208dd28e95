"""Pictures as shards hold them: RGB of a declared size, `jpg`, `png` or `webp`."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from mmcore.core.stage import Stage, Worker
from mmcore.errors import ConfigError
from mmcore.media.image import (
    Pixels,
    Subsampling,
    encode_jpeg,
    encode_png,
    encode_webp,
    fit_within,
    image_of,
    resize_square,
)
from mmcore.media.jpeg import decode_scaled, jpeg_facts, without_metadata
from mmcore.sample import Outcome, Sample

JPEG_START = b"\xff\xd8\xff"
_PROOF_SIDE = 1


@dataclass(frozen=True, kw_only=True)
class EncodeImage(Stage):
    """Replace the picture by one of the declared size and format, upright, without metadata."""

    code_version: ClassVar[int] = 2

    reads = ("image",)
    side: int = 64
    """In pixels: of the square, or with `inside` of the longer side at most."""
    format: Literal["jpg", "png", "webp"] = "jpg"
    quality: int = 95
    """Of JPEG and WebP."""
    subsampling: Subsampling = "444"
    """Of the colours of JPEG; small pictures cannot spare them, large ones can: `420`."""
    fit: Literal["pad", "crop", "stretch", "inside"] = "pad"
    """`pad` with white, `crop` to the middle, `stretch`; or `inside`: proportions stay, and
    nothing is enlarged."""
    pass_through: bool = False
    """Take over a JPEG that has the size already, byte for byte, or without its metadata where it
    has some."""
    proof: Literal["decode", "markers"] = "decode"
    """What a JPEG has to show before it is passed through: that it decodes, at an eighth of the
    size; or that its markers are whole, which is enough where `clean` has decoded it."""
    decode_factor: float = 1.0
    """JPEGs are decoded at the smallest scale with this many times the pixels a side that are
    needed; 2 is a little sharper and a fifth slower."""

    def __post_init__(self) -> None:
        if self.side < 1 or not 1 <= self.quality <= 100 or self.decode_factor < 1:
            raise ConfigError(
                f"encode_image: side={self.side}, quality={self.quality}, decode_factor="
                f"{self.decode_factor}. Use side >= 1, quality 1 to 100 and decode_factor >= 1."
            )

    def build(self) -> Worker:
        def encode(sample: Sample) -> Outcome:
            extension = sample.extension("image")
            if extension is None:
                return sample
            data = sample.data(extension)
            passed = self._passed_through(data)
            if passed is data and extension == self.format:
                return sample
            if passed is None:
                passed = self._encoded(self._fitted(self._decoded(sample, data)))
            return sample.without_part(extension).with_part(self.format, passed)

        return encode

    def _passed_through(self, data: bytes) -> bytes | None:
        """Return a JPEG as it goes into the shard; None for what does not conform."""
        if not self.pass_through or self.format != "jpg" or not data.startswith(JPEG_START):
            return None
        facts = jpeg_facts(data)
        if facts is None or facts.num_components != 3 or facts.orientation != 1:
            return None
        has_size = (
            max(facts.width, facts.height) <= self.side
            if self.fit == "inside"
            else facts.width == facts.height == self.side
        )
        if not has_size:
            return None
        bare = without_metadata(data, facts)
        if self.proof == "decode":
            decoded = decode_scaled(bare, facts, min_width=_PROOF_SIDE, min_height=_PROOF_SIDE)
            return None if decoded is None else bare
        return bare

    def _decoded(self, sample: Sample, data: bytes) -> Pixels:
        facts = jpeg_facts(data, is_whole=False)
        if facts is not None:
            width, height = self._needed(facts.width, facts.height)
            scaled = decode_scaled(data, facts, min_width=width, min_height=height)
            if scaled is not None:
                return scaled
        return image_of(sample)

    def _needed(self, width: int, height: int) -> tuple[int, int]:
        """Return the least (width, height) that a picture may be decoded at."""
        target = self.side * self.decode_factor
        if self.fit == "stretch":
            return math.ceil(target), math.ceil(target)
        measure = min if self.fit == "crop" else max
        scale = target / measure(width, height)
        # what floats are above a whole number would ask for the next larger scale
        return math.ceil(width * scale - 1e-6), math.ceil(height * scale - 1e-6)

    def _fitted(self, image: Pixels) -> Pixels:
        if self.fit == "inside":
            return fit_within(image, self.side)
        return resize_square(image, self.side, fit=self.fit)

    def _encoded(self, image: Pixels) -> bytes:
        if self.format == "png":
            return encode_png(image)
        if self.format == "webp":
            return encode_webp(image, quality=self.quality)
        return encode_jpeg(image, quality=self.quality, subsampling=self.subsampling)
