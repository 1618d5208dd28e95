"""What the commands of searches and folds print, of results that are made up."""

from mmcore.cli.crossvalidate import _table as table_of_folds
from mmcore.cli.tune import _table as table_of_trials
from mmcore.recipe.crossvalidate import CrossValidation, FoldResult, Spread
from mmcore.recipe.tune import Search, TrialResult


def a_trial(number: int, status: str, value: float | None, epochs: int) -> TrialResult:
    history = [{"epoch": float(epoch)} for epoch in range(1, epochs + 1)]
    settings = {"train.learning_rate": 10.0**-number}
    return TrialResult(number, settings, "ab" * 32, status, value, history, "no memory")


TRIALS = [
    a_trial(0, "done", 0.25, 3),
    a_trial(1, "stopped", 0.9, 1),
    a_trial(2, "done", 0.75, 3),
    a_trial(3, "failed", None, 0),
]


def test_trials_stand_in_the_order_of_their_worth_and_those_without_a_model_last() -> None:
    lines = list(table_of_trials(Search("ab", "d/1", "val_accuracy", "max", TRIALS, 4)))
    assert [line.split()[0] for line in lines] == ["trial", "2", "0", "1", "3"]
    assert lines[1].split() == ["2", "0.7500", "3", "0.01"]
    assert lines[3].endswith("stopped early")
    assert lines[4].endswith("failed: no memory")


def test_the_best_is_the_best_that_has_a_model_whichever_way_is_better() -> None:
    most = Search("ab", "d/1", "val_accuracy", "max", TRIALS, 4).best
    least = Search("ab", "d/1", "val_loss", "min", TRIALS, 4)
    assert most is not None
    assert most.number == 2
    assert least.best is not None
    assert least.best.number == 0
    assert least.to_json()["best"] == ["train.learning_rate=1.0"]
    none = Search("ab", "d/1", "val_loss", "min", TRIALS[1:2], 1)
    assert none.best is None
    assert none.to_json()["best"] is None


def test_a_score_has_its_mean_its_deviation_and_every_fold_on_one_line() -> None:
    folds = [FoldResult(n, "ab" * 32, 6, {"accuracy": 0.5 + n / 4}) for n in (0, 1)]
    spreads = {"accuracy": Spread(0.625, 0.176777, 0.5, 0.75)}
    *_, titles, line = table_of_folds(CrossValidation("d/1", folds, spreads, 2))
    assert titles.split() == ["mean", "+-", "fold", "1", "fold", "2"]
    assert line.split() == ["accuracy", "0.625", "0.177", "0.500", "0.750"]
