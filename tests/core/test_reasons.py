"""Why a step runs again, in words."""

import pytest

from mmcore.core.reasons import GONE, NEVER, why
from mmcore.sample import Json


def identity(*stages: dict[str, Json], **inputs: Json) -> dict[str, Json]:
    return {"step": "clean", "work": {"work": "map", "stages": list(stages)}, "inputs": inputs}


SIDE: dict[str, Json] = {"stage": "mmcore.clean.image.MinSide", "min_side": 32}
FLAT: dict[str, Json] = {"stage": "mmcore.clean.image.Flatness", "min_std": 2.0}


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (None, identity(SIDE), NEVER),
        (identity(SIDE), identity(SIDE), GONE),
        (identity(SIDE), identity({**SIDE, "min_side": 64}), "MinSide.min_side: 32 -> 64"),
        (identity(SIDE), identity(FLAT, SIDE), "Flatness added"),
        (identity(FLAT, SIDE), identity(SIDE), "Flatness removed"),
        (identity(SIDE, ingest="a"), identity(SIDE, ingest="b"), "input changed: ingest"),
        (
            identity(SIDE, ingest="a"),
            {**identity(SIDE, ingest="b"), "base": "5e" * 32, "forgotten": "d1" * 32},
            "builds on another dataset version; what is to be forgotten has changed; "
            "input changed: ingest",
        ),
        (
            {**identity(SIDE), "settled": "5e" * 32},
            identity(SIDE),
            "holds on to the splits of another dataset version",
        ),
        (
            identity(FLAT, SIDE),
            identity(SIDE, FLAT),
            "stages in order: Flatness MinSide -> MinSide Flatness",
        ),
    ],
)
def test_what_changed_is_said_by_name(
    before: dict[str, Json] | None, after: dict[str, Json], said: str
) -> None:
    assert why(after, before) == said


def test_many_changes_are_counted() -> None:
    old = identity({**SIDE, "a": 1, "b": 1, "c": 1, "d": 1})
    new = identity({**SIDE, "a": 2, "b": 2, "c": 2, "d": 2})
    assert why(new, old).endswith("and 1 more")
