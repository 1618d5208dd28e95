"""Pictures as shards hold them: RGB of a declared size, `jpg`, `png` or `webp`."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from mmcore.core.stage import Stage, Worker
from mmcore.errors import ConfigError
from mmcore.media.array import Pixels
from mmcore.media.image import (
    MAX_PIXELS,
    MAX_SIDE,
    Subsampling,
    encode_jpeg,
    encode_png,
    encode_webp,
    over_limit,
    picture_of,
)
from mmcore.media.jpeg import decodes, jpeg_facts, without_metadata
from mmcore.media.resize import fit_within, needed_for, resize_square
from mmcore.sample import Outcome, Sample

JPEG_START = b"\xff\xd8\xff"


@dataclass(frozen=True, kw_only=True)
class EncodeImage(Stage):
    """Replace the picture by one of the declared size and format, upright, without metadata."""

    code_version: ClassVar[int] = 3

    reads = ("image",)
    is_of_part = True
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
    """Large JPEGs are decoded at a half, a quarter or an eighth of their size, where that has 512
    pixels on the longer side and this many times the pixels a side that are needed; 2 may be a
    little sharper, and slower."""

    def __post_init__(self) -> None:
        if self.side < 1 or not 1 <= self.quality <= 100 or self.decode_factor < 1:
            raise ConfigError(
                f"encode_image: side={self.side}, quality={self.quality}, decode_factor="
                f"{self.decode_factor}. Use side >= 1, quality 1 to 100 and decode_factor >= 1."
            )

    def build(self) -> Worker:
        needed = needed_for(self.side * self.decode_factor, self.fit)

        def encode(sample: Sample) -> Outcome:
            extension = sample.extension("image")
            if extension is None:
                return sample
            data = sample.data(extension)
            passed = self._passed_through(data)
            if passed is data and extension == self.format:
                return sample
            if passed is None:
                passed = self._encoded(self._fitted(picture_of(sample, needed).pixels))
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
            is_over = over_limit(facts.height, facts.width, MAX_PIXELS, MAX_SIDE) is not None
            return None if is_over or not decodes(bare) else bare
        return bare

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
