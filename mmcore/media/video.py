"""Video: bytes to frames under limits that a hostile file cannot pass.

Only MP4, Matroska and AVI are opened, each by its own demuxer and with decoders from a short list;
whatever a file names outside itself (playlists, references to other files, addresses) is refused.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import av
import cv2
import numpy as np

from mmcore.errors import SampleError
from mmcore.media import container
from mmcore.media.array import Pixels
from mmcore.sample import Sample

MAX_VIDEO_BYTES = 1 << 30
MAX_STREAMS = 16
MAX_FRAME_PIXELS = 4096 * 2304
MAX_FRAMES = 100_000
MAX_VIDEO_SECONDS = 3_600.0

# Frames of a scan: enough for motion, cuts and darkness, and small enough to be kept
SCAN_WIDTH = 64
SCAN_HEIGHT = 36

_DEMUXERS = {"MP4": "mov", "MATROSKA": "matroska", "AVI": "avi"}
_SOUND_DECODERS = (
    "aac", "mp3", "mp3float", "opus", "libopus", "vorbis", "flac", "pcm_s16le", "pcm_s16be", "ac3",
    "eac3", "alac",
)  # fmt: skip
_DECODERS = (
    "h264", "hevc", "av1", "libdav1d", "vp8", "libvpx", "vp9", "libvpx-vp9", "mpeg4", "mpeg2video",
    "mpeg1video", "msmpeg4", "msmpeg4v2", "h263", "mjpeg", "theora", "prores", "cinepak",
    "rawvideo", "ffv1", "png",
)  # fmt: skip
# Their first plane is luma of 8 bits
_LUMA_FIRST = frozenset(
    ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "nv12")
)
_FULL_RANGE = 2
# A header says its length roughly: less than this of it is a file that lost its end
_MIN_DECODED_FRACTION = 0.9
_ROUNDING_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoHeader:
    """What a video file says of itself before a frame is decoded."""

    format: str
    codec: str
    width: int
    height: int
    """Of the frames as they are stored, before any rotation."""
    seconds: float | None
    """None where the file does not say; live recordings do not."""
    num_streams: int
    has_audio: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoScan:
    """Every frame of a video, small and gray, with its time."""

    header: VideoHeader
    width: int
    height: int
    """Of the frames as they are shown."""
    times: np.ndarray[Any, np.dtype[np.float64]]
    """[N] in seconds from the first frame, rising."""
    luma: Pixels
    """[N, SCAN_HEIGHT, SCAN_WIDTH], 0 is black, 255 white."""

    @property
    def rate_fps(self) -> float:
        """Return the mean rate of the frames; 0 for a single one."""
        last = float(self.times[-1])
        return (len(self.times) - 1) / last if last > 0 else 0.0

    @property
    def seconds(self) -> float:
        """Return the length: up to the last frame, and that for as long as the mean frame."""
        return float(self.times[-1]) + (1 / self.rate_fps if self.rate_fps else 0.0)


def video_header(data: bytes) -> VideoHeader:
    """Return what the header says; SampleError as `decode_frames`, for what shows by then."""
    with opened_video(data, MAX_VIDEO_BYTES) as opened:
        return _header(opened)


def decode_frames(
    data: bytes,
    *,
    every_seconds: float = 0.0,
    max_bytes: int = MAX_VIDEO_BYTES,
    max_frame_pixels: int = MAX_FRAME_PIXELS,
    max_frames: int = MAX_FRAMES,
    max_seconds: float = MAX_VIDEO_SECONDS,
) -> Iterator[tuple[float, Pixels]]:
    """Yield (seconds, uint8 RGB [H, W, 3], upright) for frames `every_seconds`, or for all.

    SampleError: `video_format_refused`, `video_over_limit` by the header or as soon as it shows,
    `video_empty`, `video_truncated` (at the end), `video_undecodable`.
    """
    due = 0.0
    decoded = _frames(data, max_bytes, max_frame_pixels, max_frames, max_seconds)
    for seconds, frame, _ in decoded:
        # half a microsecond: times are fractions that floats only come near to
        if seconds >= due - 5e-7:
            due = max(due + every_seconds, seconds if every_seconds == 0 else 0.0)
            yield seconds, _upright(frame.to_ndarray(format="rgb24"), frame.rotation)


def scan_video(
    data: bytes,
    *,
    max_bytes: int = MAX_VIDEO_BYTES,
    max_frame_pixels: int = MAX_FRAME_PIXELS,
    max_frames: int = MAX_FRAMES,
    max_seconds: float = MAX_VIDEO_SECONDS,
) -> VideoScan:
    """Decode a whole video and keep its frames small and gray; SampleError as `decode_frames`."""
    times: list[float] = []
    luma: list[Pixels] = []
    for seconds, frame, header in _frames(
        data, max_bytes, max_frame_pixels, max_frames, max_seconds
    ):
        if not times:
            first, width, height = header, frame.width, frame.height
            is_turned = frame.rotation % 180 != 0
        times.append(seconds)
        luma.append(_small_luma(frame))
    return VideoScan(
        header=first,
        width=height if is_turned else width,
        height=width if is_turned else height,
        times=np.array(times),
        luma=np.stack(luma),
    )


def video_of(sample: Sample) -> VideoScan:
    """Return the scan of a sample that has video, made once for all stages of a step."""
    extension = sample.extension("video")
    assert extension is not None, f"{sample.key} has no video"
    at = (extension, "video")
    if at not in sample.scratch:
        share_video(sample, scan_video(sample.data(extension)))
    scan: VideoScan = sample.scratch[at]
    return scan


def share_video(sample: Sample, scan: VideoScan) -> None:
    """Keep a scan for the stages after this one."""
    extension = sample.extension("video")
    assert extension is not None, f"{sample.key} has no video"
    scan.luma.flags.writeable = False
    sample.scratch[(extension, "video")] = scan


def _frames(
    data: bytes, max_bytes: int, max_frame_pixels: int, max_frames: int, max_seconds: float
) -> Iterator[tuple[float, Any, VideoHeader]]:
    """Yield (seconds from the first frame, frame, header), holding every limit on the way."""
    with opened_video(data, max_bytes) as opened:
        header = _header(opened)
        _check_size(header.width, header.height, max_frame_pixels)
        if header.seconds is not None and header.seconds > max_seconds:
            raise SampleError("video_over_limit", f"{header.seconds:.1f} s > {max_seconds:g} s")
        stream = opened.streams.video[0]
        # one thread: work is spread over processes, and a frame costs memory for each thread
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"max_pixels": str(max_frame_pixels)}
        first, last, found = 0.0, -1.0, 0
        for frame in opened.decode(stream):
            found += 1
            _check_size(frame.width, frame.height, max_frame_pixels)
            first = frame.time or 0.0 if found == 1 else first
            # a frame that says no time, or one before its predecessor, is no reason to stop
            seconds = max((frame.time or 0.0) - first, last)
            if found > max_frames or seconds > max_seconds:
                raise SampleError(
                    "video_over_limit",
                    f"more than {max_frames} frames or {max_seconds:g} s; the header says "
                    f"{header.seconds} s",
                )
            last = seconds
            yield seconds, frame, header
    _check_end(header, data, found, last)


def _small_luma(frame: Any) -> Pixels:
    """Return a frame small and gray, in full range."""
    name = frame.format.name
    if name not in _LUMA_FIRST:
        small = frame.reformat(SCAN_WIDTH, SCAN_HEIGHT, "gray", interpolation="AREA")
        return np.asarray(small.to_ndarray(), np.uint8)
    plane = frame.planes[0]
    padded = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    luma = padded[: plane.height, : plane.width]
    # two rows for each of the small ones: half of the time of a scan was spent here
    rows = luma[:: max(1, plane.height // (2 * SCAN_HEIGHT))]
    small = cv2.resize(rows, (SCAN_WIDTH, SCAN_HEIGHT), interpolation=cv2.INTER_AREA)
    if name.startswith("yuvj") or frame.color_range == _FULL_RANGE:
        return np.asarray(small, np.uint8)
    # 16 is black and 235 white (ITU-R BT.601, section 2.5.3)
    full = cv2.convertScaleAbs(np.maximum(small, 16), alpha=255 / 219, beta=-16 * 255 / 219)
    return np.asarray(full, np.uint8)


def _check_end(header: VideoHeader, data: bytes, found: int, last: float) -> None:
    if found == 0:
        raise SampleError("video_empty", f"{header.format} of {len(data)} bytes holds no frame")
    missing = container.missing_end(header.format, data)
    declared = header.seconds or 0.0
    if missing is None and last < _MIN_DECODED_FRACTION * declared - _ROUNDING_SECONDS:
        missing = f"{last:.2f} of {declared:.2f} s decoded"
    if missing is not None:
        detail = f"{header.format} of {len(data)} bytes: {missing}"
        raise SampleError("video_truncated", detail)


@contextmanager
def opened_video(data: bytes, max_bytes: int = MAX_VIDEO_BYTES) -> Iterator[Any]:
    """Give PyAV's container of a video, of a format and with codecs that are taken.

    SampleError `video_format_refused`, `video_over_limit` by its bytes, `video_truncated` and
    `video_undecodable` for what FFmpeg says meanwhile.
    """
    name = container.video_format_of(data)
    if name is None:
        raise SampleError(
            "video_format_refused",
            f"starts with {data[:12]!r}; taken are MP4, MOV, Matroska, WebM and AVI",
        )
    if len(data) > max_bytes:
        raise SampleError("video_over_limit", f"{len(data)} bytes > {max_bytes}")
    options = {
        "codec_whitelist": ",".join((*_DECODERS, *_SOUND_DECODERS)),
        "protocol_whitelist": "",
        "enable_drefs": "0",
        # one more than is taken, so that the excess is seen
        "max_streams": str(MAX_STREAMS + 1),
    }
    try:
        with av.open(
            io.BytesIO(data),
            format=_DEMUXERS[name],
            options=options,
            metadata_errors="replace",
            io_open=_refuse_to_open,
        ) as opened:
            yield opened
    except av.FFmpegError as error:
        cut = container.missing_end(name, data)
        if cut is not None:
            detail = f"{name} of {len(data)} bytes: {cut}"
            raise SampleError("video_truncated", detail) from error
        detail = f"{name} of {len(data)} bytes: {error.strerror}"
        raise SampleError("video_undecodable", detail) from error


def _refuse_to_open(url: str, *_: Any) -> NoReturn:
    """Refuse whatever a file names outside itself."""
    raise PermissionError(f"the file wants {url!r} opened")


def _header(opened: Any) -> VideoHeader:
    name = next(name for name, demuxer in _DEMUXERS.items() if demuxer in opened.format.name)
    if len(opened.streams) > MAX_STREAMS:
        raise SampleError("video_over_limit", f"more than {MAX_STREAMS} streams")
    if not opened.streams.video:
        raise SampleError("video_empty", f"{name} without a video stream")
    stream = opened.streams.video[0]
    codec = stream.codec_context
    if codec is None or codec.name not in _DECODERS:
        found = "unknown" if codec is None else codec.name
        raise SampleError("video_format_refused", f"{name} with the codec {found}")
    seconds = None
    if stream.duration is not None and stream.time_base is not None:
        seconds = float(stream.duration * stream.time_base)
    elif opened.duration is not None:
        seconds = opened.duration / av.time_base
    return VideoHeader(
        format=name,
        codec=codec.name,
        width=codec.width,
        height=codec.height,
        seconds=seconds,
        num_streams=len(opened.streams),
        has_audio=bool(opened.streams.audio),
    )


def _check_size(width: int, height: int, max_frame_pixels: int) -> None:
    if width * height > max_frame_pixels:
        detail = f"{width} x {height} px; at most {max_frame_pixels} px a frame"
        raise SampleError("video_over_limit", detail)


def _upright(frame: Pixels, rotation: int) -> Pixels:
    """Turn a frame by what its display matrix says, in degrees counterclockwise."""
    return np.ascontiguousarray(np.rot90(frame, rotation // 90 % 4))
