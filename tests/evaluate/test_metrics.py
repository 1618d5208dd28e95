import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score

from mmcore.evaluate.metrics import (
    SCORES,
    classification,
    confusion,
    interval,
    per_class,
    resample_weights,
    tally,
)
from mmcore.evaluate.predictions import Predictions


def random_answers(seed: int, num_samples: int = 400, num_classes: int = 5):
    rng = np.random.default_rng(seed)
    label = rng.integers(num_classes - 1, size=num_samples)
    right = rng.random(num_samples) < 0.6
    return label, np.where(right, label, rng.integers(num_classes, size=num_samples))


def predictions_of(label, predicted, groups, *, labels=("a", "b", "c")) -> Predictions:
    """Predictions whose every head says `predicted`."""
    sure = np.eye(len(labels))[np.array(predicted)]
    unit = np.ones((len(label), 1), dtype=np.float32)
    heads = ("fused", "image", "text", "audio")
    return Predictions(
        keys=[f"k{i:04d}" for i in range(len(label))],
        labels=list(labels),
        meta=[{"caption_group": str(group), "language": "en"} for group in groups],
        label=np.array(label),
        probabilities=dict.fromkeys(heads, sure),
        embeddings=dict.fromkeys(heads[1:], unit),
        has={modality: np.ones(len(label), dtype=bool) for modality in heads[1:]},
    )


@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_those_of_scikit_learn(seed: int) -> None:
    label, predicted = random_answers(seed)
    group = np.arange(len(label)) % 17
    tallies = tally(label, predicted, group, num_groups=17, num_classes=5)
    whole = [counts.sum(axis=0) for counts in (tallies.correct, tallies.support, tallies.predicted)]
    assert SCORES["accuracy"](*whole) == pytest.approx(np.mean(label == predicted))
    with pytest.warns(UserWarning, match="classes not in y_true"):
        expected = balanced_accuracy_score(label, predicted)
    assert SCORES["macro_recall"](*whole) == pytest.approx(expected)
    f1 = f1_score(label, predicted, average="macro", labels=np.unique(label))
    assert SCORES["macro_f1"](*whole) == pytest.approx(f1)


def test_confusion_has_the_truth_in_rows() -> None:
    label, predicted = random_answers(3)
    expected = confusion_matrix(label, predicted, labels=range(5))
    assert confusion(label, predicted, 5).tolist() == expected.tolist()


def test_class_that_never_occurs_has_zeros_and_no_division_by_zero() -> None:
    rows = per_class(np.array([[3, 0], [0, 0]]), ["a", "b"])
    assert rows[1] == {"label": "b", "num_samples": 0, "precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_resamples_draw_as_many_groups_as_there_are() -> None:
    weights = resample_weights(7, num_resamples=50, seed=1)
    assert weights.shape == (50, 7)
    assert set(weights.sum(axis=1).tolist()) == {7}


def test_interval_is_wider_when_a_caption_is_one_draw_than_when_each_sample_is() -> None:
    # 10 captions of 40 samples: right or wrong together
    label = np.zeros(400, dtype=np.int64)
    predicted = np.repeat([0, 1] * 5, 40)
    widths = {}
    for name, groups in {"captions": np.repeat(range(10), 40), "samples": range(400)}.items():
        found = classification(
            predictions_of(label, predicted, [f"{g:03d}" for g in groups]),
            majority="a",
            slices=(),
            num_resamples=400,
            seed=0,
        )
        accuracy = found["heads"]["fused"]["accuracy"]  # type: ignore[index, call-overload]
        widths[name] = accuracy["high"] - accuracy["low"]  # type: ignore[index, call-overload, operator]
    assert widths["captions"] > 4 * widths["samples"]


def test_bootstrap_interval_has_the_width_that_theory_says() -> None:
    # accuracy 0.7 of 1000 independent samples: 1.96 * sqrt(0.7 * 0.3 / 1000) = 0.0284 each way
    label = np.zeros(1000, dtype=np.int64)
    predicted = np.array([0] * 700 + [1] * 300)
    found = classification(
        predictions_of(label, predicted, [f"{i:04d}" for i in range(1000)]),
        majority="a",
        slices=(),
        num_resamples=2000,
        seed=0,
    )
    accuracy = found["heads"]["fused"]["accuracy"]  # type: ignore[index, call-overload]
    assert accuracy["low"] == pytest.approx(0.6716, abs=0.004)  # type: ignore[index, call-overload]
    assert accuracy["high"] == pytest.approx(0.7284, abs=0.004)  # type: ignore[index, call-overload]


def test_same_seed_gives_the_same_metrics_and_another_seed_other_intervals() -> None:
    label, predicted = random_answers(0, num_classes=3)
    given = predictions_of(label, predicted, [f"{i % 40:02d}" for i in range(len(label))])
    first, again, other = (
        classification(given, majority="a", slices=("language",), num_resamples=50, seed=seed)
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first["heads"] != other["heads"]


def test_majority_is_the_class_named_and_not_the_commonest_of_this_split() -> None:
    given = predictions_of([0, 0, 0, 1], [0, 0, 0, 1], "wxyz")
    found = classification(given, majority="b", slices=(), num_resamples=10, seed=0)
    assert found["majority"] == {"label": "b", "accuracy": 0.25}


def test_interval_holds_the_middle_of_the_draws() -> None:
    assert interval(0.5, np.linspace(0, 1, 1001)) == {"value": 0.5, "low": 0.025, "high": 0.975}
