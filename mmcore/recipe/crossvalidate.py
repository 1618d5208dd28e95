"""Trains a recipe once per fold, each time judged on what was held out: how much is luck."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from mmcore.core.manifest import load_manifest
from mmcore.core.runner import Listener
from mmcore.core.step import fingerprint_of
from mmcore.errors import ConfigError
from mmcore.recipe.build import LoadedRecipe
from mmcore.recipe.variants import (
    EVALUATE_STEP,
    TRAIN_STEP,
    MakeExecutor,
    dataset_of,
    load_trainable,
    open_with_data,
    planned,
    run_variant,
    varied,
)

_NOT_A_SCORE = ("num_samples", "majority_accuracy")


@dataclass(frozen=True)
class FoldResult:
    """What came of one fold."""

    number: int
    run_key: str
    """The fingerprint of its training: what its curves, its model and its MLflow run go by."""
    num_samples: int
    """Held out."""
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Spread:
    """A score over the folds."""

    mean: float
    deviation: float
    """Of one fold from the mean: the sample standard deviation."""
    low: float
    high: float


@dataclass(frozen=True)
class CrossValidation:
    """What came of all folds."""

    dataset: str
    """`name/version`"""
    folds: Sequence[FoldResult]
    spreads: Mapping[str, Spread]
    num_trained: int
    """How many folds were not there already."""

    def to_json(self) -> dict[str, Any]:
        """Return it with stable keys."""
        return asdict(self)


def crossvalidate(
    file: str,
    *,
    num_folds: int,
    root: str,
    make_executor: MakeExecutor,
    listener: Listener,
    overrides: Sequence[str] = (),
) -> CrossValidation:
    """Train and judge a model per fold; folds that are done are not done again.

    The test split is in none of them, so that it stays what no choice was made by.
    """
    loaded = load_trainable(file, overrides)
    if num_folds < 2:
        raise ConfigError(f"--folds {num_folds}. Use 2 or more.")
    variants = [varied(loaded, _settings(loaded, number, num_folds)) for number in range(num_folds)]
    missing = [one for one in variants if planned(one, root=root, step=EVALUATE_STEP).will_run]
    if missing:
        with open_with_data(
            loaded, root=root, make_executor=make_executor, listener=listener
        ) as run:
            for one in missing:
                run_variant(run, one, EVALUATE_STEP)
    folds = [_result(one, number, root) for number, one in enumerate(variants)]
    dataset, fingerprint = dataset_of(loaded, root=root)
    found = CrossValidation(dataset, folds, _spreads(folds), len(missing))
    if missing:
        _record(loaded, found, fingerprint, root)
    return found


def _settings(loaded: LoadedRecipe, number: int, of: int) -> list[str]:
    """Return what a fold sets: groups and classes are those of the split."""
    (rule,) = loaded.graph.step("split").work.rules  # type: ignore[attr-defined]
    fold = {
        "number": number,
        "of": of,
        "seed": loaded.recipe.seed,
        "together": list(getattr(rule, "together", ())),
        "stratify": getattr(rule, "stratify", ""),
    }
    # judged on its own version of the dataset, whichever is the one of the registered models
    return [f"loader.fold={json.dumps(fold)}", "evaluate.split=fold", "test_set=newest"]


def _result(variant: LoadedRecipe, number: int, root: str) -> FoldResult:
    step = planned(variant, root=root, step=EVALUATE_STEP)
    manifest = load_manifest(step.url or "")
    run_key = planned(variant, root=root, step=TRAIN_STEP).fingerprint
    assert manifest is not None, "it was made"
    assert run_key is not None, "it was trained"
    facts: Any = manifest.facts
    scores = {name: value for name, value in _leaves(facts) if name not in _NOT_A_SCORE}
    return FoldResult(number, run_key, int(facts["num_samples"]), scores)


def _leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _leaves(inner, f"{prefix}{name}.")
        elif isinstance(inner, int | float) and not name.startswith("chance_"):
            yield f"{prefix}{name}", float(inner)


def _spreads(folds: Sequence[FoldResult]) -> dict[str, Spread]:
    """Return the spread of every score that all folds have."""
    names = [name for name in folds[0].scores if all(name in one.scores for one in folds)]
    columns = {name: [one.scores[name] for one in folds] for name in names}
    return {
        name: Spread(round(fmean(values), 6), round(stdev(values), 6), min(values), max(values))
        for name, values in columns.items()
    }


def _record(loaded: LoadedRecipe, found: CrossValidation, fingerprint: str, root: str) -> None:
    # MLflow takes a second to load, and a second run does without
    from mmcore.telemetry.study_tracker import Part, record_study

    parts = [
        Part(
            one.run_key,
            tags={"mm.fold": f"{one.number + 1} of {len(found.folds)}"},
            metrics={f"fold.{name}": value for name, value in one.scores.items()},
        )
        for one in found.folds
    ]
    key = fingerprint_of({"crossvalidation": [one.run_key for one in found.folds]})
    metrics = {
        f"{name}.{what}": value
        for name, spread in found.spreads.items()
        for what, value in (("mean", spread.mean), ("deviation", spread.deviation))
    }
    record_study(
        root,
        run_key=key,
        run_name=f"crossvalidate-{loaded.recipe.name}-{key[:8]}",
        params={"num_folds": len(found.folds), "overrides": " ".join(loaded.overrides)},
        tags={"mm.dataset": found.dataset, "mm.dataset_fingerprint": fingerprint},
        metrics=metrics,
        parts=parts,
    )
