"""How often a model is right, against guessing the majority and against each modality alone.

Intervals are 95% percentile intervals of the bootstrap (Efron 1979) over caption groups: whole
groups are drawn again, for samples of one caption in several languages are not independent.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmcore.evaluate.predictions import FUSED, MODALITIES, Array, Predictions
from mmcore.sample import Json

DIGITS = 6
_RESAMPLES_AT_ONCE = 64


@dataclass(frozen=True)
class Tallies:
    """Counts per caption group and class, int64 [G, C] each; enough for every metric here."""

    correct: Array
    support: Array
    """How many samples are of the class."""
    predicted: Array
    """How many samples were said to be of the class."""


def tally(
    label: Array, predicted: Array, group: Array, *, num_groups: int, num_classes: int
) -> Tallies:
    """Count what N samples were and were said to be, by group and class."""

    def count(classes: Array, groups: Array) -> Array:
        flat = np.bincount(groups * num_classes + classes, minlength=num_groups * num_classes)
        return flat.reshape(num_groups, num_classes)

    right = label == predicted
    return Tallies(
        correct=count(label[right], group[right]),
        support=count(label, group),
        predicted=count(predicted, group),
    )


def accuracy(correct: Array, support: Array, predicted: Array) -> Array:
    """Return the share of samples that are right, over the last axis (classes)."""
    return _ratio(correct.sum(axis=-1), support.sum(axis=-1))


def macro_recall(correct: Array, support: Array, predicted: Array) -> Array:
    """Return the mean recall of the classes that occur (balanced accuracy)."""
    return _mean_where(_ratio(correct, support), support > 0)


def macro_f1(correct: Array, support: Array, predicted: Array) -> Array:
    """Return the mean F1 of the classes that occur."""
    return _mean_where(_ratio(2 * correct, support + predicted), support > 0)


SCORES: Mapping[str, Callable[[Array, Array, Array], Array]] = {
    "accuracy": accuracy,
    "macro_recall": macro_recall,
    "macro_f1": macro_f1,
}


def resample_weights(num_groups: int, *, num_resamples: int, seed: int) -> Array:
    """Return how often each group is drawn in each resample, int64 [R, G]; each row sums to G."""
    rng = np.random.Generator(np.random.Philox(seed))
    return rng.multinomial(num_groups, np.full(num_groups, 1 / num_groups), size=num_resamples)


def interval(value: float, resampled: Array) -> dict[str, float]:
    """Return a value with the middle 95% of its resamples."""
    low, high = np.percentile(resampled, [2.5, 97.5])
    return {"value": rounded(value), "low": rounded(low), "high": rounded(high)}


def confusion(label: Array, predicted: Array, num_classes: int) -> Array:
    """Return int64 [C, C]: rows are what samples are, columns what they were said to be."""
    flat = np.bincount(label * num_classes + predicted, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes)


def classification(
    predictions: Predictions,
    *,
    majority: str,
    slices: Sequence[str],
    num_resamples: int,
    seed: int,
) -> dict[str, Json]:
    """Return every classification metric of a split, ready for JSON.

    `majority` is the most common class of the training split: what a model that looks at nothing
    would answer.
    """
    group = predictions.caption_groups()
    num_groups, num_classes = int(group.max()) + 1, len(predictions.labels)
    weights = resample_weights(num_groups, num_resamples=num_resamples, seed=seed)
    heads: dict[str, Any] = {}
    resampled: dict[str, Array] = {}
    for head in (FUSED, *MODALITIES):
        present = predictions.present(head)
        if not present.any():
            continue
        tallies = tally(
            predictions.label[present],
            predictions.predicted(head)[present],
            group[present],
            num_groups=num_groups,
            num_classes=num_classes,
        )
        heads[head] = {"num_samples": int(present.sum())}
        for name, score in SCORES.items():
            draws = _resampled(score, tallies, weights)
            heads[head][name] = interval(_whole(score, tallies), draws)
            resampled[f"{head}.{name}"] = draws
    fused = predictions.predicted(FUSED)
    matrix = confusion(predictions.label, fused, num_classes)
    majority_share = float(np.mean(np.array(predictions.labels)[predictions.label] == majority))
    return {
        "num_samples": len(predictions.keys),
        "num_caption_groups": num_groups,
        "labels": list(predictions.labels),
        "heads": heads,
        "majority": {"label": majority, "accuracy": rounded(majority_share)},
        "fused_against_best": _against_best(heads, resampled),
        "classes": per_class(matrix, predictions.labels),
        "confusion": matrix.tolist(),
        "slices": {name: slice_accuracy(predictions, name) for name in slices},
    }


def per_class(matrix: Array, labels: Sequence[str]) -> list[Json]:
    """Return support, precision, recall and F1 of each class."""
    correct, support, predicted = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    columns = {
        "precision": _ratio(correct, predicted),
        "recall": _ratio(correct, support),
        "f1": _ratio(2 * correct, support + predicted),
    }
    return [
        {
            "label": label,
            "num_samples": int(support[i]),
            **{name: rounded(values[i]) for name, values in columns.items()},
        }
        for i, label in enumerate(labels)
    ]


def slice_accuracy(predictions: Predictions, field: str) -> list[Json]:
    """Return the fused accuracy for each value of a metadata field, the largest slice first."""
    right = predictions.predicted(FUSED) == predictions.label
    found: dict[str, list[bool]] = {}
    for meta, is_right in zip(predictions.meta, right, strict=True):
        if field in meta:
            found.setdefault(str(meta[field]), []).append(bool(is_right))
    ordered = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
    return [
        {"value": value, "num_samples": len(hits), "accuracy": rounded(np.mean(hits))}
        for value, hits in ordered
    ]


def rounded(value: Any) -> float:
    """Return a number to six digits: what lies beyond is the noise of the hardware."""
    return round(float(value), DIGITS)


def _against_best(heads: Mapping[str, Any], resampled: Mapping[str, Array]) -> dict[str, Json]:
    """Compare the fused head with the best single modality, on the same resamples."""
    alone = [head for head in MODALITIES if head in heads]
    if not alone:
        return {}
    best = max(alone, key=lambda head: heads[head]["accuracy"]["value"])
    fused_error = 1 - heads[FUSED]["accuracy"]["value"]
    best_error = 1 - heads[best]["accuracy"]["value"]
    draws = resampled[f"{FUSED}.accuracy"] - resampled[f"{best}.accuracy"]
    return {
        "modality": best,
        "accuracy_gain": dict(interval(best_error - fused_error, draws)),
        "error_reduction": rounded(1 - fused_error / best_error) if best_error > 0 else 0.0,
    }


def _whole(score: Callable[[Array, Array, Array], Array], tallies: Tallies) -> float:
    sums = (tallies.correct, tallies.support, tallies.predicted)
    return float(score(*(counts.sum(axis=0) for counts in sums)))


def _resampled(
    score: Callable[[Array, Array, Array], Array], tallies: Tallies, weights: Array
) -> Array:
    """Return the score of every resample, float64 [R]."""
    sums = (tallies.correct, tallies.support, tallies.predicted)
    pieces = [
        score(*(some @ counts for counts in sums))
        for some in np.array_split(weights, -(-len(weights) // _RESAMPLES_AT_ONCE))
    ]
    return np.concatenate(pieces)


def _ratio(above: Array, below: Array) -> Array:
    """Divide; 0 / 0 is 0."""
    zeros = np.zeros(np.broadcast(above, below).shape)
    return np.divide(above, below, out=zeros, where=np.asarray(below) > 0)


def _mean_where(values: Array, wanted: Array) -> Array:
    return _ratio((values * wanted).sum(axis=-1), wanted.sum(axis=-1))
