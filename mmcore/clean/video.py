"""Stages that watch video. Samples without one pass through; see `RequireParts`.

A video is decoded once, to small gray frames, from which everything is measured.
"""

from dataclasses import dataclass

from mmcore.core.measured import Measured
from mmcore.media.scenes import black_fraction, count_cuts, motion
from mmcore.media.video import (
    MAX_FRAME_PIXELS,
    MAX_FRAMES,
    MAX_VIDEO_BYTES,
    MAX_VIDEO_SECONDS,
    scan_video,
    share_video,
    video_of,
)
from mmcore.sample import Dropped, Quarantined, Sample

_FACTS = ("video_seconds", "video_fps", "video_width", "video_height", "video_frames")


@dataclass(frozen=True, kw_only=True)
class DecodeVideo(Measured):
    """Quarantine video that cannot be decoded to its end.

    Stores the scores video_seconds, video_fps, video_width, video_height and video_frames.
    """

    reads = ("video",)
    stores = _FACTS
    max_seconds: float = MAX_VIDEO_SECONDS
    """Held against the header and, where that lies, while frames are decoded."""
    max_frame_pixels: int = MAX_FRAME_PIXELS
    max_frames: int = MAX_FRAMES
    max_bytes: int = MAX_VIDEO_BYTES

    def measure(self, sample: Sample) -> Sample:
        extension = sample.extension("video")
        assert extension is not None, f"{sample.key} has no video"
        scan = scan_video(
            sample.data(extension),
            max_bytes=self.max_bytes,
            max_frame_pixels=self.max_frame_pixels,
            max_frames=self.max_frames,
            max_seconds=self.max_seconds,
        )
        share_video(sample, scan)
        return _with_facts(sample)

    def decide(self, sample: Sample) -> Dropped | Quarantined | None:
        scores = sample.scores
        found = (
            ("s", scores["video_seconds"] - 1e-6, self.max_seconds),
            ("px a frame", scores["video_width"] * scores["video_height"], self.max_frame_pixels),
            ("frames", scores["video_frames"], self.max_frames),
        )
        for unit, value, limit in found:
            if value > limit:
                return Quarantined(sample, "video_over_limit", f"{value:.10g} {unit} > {limit:g}")
        return None


@dataclass(frozen=True, kw_only=True)
class MeasureVideo(Measured):
    """Measure everything about a video from one decode; drop nothing.

    Stores video_seconds, video_fps, video_width, video_height, video_frames, video_motion,
    video_cuts and video_black_fraction, so that the stages after it only compare.
    """

    reads = ("video",)
    stores = (*_FACTS, "video_motion", "video_cuts", "video_black_fraction")

    def measure(self, sample: Sample) -> Sample:
        for stage in (DecodeVideo(), StillVideo(), SceneCuts(), BlackVideo()):
            sample = sample if stage.is_measured(sample) else stage.measure(sample)
        return sample


@dataclass(frozen=True, kw_only=True)
class VideoSeconds(Measured):
    """Drop videos that are too short or too long; store the score video_seconds."""

    reads = ("video",)
    stores = _FACTS
    limits = ("min_seconds", "max_seconds")
    min_seconds: float = 0.5
    max_seconds: float = 600.0

    def measure(self, sample: Sample) -> Sample:
        return _with_facts(sample)

    def decide(self, sample: Sample) -> Dropped | None:
        seconds = sample.scores["video_seconds"]
        if seconds < self.min_seconds:
            detail = f"{seconds:.3f} s < {self.min_seconds:g} s"
            return Dropped(sample, "video_too_short", detail)
        if seconds > self.max_seconds:
            detail = f"{seconds:.3f} s > {self.max_seconds:g} s"
            return Dropped(sample, "video_too_long", detail)
        return None


@dataclass(frozen=True, kw_only=True)
class FrameRate(Measured):
    """Drop slide shows and odd recordings; store the score video_fps: the mean over the frames."""

    reads = ("video",)
    stores = _FACTS
    limits = ("min_fps", "max_fps")
    min_fps: float = 5.0
    max_fps: float = 120.0

    def measure(self, sample: Sample) -> Sample:
        return _with_facts(sample)

    def decide(self, sample: Sample) -> Dropped | None:
        fps = sample.scores["video_fps"]
        # times are rounded to the clock of the container
        if fps < self.min_fps * 0.999:
            return Dropped(sample, "video_fps_too_low", f"{fps:.2f} fps < {self.min_fps:g} fps")
        if fps > self.max_fps * 1.001:
            return Dropped(sample, "video_fps_too_high", f"{fps:.2f} fps > {self.max_fps:g} fps")
        return None


@dataclass(frozen=True, kw_only=True)
class StillVideo(Measured):
    """Drop videos in which nothing moves; store the score video_motion.

    The score is the median change of luma, 0 to 255, over a quarter of a second.
    """

    reads = ("video",)
    stores = ("video_motion",)
    limits = ("min_motion",)
    min_motion: float = 0.1
    """A still picture as a video has 0, one with the noise of a codec less than this."""

    def measure(self, sample: Sample) -> Sample:
        return sample.with_scores(video_motion=motion(video_of(sample)))

    def decide(self, sample: Sample) -> Dropped | None:
        found = sample.scores["video_motion"]
        if found < self.min_motion:
            return Dropped(sample, "video_still", f"motion {found:.3f} < {self.min_motion:g}")
        return None


@dataclass(frozen=True, kw_only=True)
class SceneCuts(Measured):
    """Count the cuts of a video: the score video_cuts."""

    reads = ("video",)
    stores = ("video_cuts",)
    limits = ("max_cuts",)
    max_cuts: int | None = None
    """None drops nothing; 0 keeps videos of a single shot."""

    def measure(self, sample: Sample) -> Sample:
        return sample.with_scores(video_cuts=float(count_cuts(video_of(sample))))

    def decide(self, sample: Sample) -> Dropped | None:
        cuts = int(sample.scores["video_cuts"])
        if self.max_cuts is not None and cuts > self.max_cuts:
            return Dropped(sample, "video_too_many_cuts", f"{cuts} cuts > {self.max_cuts}")
        return None


@dataclass(frozen=True, kw_only=True)
class BlackVideo(Measured):
    """Drop videos that are mostly black; store the score video_black_fraction.

    The score is the share of frames with 98 % of their pixels below luma 32.
    """

    reads = ("video",)
    stores = ("video_black_fraction",)
    limits = ("max_fraction",)
    max_fraction: float = 0.5

    def measure(self, sample: Sample) -> Sample:
        return sample.with_scores(video_black_fraction=black_fraction(video_of(sample)))

    def decide(self, sample: Sample) -> Dropped | None:
        fraction = sample.scores["video_black_fraction"]
        if fraction > self.max_fraction:
            detail = f"{fraction:.2f} of the frames > {self.max_fraction:g}"
            return Dropped(sample, "video_black", detail)
        return None


def _with_facts(sample: Sample) -> Sample:
    scan = video_of(sample)
    return sample.with_scores(
        video_seconds=scan.seconds,
        video_fps=scan.rate_fps,
        video_width=float(scan.width),
        video_height=float(scan.height),
        video_frames=float(len(scan.times)),
    )
