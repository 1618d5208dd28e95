"""Settings by what a stage looks at."""

from collections.abc import Callable

import pytest

from mmcore.core.map_work import MapWork
from mmcore.errors import ConfigError
from mmcore.recipe.build import load_recipe
from mmcore.recipe.overrides import spelled_out

STAGES = {
    "min_side": {"min_side": 16},
    "narrow": {"use": "mmcore.clean.image.MaxAspect"},
    "caption_length": None,
    "caption_repetition": None,
    "not_there": {},
}


def test_a_modality_stands_for_the_one_stage_that_has_the_field() -> None:
    given = ["clean.image.min_side=48", "clean.image.max_aspect=2", "clean.text.min_words=3"]
    assert spelled_out(given, STAGES) == [
        "clean.min_side.min_side=48",
        "clean.narrow.max_aspect=2",
        "clean.caption_length.min_words=3",
    ]


def test_other_settings_stay_as_they_are() -> None:
    given = ["clean.min_side.min_side=48", "train.epochs=3", "clean={}", "model.image=null"]
    assert spelled_out(given, STAGES) == given


def test_a_stage_of_that_name_goes_first() -> None:
    assert spelled_out(["clean.image.side=4"], {"image": {}}) == ["clean.image.side=4"]


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        (
            "clean.text.max_words=3",
            "clean.caption_length.max_words or clean.caption_repetition.max",
        ),
        ("clean.image.sides=3", "There are: clean.min_side.min_side, clean.narrow.max_aspect"),
        ("clean.audio.min_seconds=3", "no stage of the recipe looks at audio .* There are: none"),
    ],
)
def test_what_is_not_clear_is_refused_with_the_keys(override: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        spelled_out([override], STAGES)


def test_a_recipe_takes_them(recipe: Callable[..., str]) -> None:
    loaded = load_recipe(recipe(), overrides=["clean.image.min_side=48"])
    work = loaded.graph.step("clean").work
    assert isinstance(work, MapWork)
    assert [getattr(stage, "min_side", None) for stage in work.stages].count(48) == 1
    assert loaded.overrides == ("clean.min_side.min_side=48",)
