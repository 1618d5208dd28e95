"""Many trainings side by side on a Ray cluster, those without promise ended early: Ray Tune.

ASHA (Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020) compares trials
after the same number of epochs and ends all but the best of them. Each trial is an actor; the ranks
of its training are children of it, on one host.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

# before the import: no logger and no table of Tune's own, and Ctrl-C is for the run
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")

import ray
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler

from mmcore.core.cancel import StopSwitch
from mmcore.core.runner import run_and_record
from mmcore.core.step import Task, TaskContext, Work
from mmcore.errors import ConfigError, MmError
from mmcore.executors.local import LocalExecutor
from mmcore.executors.ray import RayExecutor
from mmcore.sample import Json

DONE, STOPPED, FAILED = "done", "stopped", "failed"
_EPOCH, _ENDED, _ERROR = "epoch", "ended", "error"


@dataclass(frozen=True)
class Trial:
    """A training to try."""

    number: int
    work: Work
    context: TaskContext
    history: Sequence[Mapping[str, float]] = ()
    """What it reported when it was tried before: that is told again and nothing is trained, so that
    others are compared with it."""


@dataclass(frozen=True)
class Ended:
    """How a trial ended."""

    number: int
    status: str
    """`done`, `stopped` early, or `failed`."""
    history: Sequence[Mapping[str, float]]
    """What it reported after each epoch, with the number of the `epoch`, from 1."""
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """By what trials are compared, and how soon."""

    metric: str
    mode: str
    max_epochs: int
    grace_epochs: int
    reduction_factor: int


def run_trials(
    executor: RayExecutor,
    trials: Sequence[Trial],
    schedule: Schedule,
    *,
    num_ranks: int,
    on_end: Callable[[Ended], None],
) -> None:
    """Run trials, as many at a time as the cluster has room for; say how each ended when it has."""
    executor.start()
    has = ray.cluster_resources()
    wanted = {"CPU": float(min(num_ranks, has.get("CPU", 1)))}
    if has.get("GPU", 0) >= num_ranks:
        wanted["GPU"] = float(num_ranks)
    scratch = tempfile.mkdtemp(prefix="mm-ray-tune-")
    # by number: a cluster gets each trial once, and a trial is handed the number alone
    known = {trial.number: trial for trial in trials}
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(_run_trial, trials=known, metric=schedule.metric),
            tune.PlacementGroupFactory([wanted]),
        ),
        param_space={"number": tune.grid_search(list(known))},
        tune_config=tune.TuneConfig(
            scheduler=AsyncHyperBandScheduler(
                time_attr=_EPOCH,
                metric=schedule.metric,
                mode=schedule.mode,
                max_t=schedule.max_epochs,
                grace_period=min(schedule.grace_epochs, schedule.max_epochs),
                reduction_factor=schedule.reduction_factor,
                # one that has reached its last epoch still has its weights to write
                stop_last_trials=False,
            ),
            reuse_actors=False,
        ),
        run_config=tune.RunConfig(
            name="search",
            storage_path=scratch,
            verbose=0,
            callbacks=[_Listener(known, on_end, executor.stop)],
            failure_config=tune.FailureConfig(max_failures=0),
        ),
    )
    try:
        tuner.fit()
    except BaseException:
        executor.close()
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class _Listener(tune.Callback):  # type: ignore[misc]
    """Hears in the driver what trials report."""

    def __init__(
        self, trials: Mapping[int, Trial], on_end: Callable[[Ended], None], stop: StopSwitch
    ) -> None:
        self._trials = trials
        self._on_end = on_end
        self._stop = stop
        self._history: dict[int, list[Mapping[str, float]]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        # Tune keeps itself on disk to be restored from there, which nobody does
        return tune.Callback, ()

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._stop.check()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if _EPOCH in result:
            number = trial.config["number"]
            self._history.setdefault(number, []).append(dict(result["reported"]))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        last = trial.last_result
        self._end(trial, str(last.get(_ENDED, STOPPED)), str(last.get(_ERROR, "")))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        error = trial.get_error()
        said = str(error).strip().splitlines()[-1] if error else "its process died"
        self._end(trial, FAILED, said)

    def _end(self, trial: Any, status: str, error: str) -> None:
        number = trial.config["number"]
        if not self._trials[number].history:
            self._on_end(Ended(number, status, self._history.get(number, []), error))


def _run_trial(config: Mapping[str, Any], trials: Mapping[int, Trial], metric: str) -> None:
    """Train in the actor of a trial; what Tune runs."""
    trial = trials[config["number"]]
    last = 0.0

    def tell(reported: Mapping[str, float]) -> None:
        nonlocal last
        if metric not in reported:
            raise ConfigError(
                f"tune.metric={metric} is not reported by trainings. There are: "
                f"{', '.join(sorted(reported))}."
            )
        last = reported[metric]
        # a trial that is stopped never comes back from here
        tune.report({_EPOCH: reported[_EPOCH], metric: last, "reported": dict(reported)})

    if trial.history:
        for reported in trial.history:
            tell(reported)
        return
    executor = _Telling(tell=tell)
    context = replace(trial.context, executor=executor)
    (task,) = trial.work.tasks(context.inputs)
    error = _train(trial.work, context, task)
    ended = {_ENDED: FAILED, _ERROR: error} if error else {_ENDED: DONE}
    # without the number of the epoch: there is nothing to compare any more
    tune.report({metric: last, **ended})


def _train(work: Work, context: TaskContext, task: Task) -> str:
    """Train, and return what went wrong."""
    try:
        run_and_record(work, context, task)
    except MmError as error:
        return str(error)
    return ""


@dataclass(eq=False)
class _Telling(LocalExecutor):
    """Tells of each epoch of a gang."""

    tell: Callable[[Mapping[str, float]], None] = field(kw_only=True)

    def gang(
        self,
        function: Callable[[Mapping[str, Any]], Json],
        config: Mapping[str, Any],
        *,
        num_ranks: int,
        on_report: Callable[[Mapping[str, Json]], None],
    ) -> None:
        def heard(report: Mapping[str, Any]) -> None:
            on_report(report)
            if report["kind"] == "epoch":
                self.tell({_EPOCH: report["epoch"], **report["metrics"]})

        super().gang(function, config, num_ranks=num_ranks, on_report=heard)
