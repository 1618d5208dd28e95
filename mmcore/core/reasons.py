"""Says why a step runs again: which parts of its identity differ from the last time."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmcore.sample import Json

NEVER = "never ran here"
GONE = "its artifact is gone or was never finished"
_MAX_SAID = 3
_STAGE = "stage"
_ORDER = " in order"
_AHEAD = "ahead."
_IN_WORDS = {
    "base": "builds on another dataset version",
    "settled": "holds on to the splits of another dataset version",
    "forgotten": "what is to be forgotten has changed",
}
"""What is a digest on both sides, which tells people nothing."""


def why(identity: Mapping[str, Json], before: Mapping[str, Json] | None) -> str:
    """Return what changed in words: settings with both values, stages that came or went, inputs.

    >>> why({"work": {"side": 64}, "inputs": {}}, {"work": {"side": 32}, "inputs": {}})
    'side: 32 -> 64'
    """
    if before is None:
        return NEVER
    old, new = dict(_leaves(before)), dict(_leaves(identity))
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    inputs = [name.removeprefix("inputs.") for name in names if name.startswith("inputs.")]
    settings = [name for name in names if not name.startswith("inputs.")]
    moved = [name for name in settings if old.get(name) is _PRESENT or new.get(name) is _PRESENT]
    said = [f"{_spell(name)} {'removed' if name in old else 'added'}" for name in moved]
    said += [
        _IN_WORDS.get(name) or f"{_spell(name)}: {old.get(name)} -> {new.get(name)}"
        for name in settings
        if name not in moved
        and not name.startswith(tuple(f"{one}." for one in moved))
        and not (moved and name.endswith(_ORDER))
    ]
    if len(said) > _MAX_SAID:
        said = [*said[:_MAX_SAID], f"and {len(said) - _MAX_SAID} more"]
    if inputs:
        said.append(f"input changed: {', '.join(inputs)}")
    return "; ".join(said) or GONE


class _Present:
    """Stands for a stage that is there."""


_PRESENT = _Present()


def _spell(name: str) -> str:
    name = name.removeprefix("work.").removeprefix("stages.").removeprefix("rules.")
    # a stage of a later step, whose work is done here
    return f"{name.removeprefix(_AHEAD)} (ahead)" if name.startswith(_AHEAD) else name


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value with its dotted path; stages go by their class, not by their position."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list | tuple):
        stages = [
            inner[_STAGE] for inner in value if isinstance(inner, Mapping) and _STAGE in inner
        ]
        if stages:
            yield f"{path}{_ORDER}", " ".join(stage.rsplit(".", 1)[-1] for stage in stages)
        for index, inner in enumerate(value):
            if isinstance(inner, Mapping) and _STAGE in inner:
                at = f"{path}.{inner[_STAGE].rsplit('.', 1)[-1]}"
                yield at, _PRESENT
                yield from _leaves({k: v for k, v in inner.items() if k != _STAGE}, at)
            else:
                yield from _leaves(inner, f"{path}[{index}]")
    else:
        yield path, value
