"""Video as shards hold it: a clip of a length, frames at moments, its sound."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mmcore.core.stage import Stage, Worker
from mmcore.errors import ConfigError, SampleError
from mmcore.media.array import array_bytes
from mmcore.media.audio import encode_flac, encode_wav, resample
from mmcore.media.image import encode_jpeg
from mmcore.media.resize import resize_square
from mmcore.media.video import video_header
from mmcore.media.video_parts import cut_clip, decode_sound, sample_frames
from mmcore.sample import Outcome, Sample


@dataclass(frozen=True, kw_only=True)
class EncodeVideo(Stage):
    """Replace the video by a clip of it: `mp4`, H.264, one size and rate, without sound."""

    code_version = 2
    reads = ("video",)
    seconds: float = 4.0
    """The length of the clip. A shorter video is taken as it is long."""
    start: Literal["first", "middle"] = "middle"
    """Where the clip lies."""
    fps: float = 12.0
    side: int = 224
    """Of the longer side in pixels, at most."""
    quality: int = 23
    """The constant rate factor of H.264: 18 is nearly without loss, 28 small."""

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.fps <= 0 or self.side < 2:
            raise ConfigError(
                f"encode_video: seconds={self.seconds}, fps={self.fps}, side={self.side}. Use more "
                "than 0, and 2 pixels or more."
            )

    def build(self) -> Worker:
        def encode(sample: Sample) -> Outcome:
            extension = sample.extension("video")
            if extension is None:
                return sample
            data = sample.data(extension)
            length = video_header(data).seconds or 0.0
            middle = max(0.0, (length - self.seconds) / 2)
            clip = cut_clip(
                data,
                first_seconds=middle if self.start == "middle" else 0.0,
                seconds=self.seconds,
                fps=self.fps,
                side=self.side,
                quality=self.quality,
            )
            return sample.without_part(extension).with_part("mp4", clip)

        return encode


@dataclass(frozen=True, kw_only=True)
class VideoFrames(Stage):
    """Add frames of the video, square, as one array or as pictures; the video itself may go."""

    code_version = 2
    reads = ("video",)
    num_frames: int = 8
    """Evenly over the video: each is the middle one of its share."""
    every_seconds: float | None = None
    """Instead: frames at this distance from the first, `num_frames` of them. The last one is
    repeated where the video is shorter, since all samples of a dataset have the same parts."""
    side: int = 128
    store: Literal["npy", "jpg"] = "npy"
    """`npy`: `frames.npy`, uint8 [N, side, side, 3]. `jpg`: `frame000.jpg`, `frame001.jpg` ..."""
    quality: int = 95
    """Of JPEG."""
    keep_video: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.num_frames <= 1000 or self.side < 1:
            raise ConfigError(
                f"video_frames: num_frames={self.num_frames}, side={self.side}. Use 1 to 1000 "
                "frames of 1 pixel or more."
            )
        if self.every_seconds is not None and self.every_seconds <= 0:
            raise ConfigError(f"video_frames: every_seconds={self.every_seconds}. Use more than 0.")

    def build(self) -> Worker:
        def encode(sample: Sample) -> Outcome:
            extension = sample.extension("video")
            if extension is None:
                return sample
            data = sample.data(extension)
            frames = sample_frames(data, self._moments(data), side=self._enough())
            if not frames:
                raise SampleError("video_empty", "no frame is shown")
            frames += [frames[-1]] * (self.num_frames - len(frames))
            squares = [resize_square(frame, self.side) for frame in frames]
            made = sample if self.keep_video else sample.without_part(extension)
            if self.store == "npy":
                return made.with_part("frames.npy", array_bytes(np.stack(squares)))
            for number, square in enumerate(squares):
                picture = encode_jpeg(square, quality=self.quality)
                made = made.with_part(f"frame{number:03d}.jpg", picture)
            return made

        return encode

    def _moments(self, data: bytes) -> list[float]:
        if self.every_seconds is not None:
            return [self.every_seconds * number for number in range(self.num_frames)]
        length = video_header(data).seconds or 0.0
        return [
            length * (2 * number + 1) / (2 * self.num_frames) for number in range(self.num_frames)
        ]

    def _enough(self) -> int:
        """Return the longer side that frames are held at before they become squares."""
        return 2 * self.side


@dataclass(frozen=True, kw_only=True)
class VideoSound(Stage):
    """Add the sound of the video as a part of its own, mono at one rate: `flac` or `wav`.

    A video without sound gets no such part: say so with `require_parts`, or declare it optional.
    """

    reads = ("video",)
    rate_hz: int = 16_000
    max_seconds: float = 60.0
    """What is longer is cut at its end."""
    format: Literal["flac", "wav"] = "flac"

    def build(self) -> Worker:
        encode_part = encode_flac if self.format == "flac" else encode_wav

        def encode(sample: Sample) -> Outcome:
            extension = sample.extension("video")
            if extension is None:
                return sample
            sound = decode_sound(sample.data(extension))
            if sound is None:
                return sample
            waveform, from_hz = sound
            waveform = resample(
                waveform[: round(self.max_seconds * from_hz)], from_hz, self.rate_hz
            )
            return sample.with_part(self.format, encode_part(waveform, self.rate_hz))

        return encode
