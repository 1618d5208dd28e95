"""Cleaning of video: kept, dropped with a reason, broken, absent."""

import io
from collections.abc import Sequence

import av
import numpy as np
import pytest

from mmcore.clean.parts import RequireParts
from mmcore.clean.video import (
    BlackVideo,
    DecodeVideo,
    FrameRate,
    MeasureVideo,
    SceneCuts,
    StillVideo,
    VideoSeconds,
)
from mmcore.core.stage import Stage
from mmcore.errors import SampleError
from mmcore.sample import Dropped, Part, Quarantined, Sample

STAGES = [
    DecodeVideo(),
    MeasureVideo(),
    VideoSeconds(),
    FrameRate(),
    StillVideo(),
    SceneCuts(),
    BlackVideo(),
]


def film(frames: Sequence[np.ndarray], *, fps: int = 10) -> Sample:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=fps)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(stream.encode())
    return Sample("a", parts={"mp4": Part(data=buffer.getvalue()), "txt": Part(data=b"A ball.")})


def ball(num_frames: int = 20, *, step: int = 2, background: int = 60) -> list[np.ndarray]:
    """A white square that moves to the right on gray."""
    frames = []
    for i in range(num_frames):
        frame = np.full((48, 64, 3), background, np.uint8)
        left = (i * step) % 48
        frame[16:32, left : left + 16] = 255
        frames.append(frame)
    return frames


def plain(value: int, num_frames: int) -> list[np.ndarray]:
    return [np.full((48, 64, 3), value, np.uint8)] * num_frames


@pytest.mark.parametrize("stage", STAGES)
def test_sample_without_video_passes_through(stage: Stage) -> None:
    sample = Sample("a", parts={"txt": Part(data=b"A ball.")})
    assert stage.build()(sample) is sample


@pytest.mark.parametrize("stage", STAGES)
def test_empty_video_is_quarantined(stage: Stage) -> None:
    with pytest.raises(SampleError) as caught:
        stage.build()(Sample("a", parts={"mp4": Part(data=b"")}))
    assert caught.value.reason == "video_format_refused"


@pytest.mark.parametrize("stage", STAGES)
def test_cut_video_is_quarantined(stage: Stage) -> None:
    whole = film(ball()).data("mp4")
    with pytest.raises(SampleError) as caught:
        stage.build()(Sample("a", parts={"mp4": Part(data=whole[: len(whole) // 2])}))
    assert caught.value.reason == "video_truncated"


@pytest.mark.parametrize("stage", STAGES)
def test_good_video_is_kept_with_its_bytes(stage: Stage) -> None:
    sample = film(ball())
    outcome = stage.build()(sample)
    assert isinstance(outcome, Sample)
    assert outcome.parts == sample.parts


def test_length_rate_and_size_are_stored() -> None:
    outcome = DecodeVideo().build()(film(ball()))
    assert isinstance(outcome, Sample)
    assert outcome.scores == pytest.approx(
        {
            "video_seconds": 2.0,
            "video_fps": 10.0,
            "video_width": 64.0,
            "video_height": 48.0,
            "video_frames": 20.0,
        }
    )


@pytest.mark.parametrize(
    "stage",
    [
        DecodeVideo(max_seconds=1.9),
        DecodeVideo(max_frame_pixels=64 * 48 - 1),
        DecodeVideo(max_frames=19),
        DecodeVideo(max_bytes=100),
    ],
)
def test_video_over_a_limit_is_quarantined(stage: Stage) -> None:
    with pytest.raises(SampleError) as caught:
        stage.build()(film(ball()))
    assert caught.value.reason == "video_over_limit"


def test_video_at_the_limits_is_kept() -> None:
    stage = DecodeVideo(max_seconds=2.0, max_frame_pixels=64 * 48, max_frames=20)
    assert isinstance(stage.build()(film(ball())), Sample)


def test_stored_length_is_held_against_a_lower_limit() -> None:
    measured = DecodeVideo().build()(film(ball()))
    assert isinstance(measured, Sample)
    outcome = DecodeVideo(max_frames=19).build()(measured)
    assert isinstance(outcome, Quarantined)
    assert outcome.reason == "video_over_limit"


@pytest.mark.parametrize(("low", "high"), [(2.0, 9.0), (1.0, 2.0)])
def test_length_at_a_limit_is_kept(low: float, high: float) -> None:
    stage = VideoSeconds(min_seconds=low - 1e-6, max_seconds=high + 1e-6)
    assert isinstance(stage.build()(film(ball())), Sample)


@pytest.mark.parametrize(
    ("stage", "reason", "detail"),
    [
        (VideoSeconds(min_seconds=2.1), "video_too_short", "2.000 s < 2.1 s"),
        (VideoSeconds(max_seconds=1.9), "video_too_long", "2.000 s > 1.9 s"),
        (FrameRate(min_fps=11), "video_fps_too_low", "10.00 fps < 11 fps"),
        (FrameRate(max_fps=9), "video_fps_too_high", "10.00 fps > 9 fps"),
    ],
)
def test_length_and_rate_beyond_a_limit_are_dropped(stage: Stage, reason: str, detail: str) -> None:
    outcome = stage.build()(film(ball()))
    assert isinstance(outcome, Dropped)
    assert (outcome.reason, outcome.detail) == (reason, detail)


def test_frame_rate_at_a_limit_is_kept() -> None:
    assert isinstance(FrameRate(min_fps=10, max_fps=10).build()(film(ball())), Sample)


def test_still_picture_as_a_video_is_dropped() -> None:
    outcome = StillVideo().build()(film(ball(step=0)))
    assert isinstance(outcome, Dropped)
    assert outcome.reason == "video_still"
    assert outcome.sample.scores["video_motion"] < 0.1


def test_motion_does_not_depend_on_the_frame_rate() -> None:
    scores = []
    for fps, step in ((8, 4), (16, 2)):
        outcome = StillVideo().build()(film(ball(3 * fps, step=step), fps=fps))
        assert isinstance(outcome, Sample)
        scores.append(outcome.scores["video_motion"])
    assert scores[0] == pytest.approx(scores[1], rel=0.1)


def test_cuts_are_counted_and_drop_only_when_asked() -> None:
    frames = plain(40, 8) + plain(200, 8) + plain(100, 8)
    outcome = SceneCuts().build()(film(frames))
    assert isinstance(outcome, Sample)
    assert outcome.scores == {"video_cuts": 2.0}
    assert isinstance(SceneCuts(max_cuts=2).build()(film(frames)), Sample)
    dropped = SceneCuts(max_cuts=1).build()(film(frames))
    assert isinstance(dropped, Dropped)
    assert (dropped.reason, dropped.detail) == ("video_too_many_cuts", "2 cuts > 1")


def test_motion_and_a_slow_fade_are_no_cuts() -> None:
    fade = [np.full((48, 64, 3), 40 + 5 * i, np.uint8) for i in range(30)]
    for frames in (ball(), fade):
        outcome = SceneCuts().build()(film(frames))
        assert isinstance(outcome, Sample)
        assert outcome.scores == {"video_cuts": 0.0}


def test_half_black_video_is_kept_and_a_darker_one_dropped() -> None:
    outcome = BlackVideo().build()(film(plain(0, 10) + plain(200, 10)))
    assert isinstance(outcome, Sample)
    assert outcome.scores == {"video_black_fraction": 0.5}
    dropped = BlackVideo().build()(film(plain(0, 15) + plain(200, 5)))
    assert isinstance(dropped, Dropped)
    assert (dropped.reason, dropped.detail) == ("video_black", "0.75 of the frames > 0.5")


def test_all_scores_come_from_one_decode_and_spare_the_stages_after() -> None:
    measured = MeasureVideo().build()(film(ball()))
    assert isinstance(measured, Sample)
    assert set(measured.scores) == set(MeasureVideo.stores)
    bare = Sample("a", parts={"mp4": Part(data=b"gone")}, scores=measured.scores)
    for stage in STAGES:
        assert isinstance(stage.build()(bare), Sample)


def test_broken_optional_video_is_left_out() -> None:
    sample = Sample("a", parts={"mp4": Part(data=b"\0\0\0\x18ftypmp42"), "txt": Part(data=b"A.")})
    declared = RequireParts(optional=("video",)).build()(sample)
    assert isinstance(declared, Sample)
    outcome = DecodeVideo().build()(declared)
    assert isinstance(outcome, Sample)
    assert sorted(outcome.parts) == ["txt"]
