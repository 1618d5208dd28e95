"""Motion, cuts and darkness of scans that are made by hand."""

import numpy as np
import pytest

from mmcore.media.scenes import black_fraction, count_cuts, motion
from mmcore.media.video import SCAN_HEIGHT, SCAN_WIDTH, VideoHeader, VideoScan

HEADER = VideoHeader(
    format="MP4", codec="h264", width=64, height=36, seconds=None, num_streams=1, has_audio=False
)


def scan(levels: list[int], *, fps: float = 4.0) -> VideoScan:
    luma = np.stack([np.full((SCAN_HEIGHT, SCAN_WIDTH), level, np.uint8) for level in levels])
    times = np.arange(len(levels)) / fps
    return VideoScan(header=HEADER, width=64, height=36, times=times, luma=luma)


def test_motion_is_the_change_over_a_quarter_of_a_second() -> None:
    assert motion(scan([0, 3, 6, 9])) == 3.0
    assert motion(scan([9, 6, 3, 0])) == 3.0
    assert motion(scan([0, 3, 6, 9, 12, 15, 18], fps=8.0)) == 6.0


def test_motion_of_frames_that_are_far_apart_counts_the_time_between() -> None:
    # at one frame a second three of four quarters show no change
    assert motion(scan([0, 100, 200], fps=1.0)) == 0.0


def test_cuts_do_not_count_for_motion() -> None:
    assert motion(scan([10, 10, 10, 200, 200, 200])) == 0.0


@pytest.mark.parametrize(("levels", "wanted"), [([7], 0.0), ([0, 50], 50.0)])
def test_video_shorter_than_a_quarter_is_judged_end_to_end(
    levels: list[int], wanted: float
) -> None:
    assert motion(scan(levels, fps=30.0)) == wanted


@pytest.mark.parametrize(
    ("levels", "cuts"),
    [
        ([10], 0),
        ([10, 10, 10], 0),
        ([10, 10, 200, 200], 1),
        ([10, 10, 200, 200, 60, 60], 2),
        ([0, 20, 40, 60, 80, 100, 120], 0),
        # just below and at ten percent of 255
        ([0, 0, 25, 25], 0),
        ([0, 0, 26, 26], 1),
    ],
)
def test_cuts_are_sudden_changes(levels: list[int], cuts: int) -> None:
    assert count_cuts(scan(levels)) == cuts


def test_constant_strong_motion_is_no_row_of_cuts() -> None:
    assert count_cuts(scan([0, 100, 0, 100, 0, 100])) == 1


def test_frame_is_black_when_nearly_all_of_it_is_dark() -> None:
    assert black_fraction(scan([31, 31, 32, 200])) == 0.5
    specks = scan([0])
    specks.luma[0, 0, : round(0.02 * SCAN_HEIGHT * SCAN_WIDTH)] = 255
    assert black_fraction(specks) == 1.0
    specks.luma[0, 1, :] = 255
    assert black_fraction(specks) == 0.0
