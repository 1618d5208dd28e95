from collections import Counter
from collections.abc import Callable
from math import log10

import pytest

from mmcore.config import load_config
from mmcore.errors import ConfigError
from mmcore.recipe.build import load_recipe
from mmcore.recipe.ranges import draw_trials, overrides_of
from mmcore.recipe.schema import Range, Recipe

RANGES = {
    "train.learning_rate": Range(log_uniform=(1e-5, 1e-1)),
    "train.weight_decay": Range(choice=(0, 0.05)),
    "model.dropout": Range(uniform=(0.1, 0.5)),
    "model.embedding_dim": Range(integer=(4, 6)),
}


def test_draws_lie_in_their_ranges_and_fill_them() -> None:
    trials = draw_trials(RANGES, num=400, seed=0)
    decades = Counter(int(-log10(one["train.learning_rate"])) for one in trials)
    assert all(70 < decades[decade] < 130 for decade in (1, 2, 3, 4))
    assert {one["train.weight_decay"] for one in trials} == {0, 0.05}
    assert {one["model.embedding_dim"] for one in trials} == {4, 5, 6}
    dropouts = [one["model.dropout"] for one in trials]
    assert 0.1 <= min(dropouts) < 0.12
    assert 0.48 < max(dropouts) <= 0.5


def test_more_trials_begin_with_those_that_fewer_would_have_been() -> None:
    assert draw_trials(RANGES, num=9, seed=4)[:5] == draw_trials(RANGES, num=5, seed=4)
    assert draw_trials(RANGES, num=5, seed=5) != draw_trials(RANGES, num=5, seed=4)


def test_nothing_is_tried_twice_and_few_settings_are_few_trials() -> None:
    few = {"train.weight_decay": Range(choice=(0, 0.05)), "train.seed": Range(integer=(1, 2))}
    trials = draw_trials(few, num=10, seed=0)
    assert len({tuple(one.items()) for one in trials}) == len(trials) == 4


def test_what_was_drawn_is_read_back_as_it_is(recipe: Callable[..., str]) -> None:
    more = "model: {}\ntrain: {global_batch_size: 4}\n"
    for settings in ({"train.learning_rate": 1e-05, "train.seed": 3}, {"train.betas": [0.8, 0.9]}):
        loaded = load_recipe(recipe(more=more), overrides=overrides_of(settings))
        train = loaded.graph.step("train").work.train  # type: ignore[attr-defined]
        for name, value in settings.items():
            found = getattr(train, name.removeprefix("train."))
            assert found == (tuple(value) if isinstance(value, list) else value)


def test_a_recipe_declares_ranges_beside_the_metric(recipe: Callable[..., str]) -> None:
    more = "tune:\n  metric: val_loss\n  mode: min\n  train.learning_rate: {log_uniform: [1e-4, 1e-2]}\n"
    tune = load_config(recipe(more=more), Recipe).value.tune
    assert (tune.metric, tune.mode) == ("val_loss", "min")
    assert tune.ranges == {"train.learning_rate": Range(log_uniform=(1e-4, 1e-2))}


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("{metrc: val_loss}", "'metrc' is nothing to search"),
        ("{clean.min_side: {choice: [1]}}", "is for a setting of train., model., loader."),
        ("{train.epochs: {choice: [1, 2]}}", "trials are compared by epochs"),
        ("{train.seed: {}}", "give one of choice, uniform, log_uniform, integer, not 0"),
        ("{train.seed: {choice: [1], integer: [1, 2]}}", "not 2 of them"),
        ("{train.seed: {choice: []}}", "choice is empty"),
        ("{train.seed: {integer: [2, 1]}}", "integer from 2 to 1 is no range"),
        ("{train.seed: {log_uniform: [0, 1]}}", "a logarithm begins above 0"),
        ("{train.seed: {normal: [0, 1]}}", "unknown key"),
        ("{mode: most}", "tune.mode"),
    ],
)
def test_a_range_that_is_none_is_refused_with_its_place(
    recipe: Callable[..., str], section: str, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe(more=f"tune: {section}\n"))
    assert said in str(caught.value)
    assert "tiny.yaml:" in str(caught.value)
