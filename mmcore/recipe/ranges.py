"""Draws the settings of trials out of ranges: a function of the seed, the same everywhere.

More trials begin with those that fewer would have been.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmcore.recipe.schema import Range

_MAX_TRIES = 50
"""Per trial: where there are few values, most draws have been seen."""
_DIGITS = 6

Settings = Mapping[str, Any]


def draw_trials(ranges: Mapping[str, Range], *, num: int, seed: int) -> list[Settings]:
    """Return the settings of so many different trials, or of as many as there can be."""
    found: dict[str, Settings] = {}
    for turn in range(num * _MAX_TRIES):
        settings = {name: _drawn(one, f"{seed}/{turn}/{name}") for name, one in ranges.items()}
        found.setdefault(json.dumps(settings, sort_keys=True), settings)
        if len(found) == num:
            break
    return list(found.values())


def overrides_of(settings: Settings) -> Sequence[str]:
    """Return settings as `--set` takes them."""
    return [f"{name}={json.dumps(value)}" for name, value in settings.items()]


def _drawn(one: Range, seed: str) -> Any:
    digest = hashlib.sha256(seed.encode()).digest()
    point = int.from_bytes(digest[:6]) / 2**48
    if one.choice is not None:
        return one.choice[int(point * len(one.choice))]
    if one.integer is not None:
        low, high = one.integer
        return low + int(point * (high - low + 1))
    if one.log_uniform is not None:
        low_log, high_log = map(math.log, one.log_uniform)
        return _rounded(math.exp(low_log + point * (high_log - low_log)))
    assert one.uniform is not None, "a range has one of these"
    start, end = one.uniform
    return _rounded(start + point * (end - start))


def _rounded(value: float) -> float:
    # so few digits that no library of mathematics gives others, and that people can read
    return float(f"{value:.{_DIGITS}g}")
