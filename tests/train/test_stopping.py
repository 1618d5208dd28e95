import json

import pytest

from mmcore.errors import ConfigError
from mmcore.train.config import EarlyStopping
from mmcore.train.stopping import Patience


def ends_at(values: list[float], **fields: object) -> int | None:
    """Return after which epoch training ends, counted from 1."""
    config = EarlyStopping(**{"patience": 2, **fields})  # type: ignore[arg-type]
    patience = Patience(config)
    for epoch, value in enumerate(values, start=1):
        if patience.is_over({config.metric: value}):
            return epoch
    return None


def test_training_ends_after_so_many_epochs_in_a_row_without_a_better_figure() -> None:
    assert ends_at([3.0, 2.0, 2.5, 1.9, 1.9, 2.0, 0.1]) == 6
    assert ends_at([3.0, 2.0, 1.0, 0.5]) is None


def test_a_change_below_the_least_is_none() -> None:
    assert ends_at([3.0, 2.95, 2.91], min_delta=0.1) == 3
    assert ends_at([3.0, 2.95, 2.89, 2.89], min_delta=0.1) is None


def test_of_an_accuracy_more_is_better() -> None:
    assert ends_at([0.5, 0.6, 0.4, 0.6], metric="val_accuracy", mode="max") == 4


def test_a_figure_that_is_not_a_number_is_never_the_best() -> None:
    assert ends_at([float("nan"), 2.0, 3.0, 2.5]) == 4


def test_it_goes_on_from_its_state() -> None:
    config = EarlyStopping(patience=2)
    first, second = Patience(config), Patience(config)
    first.is_over({"val_loss": 1.0})
    first.is_over({"val_loss": 2.0})
    second.load(json.loads(json.dumps(first.state())))
    assert second.is_over({"val_loss": 2.0})


def test_a_figure_that_is_not_measured_names_those_that_are() -> None:
    with pytest.raises(
        ConfigError, match=r"metric='val_f1' is not measured. Use one of .'val_loss"
    ):
        Patience(EarlyStopping(metric="val_f1", mode="max")).is_over({"val_loss": 1.0})


def test_stopping_when_it_goes_well_is_refused() -> None:
    with pytest.raises(ConfigError, match="Use mode: max"):
        EarlyStopping(metric="val_accuracy")
