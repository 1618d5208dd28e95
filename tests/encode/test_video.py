"""Encoding of video: a clip, frames, the sound; the same bytes every time."""

import io

import av
import numpy as np
import pytest
import soundfile

from mmcore.core.stage import Stage
from mmcore.encode.video import EncodeVideo, VideoFrames, VideoSound
from mmcore.errors import ConfigError, SampleError
from mmcore.media.array import array_of
from mmcore.media.video import decode_frames, video_header
from mmcore.sample import Part, Sample


def film(
    seconds: float = 4.0, *, fps: int = 10, size: tuple[int, int] = (96, 64), hz: float = 0.0
) -> Sample:
    """Frames that grow brighter from 0 to 200, with a tone if one is given."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        video = output.add_stream("libx264", rate=fps)
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        sound = output.add_stream("aac", rate=16_000, layout="mono") if hz else None
        num_frames = round(seconds * fps)
        for i in range(num_frames):
            level = 200 * i // (num_frames - 1)
            pixels = np.full((size[1], size[0], 3), level, np.uint8)
            output.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(video.encode())
        if sound is not None:
            times = np.arange(round(seconds * 16_000)) / 16_000
            tone = (0.5 * np.sin(2 * np.pi * hz * times)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
            frame.sample_rate = 16_000
            output.mux(sound.encode(frame))
            output.mux(sound.encode())
    return Sample("a", {"mp4": Part(data=buffer.getvalue()), "txt": Part(data=b"x")})


def encoded(stage: Stage, sample: Sample) -> Sample:
    outcome = stage.build()(sample)
    assert isinstance(outcome, Sample)
    return outcome


@pytest.mark.parametrize(("start", "level"), [("first", 0), ("middle", 76)])
def test_a_clip_has_the_length_the_rate_and_the_size_that_are_asked_for(
    start: str, level: int
) -> None:
    stage = EncodeVideo(seconds=1.0, fps=5, side=48, start=start)  # type: ignore[arg-type]
    outcome = encoded(stage, film())
    assert sorted(outcome.parts) == ["mp4", "txt"]
    frames = list(decode_frames(outcome.data("mp4")))
    assert [seconds for seconds, _ in frames] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    assert frames[0][1].shape == (32, 48, 3)
    assert frames[0][1].mean() == pytest.approx(level, abs=8)
    assert not video_header(outcome.data("mp4")).has_audio


def test_a_video_shorter_than_the_clip_is_taken_as_it_is_long() -> None:
    outcome = encoded(EncodeVideo(seconds=10, fps=10), film(1.0))
    assert video_header(outcome.data("mp4")).seconds == pytest.approx(1.0, abs=0.05)


def test_sides_become_even() -> None:
    header = video_header(encoded(EncodeVideo(side=33), film()).data("mp4"))
    assert (header.width, header.height) == (32, 22)


def test_equal_videos_give_equal_bytes() -> None:
    sample = film()
    for stage in (EncodeVideo(seconds=1), VideoFrames(), VideoSound()):
        assert encoded(stage, sample).parts == encoded(stage, sample).parts


def test_frames_lie_evenly_and_are_one_array() -> None:
    outcome = encoded(VideoFrames(num_frames=4, side=32), film())
    assert sorted(outcome.parts) == ["frames.npy", "txt"]
    frames = array_of(outcome.data("frames.npy"))
    assert (frames.dtype, frames.shape) == (np.uint8, (4, 32, 32, 3))
    middle = frames[:, 16, 16].mean(axis=1)
    assert middle == pytest.approx([25, 76, 127, 178], abs=8)


def test_frames_at_a_distance_repeat_the_last_where_the_video_ends() -> None:
    stage = VideoFrames(num_frames=4, every_seconds=1.5, side=32, keep_video=True)
    outcome = encoded(stage, film())
    assert sorted(outcome.parts) == ["frames.npy", "mp4", "txt"]
    frames = array_of(outcome.data("frames.npy"))
    assert frames[:, 16, 16].mean(axis=1) == pytest.approx([0, 76, 153, 153], abs=8)


def test_frames_can_be_pictures() -> None:
    outcome = encoded(VideoFrames(num_frames=2, store="jpg", side=32), film())
    assert sorted(outcome.parts) == ["frame000.jpg", "frame001.jpg", "txt"]
    assert outcome.data("frame000.jpg")[:3] == b"\xff\xd8\xff"


@pytest.mark.parametrize("extension", ["flac", "wav"])
def test_the_sound_of_a_video_becomes_a_part(extension: str) -> None:
    stage = VideoSound(rate_hz=8_000, max_seconds=1.0, format=extension)  # type: ignore[arg-type]
    outcome = encoded(stage, film(hz=500))
    assert sorted(outcome.parts) == sorted([extension, "mp4", "txt"])
    waveform, rate_hz = soundfile.read(io.BytesIO(outcome.data(extension)))
    assert (rate_hz, len(waveform)) == (8_000, 8_000)
    spectrum = np.abs(np.fft.rfft(waveform))
    assert np.argmax(spectrum) == pytest.approx(500, abs=2)


def test_a_silent_film_gets_no_sound() -> None:
    sample = film()
    assert encoded(VideoSound(), sample) is sample


@pytest.mark.parametrize("stage", [EncodeVideo(), VideoFrames(), VideoSound()])
def test_broken_video_is_quarantined_and_a_sample_without_is_left_alone(stage: Stage) -> None:
    cut = Sample("a", {"mp4": Part(data=film().data("mp4")[:900])})
    with pytest.raises(SampleError) as caught:
        stage.build()(cut)
    assert caught.value.reason in ("video_truncated", "video_undecodable")
    sample = Sample("a", {"txt": Part(data=b"x")})
    assert encoded(stage, sample) is sample


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"fps=0. |fps=0,"):
        EncodeVideo(fps=0)
    with pytest.raises(ConfigError, match="num_frames=0"):
        VideoFrames(num_frames=0)
    with pytest.raises(ConfigError, match="every_seconds=0"):
        VideoFrames(every_seconds=0)
