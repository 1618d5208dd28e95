"""Pictures as shards hold them: square, RGB, `jpg` or `png`."""

from dataclasses import dataclass
from typing import Literal

from mmcore.core.stage import Stage, Worker
from mmcore.media.image import Fit, encode_jpeg, encode_png, image_of, resize_square
from mmcore.sample import Outcome, Sample


@dataclass(frozen=True, kw_only=True)
class EncodeImage(Stage):
    """Replace the picture by a square one in RGB, named by its format."""

    reads = ("image",)
    side: int = 64
    """In pixels."""
    format: Literal["jpg", "png"] = "jpg"
    quality: int = 95
    """Of JPEG, without subsampling of colours: small pictures cannot spare them."""
    fit: Fit = "pad"
    """`pad` with white, `crop` to the middle, or `stretch`."""

    def build(self) -> Worker:
        def encode(sample: Sample) -> Outcome:
            extension = sample.extension("image")
            if extension is None:
                return sample
            square = resize_square(image_of(sample), self.side, fit=self.fit)
            if self.format == "png":
                data = encode_png(square)
            else:
                data = encode_jpeg(square, quality=self.quality)
            return sample.without_part(extension).with_part(self.format, data)

        return encode
