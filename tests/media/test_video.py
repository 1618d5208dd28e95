"""Video decoding: frames, times, limits, and what a hostile file may not do."""

import io
import struct
from typing import Any

import av
import numpy as np
import pytest

from mmcore.errors import SampleError
from mmcore.media.video import (
    MAX_STREAMS,
    SCAN_HEIGHT,
    SCAN_WIDTH,
    decode_frames,
    scan_video,
    share_video,
    video_header,
    video_of,
)
from mmcore.sample import Part, Sample

CONTAINERS = [
    ("mp4", "libx264", "MP4", "h264"),
    ("mov", "mpeg4", "MP4", "mpeg4"),
    ("matroska", "libx264", "MATROSKA", "h264"),
    ("webm", "libvpx", "MATROSKA", "vp8"),
    ("avi", "mpeg4", "AVI", "mpeg4"),
]


def film(
    num_frames: int = 20,
    *,
    container: str = "mp4",
    codec: str = "libx264",
    fps: int = 10,
    streams: int = 1,
    size: tuple[int, int] = (64, 48),
    options: dict[str, str] | None = None,
) -> bytes:
    """Frames that grow brighter by 10 each, the left half twice as bright."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container, options=options or {}) as output:
        made: list[Any] = [output.add_stream(codec, rate=fps) for _ in range(streams)]
        for stream in made:
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
        for i in range(num_frames):
            pixels = np.full((size[1], size[0], 3), 10 + 5 * (i % 20), np.uint8)
            pixels[:, : size[0] // 2] *= 2
            for stream in made:
                output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        for stream in made:
            output.mux(stream.encode())
    return buffer.getvalue()


def reason_of(data: bytes, **limits: int) -> str:
    with pytest.raises(SampleError) as caught:
        scan_video(data, **limits)
    return caught.value.reason


@pytest.mark.parametrize(("container", "codec", "name", "found"), CONTAINERS)
def test_every_container_is_decoded(container: str, codec: str, name: str, found: str) -> None:
    data = film(container=container, codec=codec)
    header = video_header(data)
    assert (header.format, header.codec, header.width, header.height) == (name, found, 64, 48)
    assert header.seconds == pytest.approx(2.0, abs=0.11)
    assert (header.num_streams, header.has_audio) == (1, False)
    frames = list(decode_frames(data))
    assert [seconds for seconds, _ in frames] == pytest.approx([i / 10 for i in range(20)])
    _, first = frames[0]
    assert first.shape == (48, 64, 3)
    assert first[24, 60].mean() == pytest.approx(10, abs=4)
    assert first[24, 4].mean() == pytest.approx(20, abs=4)


def test_frames_come_at_a_rate_of_their_own() -> None:
    times = [seconds for seconds, _ in decode_frames(film(), every_seconds=0.5)]
    assert times == pytest.approx([0.0, 0.5, 1.0, 1.5])


def test_scan_holds_every_frame_small_and_gray() -> None:
    scan = scan_video(film())
    assert scan.luma.shape == (20, SCAN_HEIGHT, SCAN_WIDTH)
    assert (scan.width, scan.height) == (64, 48)
    assert scan.rate_fps == pytest.approx(10.0)
    assert scan.seconds == pytest.approx(2.0)
    means = scan.luma.mean(axis=(1, 2))
    assert (np.diff(means) > 0).all()


@pytest.mark.parametrize(("pix_fmt", "value"), [("yuv420p", 0), ("yuv420p", 255), ("bgr0", 255)])
def test_black_is_0_and_white_255_however_they_are_stored(pix_fmt: str, value: int) -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as output:
        stream = output.add_stream("libx264" if pix_fmt == "yuv420p" else "ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 200, 300, pix_fmt
        pixels = np.full((300, 200, 3), value, np.uint8)
        output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode())
    luma = scan_video(buffer.getvalue()).luma
    assert luma.shape == (1, SCAN_HEIGHT, SCAN_WIDTH)
    assert np.abs(luma.astype(int) - value).max() <= 2


def test_single_frame_has_no_rate_and_no_length() -> None:
    scan = scan_video(film(1))
    assert (scan.rate_fps, scan.seconds) == (0.0, 0.0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1/a.ts\n",
        b"ffconcat version 1.0\nfile '/etc/passwd'\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\n",
        b'<?xml version="1.0"?><MPD/>',
        b"\x47" + bytes(187),
        b"RIFF\0\0\0\0WAVE",
    ],
)
def test_lists_of_places_and_other_formats_are_refused(data: bytes) -> None:
    assert reason_of(data) == "video_format_refused"


def test_playlist_behind_the_first_bytes_of_a_container_is_not_read() -> None:
    playlist = b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n"
    for head in (b"\0\0\0\x08free", b"\x1a\x45\xdf\xa3", b"RIFF\0\0\0\0AVI "):
        assert reason_of(head + playlist).startswith("video_")


@pytest.mark.parametrize(("container", "codec", "name", "found"), CONTAINERS)
def test_file_cut_anywhere_is_refused_or_nearly_whole(
    container: str, codec: str, name: str, found: str
) -> None:
    whole = film(60, container=container, codec=codec)
    for length in range(0, len(whole) * 3 // 4, len(whole) // 12):
        assert reason_of(whole[:length]) in {
            "video_format_refused",
            "video_truncated",
            "video_undecodable",
            "video_empty",
        }


def test_box_that_says_more_than_there_is_is_a_cut() -> None:
    data = film()
    assert reason_of(data + struct.pack(">I4s", 1_000, b"mdat")) == "video_truncated"


def test_noise_behind_a_head_is_undecodable() -> None:
    noise = np.random.default_rng(0).integers(0, 256, 5_000).astype(np.uint8).tobytes()
    assert reason_of(b"\x1a\x45\xdf\xa3" + noise) == "video_undecodable"
    assert reason_of(b"RIFF\0\0\0\0AVI " + noise) in {"video_undecodable", "video_empty"}


def test_too_many_streams_are_refused() -> None:
    data = film(2, streams=MAX_STREAMS)
    assert video_header(data).num_streams == MAX_STREAMS
    assert reason_of(film(2, streams=MAX_STREAMS + 1)) == "video_over_limit"


def test_sound_without_a_picture_is_empty() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        stream = output.add_stream("aac", rate=16_000)
        samples = np.zeros((1, 16_000), np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate = 16_000
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    assert reason_of(buffer.getvalue()) == "video_empty"


def test_decoder_that_is_not_on_the_list_is_refused() -> None:
    assert reason_of(film(container="avi", codec="ffvhuff")) == "video_format_refused"


def test_frames_of_more_than_4k_are_refused_by_the_header() -> None:
    data = film(1, size=(4_224, 2_400))
    with pytest.raises(SampleError) as caught:
        scan_video(data)
    assert caught.value.reason == "video_over_limit"
    assert caught.value.detail.startswith("4224 x 2400 px; at most")


@pytest.mark.parametrize(
    "limits",
    [{"max_frame_pixels": 64 * 48 - 1}, {"max_frames": 19}, {"max_seconds": 1}, {"max_bytes": 99}],
)
def test_limits_are_held(limits: dict[str, int]) -> None:
    assert reason_of(film(), **limits) == "video_over_limit"


def test_length_is_limited_where_the_header_says_none() -> None:
    data = film(50, container="matroska", options={"live": "1"})
    assert video_header(data).seconds is None
    assert reason_of(data, max_seconds=2) == "video_over_limit"


def test_stages_share_one_scan() -> None:
    sample = Sample("a", parts={"mp4": Part(data=film())})
    assert video_of(sample) is video_of(sample)
    assert not video_of(sample).luma.flags.writeable
    scan = scan_video(film(3))
    share_video(sample, scan)
    assert video_of(sample) is scan
