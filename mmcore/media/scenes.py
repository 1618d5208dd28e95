"""What is to be seen of a video in its small gray frames: motion, cuts, darkness."""

from itertools import pairwise
from typing import Any

import numpy as np

from mmcore.media.video import VideoScan

MOTION_SECONDS = 0.25
CUT_THRESHOLD = 10.0
_BLACK_LUMA = 32
_BLACK_SHARE = 0.98


def motion(scan: VideoScan) -> float:
    """Return the mean change of luma, 0 to 255, over a quarter of a second; 0 for a still.

    Between the frames shown at 0, 0.25, 0.5 s ..., so that it does not depend on the frame rate,
    and as the median of them, so that cuts do not count for motion.
    """
    moments = np.arange(0.0, scan.times[-1] + 1e-6, MOTION_SECONDS)
    shown = np.searchsorted(scan.times, moments + 1e-6, side="right") - 1
    if len(shown) < 2:
        # shorter than that: what it does from end to end
        shown = np.array([0, len(scan.times) - 1])
    return float(np.median(_changes(scan, shown)))


def count_cuts(scan: VideoScan) -> int:
    """Return the number of cuts between two shots.

    As FFmpeg's filter scdet: the score of a frame is the lesser of its change in percent and of
    how much that differs from the change before it; 10 and more is a cut. Fades are not seen.
    """
    change = _changes(scan, np.arange(len(scan.times))) * (100.0 / 255.0)
    score = np.minimum(change, np.abs(np.diff(change, prepend=0.0)))
    return int(np.count_nonzero(score >= CUT_THRESHOLD))


def black_fraction(scan: VideoScan) -> float:
    """Return the share of black frames: 98 % of the pixels below luma 32 (FFmpeg's blackframe)."""
    dark = (scan.luma < _BLACK_LUMA).mean(axis=(1, 2))
    return float((dark >= _BLACK_SHARE).mean())


def _changes(
    scan: VideoScan, shown: np.ndarray[Any, np.dtype[np.int64]]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the mean absolute difference of luma between each frame and the next of some."""
    return np.array(
        [np.abs(scan.luma[b].astype(np.int16) - scan.luma[a]).mean() for a, b in pairwise(shown)]
    )
