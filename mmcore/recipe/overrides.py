"""`--set clean.image.min_side=128`: a modality stands for the stage that looks at it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from mmcore.core.stage import Stage
from mmcore.errors import ConfigError
from mmcore.recipe.components import InvalidComponent, find_class
from mmcore.sample import MODALITIES

SECTION = "clean"
Stages = Mapping[str, Mapping[str, Any] | None]


def is_by_modality(override: str) -> bool:
    """Return whether an override names a modality where the key of a stage stands."""
    section, _, rest = override.partition("=")[0].partition(".")
    modality, _, field = rest.partition(".")
    return section == SECTION and modality in MODALITIES and bool(field)


def by_stage(override: str, stages: Stages) -> str:
    """Return an override with the key of the one stage that looks at the modality and has the
    field; ConfigError when there is none, or several. A stage of that key goes first.
    """
    name, equals, value = override.partition("=")
    _, modality, field = name.split(".", 2)
    if modality in stages:
        return override
    first = field.split(".")[0]
    found = [key for key, stage in _reading(modality, stages) if first in _fields(stage)]
    if len(found) == 1:
        return f"{SECTION}.{found[0]}.{field}{equals}{value}"
    if found:
        spelled = " or ".join(f"{SECTION}.{key}.{field}" for key in found)
        raise ConfigError(f"--set {override!r}: several stages have that field. Say {spelled}.")
    known = [
        f"{SECTION}.{key}.{field}"
        for key, stage in _reading(modality, stages)
        for field in _fields(stage)
    ]
    raise ConfigError(
        f"--set {override!r}: no stage of the recipe looks at {modality} and has the field "
        f"{first!r}. There are: {', '.join(known) or 'none'}."
    )


def _reading(modality: str, stages: Stages) -> Iterator[tuple[str, type[Stage]]]:
    for key, given in stages.items():
        try:
            cls = find_class((given or {}).get("use", key), (SECTION, key))
        except InvalidComponent:
            # it is said where the recipe is built
            continue
        if issubclass(cls, Stage) and modality in cls.reads:
            yield key, cls


def _fields(stage: type[Stage]) -> list[str]:
    return [field.name for field in fields(stage)]


def spelled_out(overrides: Sequence[str], stages: Stages) -> list[str]:
    """Return overrides with every stage by its key."""
    return [by_stage(one, stages) if is_by_modality(one) else one for one in overrides]
