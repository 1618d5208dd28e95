"""What a box of a run's graph says."""

import pytest

from mmcore.dashboard.dag import notes
from mmcore.dashboard.progress import StepState


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (
            {"status": "done", "seconds": 12.0, "counts": {"found": 9, "kept": 7}},
            ["7 kept", "12 s"],
        ),
        ({"status": "done", "seconds": 2.0}, ["2.0 s"]),
        (
            {"status": "running", "started_at": 0.0, "done": 1, "total": 4, "num_tasks": 4},
            ["25%", "1 min 00 s left"],
        ),
        ({"status": "running", "started_at": 5.0}, ["15 s"]),
        ({"status": "skipped"}, ["there already"]),
        ({"status": "waiting", "estimated_seconds": 30.0}, ["about 30 s"]),
        ({"status": "waiting"}, ["waits"]),
        ({"status": "not_reached"}, ["not reached"]),
    ],
)
def test_a_box_says_in_one_or_two_lines_how_far_its_step_is(
    state: dict[str, object], said: list[str]
) -> None:
    assert notes(StepState("clean", **state), now=20.0) == said  # type: ignore[arg-type]
