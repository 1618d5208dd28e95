"""What is taken out of a video: a clip, and its sound."""

import io
from fractions import Fraction
from typing import Any

import av
import numpy as np

from mmcore.errors import SampleError
from mmcore.media.array import Pixels
from mmcore.media.audio import MAX_SECONDS, Waveform
from mmcore.media.resize import fit_within
from mmcore.media.video import decode_frames, opened_video

_TIME_BASE = Fraction(1, 90_000)
_PRESET = "veryfast"


def cut_clip(
    data: bytes, *, first_seconds: float, seconds: float, fps: float, side: int, quality: int
) -> bytes:
    """Return a part of a video as MP4 with H.264 and no sound; equal videos give equal bytes.

    Frames are those shown at multiples of 1 / `fps`, with at most `side` pixels a side and an even
    number of them. SampleError as `decode_frames`, and `video_too_short` where nothing is left.
    """
    num_frames = max(1, round(seconds * fps))
    shown = sample_frames(
        data, [first_seconds + number / fps for number in range(num_frames)], side=side
    )
    if not shown:
        raise SampleError("video_too_short", f"no frame at {first_seconds:g} s")
    buffer = io.BytesIO()
    # brand and dates of the writer stay out: equal input, equal bytes
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        height, width = (length - length % 2 for length in shown[0].shape[:2])
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        # one thread: x264 decides otherwise with another number of them
        stream.options = {"crf": str(quality), "preset": _PRESET, "threads": "1"}
        stream.codec_context.thread_count = 1
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        for image in shown:
            frame = av.VideoFrame.from_ndarray(image[:height, :width], format="rgb24")
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return buffer.getvalue()


def sample_frames(data: bytes, seconds: list[float], *, side: int) -> list[Pixels]:
    """Return what a video shows at some moments, rising, each at most `side` pixels a side.

    Moments behind its end are left out; only as many frames as are asked for are held.
    """
    shown: list[Pixels] = []
    last: Pixels | None = None
    for at, frame in decode_frames(data):
        while len(shown) < len(seconds) and last is not None and at > seconds[len(shown)] + 1e-6:
            shown.append(fit_within(last, side))
        if len(shown) == len(seconds):
            return shown
        last = frame
        end = at
    if last is not None and len(shown) < len(seconds) and seconds[len(shown)] <= end + 1e-6:
        shown.append(fit_within(last, side))
    return shown


def decode_sound(data: bytes, *, max_seconds: float = MAX_SECONDS) -> tuple[Waveform, int] | None:
    """Return (float32 mono, rate in Hz) of the sound of a video; None where it has none.

    SampleError `audio_over_limit` and those of `decode_frames`.
    """
    with opened_video(data) as opened:
        if not opened.streams.audio:
            return None
        stream = opened.streams.audio[0]
        if stream.codec_context is None:
            raise SampleError("audio_undecodable", "its sound has no codec that is taken")
        rate_hz = int(stream.codec_context.sample_rate)
        to_mono = av.AudioResampler(format="fltp", layout="mono", rate=rate_hz)
        pieces: list[np.ndarray[Any, Any]] = []
        num_samples = 0
        for frame in opened.decode(stream):
            for piece in to_mono.resample(frame):
                pieces.append(piece.to_ndarray()[0])
                num_samples += len(pieces[-1])
                if num_samples > max_seconds * rate_hz:
                    raise SampleError("audio_over_limit", f"more than {max_seconds:g} s of sound")
    if not pieces:
        return None
    return np.concatenate(pieces).astype(np.float32), rate_hz
