"""Searches the settings of a recipe: trainings over declared ranges, each with its own fingerprint.

What came of a trial is kept below `search/<dataset>/<study>/`, so that a search that was killed, or
asked for more trials, goes on where it was.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from mmcore import storage
from mmcore.config import suggest
from mmcore.core.runner import Event, Listener, Run
from mmcore.core.step import TaskContext, fingerprint_of
from mmcore.errors import ConfigError, StepError
from mmcore.recipe.build import LoadedRecipe
from mmcore.recipe.ranges import draw_trials, overrides_of
from mmcore.recipe.variants import (
    TRAIN_STEP,
    dataset_of,
    load_trainable,
    open_with_data,
    planned,
    run_variant,
    varied,
)
from mmcore.sample import Json

if TYPE_CHECKING:
    from mmcore.executors.ray import RayExecutor
    from mmcore.executors.tune import Ended

DIRECTORY = "search"
DONE, STOPPED, FAILED = "done", "stopped", "failed"


@dataclass(frozen=True)
class TrialResult:
    """What came of a trial."""

    number: int
    settings: Mapping[str, Any]
    run_key: str
    """The fingerprint of its training: what its curves, its model and its MLflow run go by."""
    status: str
    """`done`; `stopped` early, without a model; or `failed`, to be tried again."""
    value: float | None
    """Of the metric, at the end."""
    history: Sequence[Mapping[str, float]]
    """What it reported after each epoch."""
    error: str = ""

    @property
    def overrides(self) -> Sequence[str]:
        """Return its settings as `--set` takes them."""
        return overrides_of(self.settings)


@dataclass(frozen=True)
class Search:
    """What came of a search."""

    study: str
    """16 hex digits: of the recipe without its trials, the ranges, the metric and the seed."""
    dataset: str
    metric: str
    mode: str
    trials: Sequence[TrialResult]
    num_tried: int
    """How many trials were not known already."""

    @property
    def ranked(self) -> Sequence[TrialResult]:
        """Return the trials with the best first: those with a model, then those without."""
        sign = -1 if self.mode == "max" else 1

        def place(one: TrialResult) -> tuple[bool, bool, float, int]:
            value = 0.0 if one.value is None else sign * one.value
            return one.status != DONE, one.value is None, value, one.number

        return sorted(self.trials, key=place)

    @property
    def best(self) -> TrialResult | None:
        """Return the best trial that has a model."""
        first = self.ranked[0]
        return first if first.status == DONE else None

    def to_json(self) -> dict[str, Any]:
        """Return it with stable keys."""
        trials = [{**asdict(one), "overrides": list(one.overrides)} for one in self.ranked]
        best = self.best
        return {
            **{name: getattr(self, name) for name in ("study", "dataset", "metric", "mode")},
            "trials": trials,
            "num_tried": self.num_tried,
            "best": None if best is None else list(best.overrides),
        }


def search(
    file: str,
    *,
    num_trials: int,
    root: str,
    make_executor: "Callable[[], RayExecutor]",
    listener: Listener,
    overrides: Sequence[str] = (),
) -> Search:
    """Try settings, and return what came of each; trials that are known are not tried again.

    Which trials there are follows from the recipe's seed. Which of them are stopped early also
    depends on which of those that run side by side is first to report.
    """
    loaded = load_trainable(file, overrides)
    ranges = loaded.recipe.tune.ranges
    if not ranges:
        raise ConfigError(
            f"{file} declares nothing to search. Add for example `tune: "
            "{train.learning_rate: {log_uniform: [1e-4, 1e-2]}}`."
        )
    _check_metric(loaded)
    drawn = draw_trials(ranges, num=num_trials, seed=loaded.recipe.seed)
    # all of them before the first is tried: a setting that is refused is refused now
    variants = [varied(loaded, overrides_of(settings)) for settings in drawn]
    study = _Study(loaded, root)
    if study.is_known and all(_known(study, one, number) for number, one in enumerate(variants)):
        return study.result(_results(study, variants), num_tried=0)
    with open_with_data(loaded, root=root, make_executor=make_executor, listener=listener) as run:
        study = _Study(loaded, root)
        before = {number: _known(study, one, number) for number, one in enumerate(variants)}
        tried = [number for number, known in before.items() if known is None]
        if tried:
            _try(run, study, drawn, variants, before)
    found = study.result(_results(study, variants), num_tried=len(tried))
    _record(loaded, found, study)
    if not any(one.status != FAILED for one in found.trials):
        raise StepError(f"every trial failed, the first with: {found.trials[0].error}")
    return found


def _check_metric(loaded: LoadedRecipe) -> None:
    work: Any = loaded.graph.step(TRAIN_STEP).work
    metric = loaded.recipe.tune.metric
    if metric not in work.reported:
        raise ConfigError(f"tune.metric={metric} is not reported.{suggest(metric, work.reported)}")


class _Study:
    """Where the results of a search lie."""

    def __init__(self, loaded: LoadedRecipe, root: str) -> None:
        self.loaded = loaded
        self.root = root
        tune = loaded.recipe.tune
        base = planned(loaded, root=root, step=TRAIN_STEP)
        self.is_known = base.fingerprint is not None
        """Whether the dataset is there; without it no trial has a fingerprint."""
        about = {"train": base.fingerprint, "tune": tune.model_dump(), "seed": loaded.recipe.seed}
        self.key = fingerprint_of(json.loads(json.dumps(about)))
        self.url = storage.join(root, DIRECTORY, loaded.recipe.name, self.key[:16])

    def read(self, number: int) -> TrialResult | None:
        """Return what is known of a trial that has ended."""
        data = storage.read_if_exists(self._url(number))
        return None if data is None else TrialResult(**json.loads(data))

    def write(self, result: TrialResult) -> None:
        """Keep what came of a trial."""
        data = json.dumps(asdict(result), indent=1, sort_keys=True) + "\n"
        storage.write(self._url(result.number), data.encode())

    def result(self, trials: Sequence[TrialResult], *, num_tried: int) -> Search:
        """Return all of it."""
        dataset, _ = dataset_of(self.loaded, root=self.root)
        tune = self.loaded.recipe.tune
        return Search(self.key[:16], dataset, tune.metric, tune.mode, trials, num_tried)

    def _url(self, number: int) -> str:
        return storage.join(self.url, f"trial-{number:04d}.json")


def _known(study: _Study, variant: LoadedRecipe, number: int) -> TrialResult | None:
    """Return what is known of a trial; what failed, or has lost its model, is tried again."""
    result = study.read(number)
    if result is None or result.status == FAILED:
        return None
    step = planned(variant, root=study.root, step=TRAIN_STEP)
    if step.fingerprint != result.run_key or (result.status == DONE and step.will_run):
        return None
    return result


def _results(study: _Study, variants: Sequence[LoadedRecipe]) -> list[TrialResult]:
    found = [study.read(number) for number in range(len(variants))]
    return [one for one in found if one is not None]


def _try(
    run: Run,
    study: _Study,
    drawn: Sequence[Mapping[str, Any]],
    variants: Sequence[LoadedRecipe],
    before: Mapping[int, TrialResult | None],
) -> None:
    """Run the trials that are not known, beside those that are."""
    from mmcore.executors.tune import Schedule, Trial, run_trials

    work: Any = study.loaded.graph.step(TRAIN_STEP).work
    tune = study.loaded.recipe.tune
    trials = [
        Trial(
            number,
            variants[number].graph.step(TRAIN_STEP).work,
            _context(run, variants[number]),
            () if known is None else known.history,
        )
        for number, known in before.items()
    ]
    num_ended = sum(known is not None for known in before.values())

    def on_end(ended: "Ended") -> None:
        nonlocal num_ended
        num_ended += 1
        result = _result(run, study, variants[ended.number], drawn[ended.number], ended)
        study.write(result)
        value = "" if result.value is None else f", {tune.metric} {result.value:.4g}"
        message = f"trial {ended.number} {result.status}{value}"
        facts: dict[str, Json] = {"done": num_ended, "total": len(before), "message": message}
        run.listener(Event("progress", TRAIN_STEP, facts))

    executor: Any = run.executor
    run.listener(Event("step_started", TRAIN_STEP, {"num_tasks": len(before), "num_resumed": 0}))
    schedule = Schedule(
        metric=tune.metric,
        mode=tune.mode,
        max_epochs=work.train.epochs,
        grace_epochs=tune.grace_epochs,
        reduction_factor=tune.reduction_factor,
    )
    run_trials(executor, trials, schedule, num_ranks=work.num_ranks, on_end=on_end)


def _context(run: Run, variant: LoadedRecipe) -> TaskContext:
    """Return where a trial trains: where a run of its settings would."""
    step = variant.graph.step(TRAIN_STEP)
    assert run.ground is not None, "the dataset is there"
    fingerprint, _ = variant.graph.identities(run.ground)[TRAIN_STEP]
    inputs = variant.graph.inputs(step, run.artifacts, run.ground)
    return TaskContext(
        inputs=replace(inputs, directory=variant.graph.directory(run.root, TRAIN_STEP)),
        output_url=variant.graph.artifact_url(run.root, TRAIN_STEP, fingerprint),
        root=run.root,
        fingerprint=fingerprint,
        fence=run.fence,
    )


def _result(
    run: Run,
    study: _Study,
    variant: LoadedRecipe,
    settings: Mapping[str, Any],
    ended: "Ended",
) -> TrialResult:
    """Return what came of a trial; what it has trained becomes an artifact as in any run."""
    metric = study.loaded.recipe.tune.metric
    value = ended.history[-1][metric] if ended.history else None
    if ended.status == DONE:
        facts = run_variant(run, variant, TRAIN_STEP)[TRAIN_STEP].manifest.facts
        last: Any = facts.get(metric, value)
        value = float(last)
    run_key = _context(run, variant).fingerprint
    return TrialResult(
        ended.number, settings, run_key, ended.status, value, list(ended.history), ended.error
    )


def _record(loaded: LoadedRecipe, found: Search, study: _Study) -> None:
    # MLflow takes a second to load, and a second search does without
    from mmcore.telemetry.study_tracker import Part, record_study

    _, fingerprint = dataset_of(loaded, root=study.root)
    parts = [
        Part(
            one.run_key,
            tags={
                "mm.trial": str(one.number),
                "mm.trial_status": one.status,
                "mm.overrides": " ".join(one.overrides),
            },
            # the training itself cannot know that it was ended by others
            status="KILLED" if one.status == STOPPED else None,
        )
        for one in found.trials
    ]
    tune = loaded.recipe.tune
    best = found.best
    record_study(
        study.root,
        run_key=study.key,
        run_name=f"tune-{loaded.recipe.name}-{study.key[:8]}",
        params={
            "metric": tune.metric,
            "mode": tune.mode,
            "seed": loaded.recipe.seed,
            "overrides": " ".join(loaded.overrides),
            **{
                f"range.{name}": one.model_dump_json(exclude_none=True)
                for name, one in tune.ranges.items()
            },
        },
        tags={
            "mm.dataset": found.dataset,
            "mm.dataset_fingerprint": fingerprint,
            "mm.best_run_key": best.run_key if best else "",
        },
        metrics={} if best is None or best.value is None else {f"best.{tune.metric}": best.value},
        parts=parts,
    )
