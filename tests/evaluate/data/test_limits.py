"""Limits are drawn where the stages set them."""

import importlib
import inspect
import pkgutil
from dataclasses import dataclass

import pytest

import mmcore.clean
from mmcore.core.manifest import Counts, Manifest
from mmcore.core.measured import Measured
from mmcore.core.stage import Stage, rule_name
from mmcore.core.step import Artifact
from mmcore.evaluate.data.limits import LIMITS, limits_of

NOT_DRAWN = {
    "max_pixels", "max_side", "max_megapixels",  # of no single score
    "animated", "languages", "meta_field",  # no number
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Brightness(Stage):
    min_brightness: float = 0.2
    max_width: int = 9


def chain_of(*stages: Stage) -> dict[str, Artifact]:
    work = {"work": "map", "stages": [stage.identity() for stage in stages]}
    identity = {"step": "clean", "work": work, "inputs": {}}
    return {"clean": Artifact("", Manifest("clean", "f" * 64, identity, Counts(), ()))}  # type: ignore[arg-type]


def measuring_stages() -> list[type[Measured]]:
    modules = [
        importlib.import_module(f"mmcore.clean.{module.name}")
        for module in pkgutil.iter_modules(mmcore.clean.__path__)
    ]
    return [
        cls
        for module in modules
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, Measured) and cls.__module__ == module.__name__
    ]


@pytest.mark.parametrize("cls", measuring_stages())
def test_every_limit_of_a_cleaning_stage_names_a_score_that_the_stage_stores(
    cls: type[Measured],
) -> None:
    stage = cls()
    for field in cls.limits:
        if field not in NOT_DRAWN:
            scores = LIMITS[rule_name(stage), field]
            assert set(scores) <= set(stage.score_names())


def test_a_limit_has_its_rule_its_value_and_its_side() -> None:
    from mmcore.clean.audio import MinMaxSeconds
    from mmcore.clean.image import Blurred

    stages = (MinMaxSeconds(min_seconds=0.5, max_seconds=9.0), Blurred())
    found = limits_of([chain_of(*stages)], ["audio_seconds", "image_sharpness"])
    assert [(one.field, one.value, one.is_least) for one in found] == [
        ("max_seconds", 9.0, False),
        ("min_seconds", 0.5, True),
    ]


def test_a_stage_of_ones_own_is_understood_by_the_names_of_its_fields() -> None:
    scores = ["image_brightness", "image_width", "video_width"]
    (found,) = limits_of([chain_of(Brightness())], scores)
    assert (found.score, found.rule, found.value) == ("image_brightness", "brightness", 0.2)
