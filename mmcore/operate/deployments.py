"""The files of `configs/deployments/`: a recipe with its schedules, limits, watch and alerts."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator

from mmcore.config import Problem, load_config
from mmcore.errors import ConfigError
from mmcore.recipe.build import load_recipe
from mmcore.recipe.schema import Section

FlowName = Literal["retrain", "end-to-end", "prepare-data"]
AlertKind = Literal["failed", "died", "refused", "promoted"]
CONFIG_DIRECTORY = "configs/deployments"
_CRON_FIELDS = 5


class ScheduleSection(Section):
    """When a flow runs by itself: by `cron` or every `interval_seconds`."""

    slug: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
    """Its name for good: a schedule that changes keeps its slug, one that goes takes it along."""
    flow: FlowName = "retrain"
    cron: str | None = None
    """Minute, hour, day, month, weekday."""
    interval_seconds: Annotated[float, Field(ge=60)] | None = None
    timezone: str = "UTC"
    """By which the cron is read, e.g. Europe/Oslo; summer time included."""
    active: bool = True

    @field_validator("cron")
    @classmethod
    def _has_five_fields(cls, cron: str | None) -> str | None:
        if cron is not None and len(cron.split()) != _CRON_FIELDS:
            raise ValueError("expected five fields, for example '0 3 * * 1' for Mondays at 3:00")
        return cron

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, timezone: str) -> str:
        try:
            ZoneInfo(timezone)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError("no such time zone; for example Europe/Oslo") from None
        return timezone

    @model_validator(mode="after")
    def _is_either(self) -> "ScheduleSection":
        if (self.cron is None) == (self.interval_seconds is None):
            raise ValueError("a schedule has either cron: or interval_seconds:")
        return self


class ConcurrencySection(Section):
    """How many runs of this dataset there may be at a time, whatever started them."""

    limit: Annotated[int, Field(ge=1)] = 1
    collision: Literal["enqueue", "cancel_new"] = "enqueue"
    """What becomes of one too many: it waits, or it is cancelled."""


class RetriesSection(Section):
    """What is tried again when a disk, a network or a server fails; bad data never is."""

    max_retries: Annotated[int, Field(ge=0, le=20)] = 2
    delay_seconds: Annotated[float, Field(ge=0)] = 30.0
    """Before the first retry."""
    backoff: Annotated[float, Field(ge=1)] = 2.0
    """Each further delay is so many times longer."""


class WatchSection(Section):
    """Where new data appears."""

    path: str | None = None
    """A folder or an s3:// prefix; default: the source of the recipe."""
    settle_seconds: Annotated[float, Field(ge=0)] = 2.0
    """A file that has not changed for so long is complete."""
    debounce_seconds: Annotated[float, Field(ge=0)] = 10.0
    """Events within so long after the first start one run, which begins after it."""


class AlertsSection(Section):
    """Who is told, and of what."""

    to: tuple[str, ...] = ()
    """Apprise URLs, each from the environment: "${env:MM_ALERT_URL:-}". Empty ones are no error."""
    on: tuple[AlertKind, ...] = ("failed", "died", "refused", "promoted")

    @field_validator("to")
    @classmethod
    def _without_empty_ones(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(url for url in urls if url.strip())


class DeploymentConfig(Section):
    """One file of `configs/deployments/`: a deployment of each of its flows."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
    """The deployments are called flow/name, e.g. retrain/stamps."""
    recipe: str
    """Relative to where `mm deploy` runs, as every path in it."""
    overrides: tuple[str, ...] = ()
    """As `--set`, e.g. train.epochs=3; {logical_date} stands for the day that a run is for."""
    executor: Literal["ray", "local"] = "ray"
    workers: Annotated[int, Field(ge=1)] = 2
    work_pool: str = "mm"
    flows: tuple[FlowName, ...] = ("retrain", "end-to-end", "prepare-data")
    schedules: tuple[ScheduleSection, ...] = ()
    concurrency: ConcurrencySection = ConcurrencySection()
    retries: RetriesSection = RetriesSection()
    timeout_seconds: Annotated[float, Field(gt=0)] | None = None
    """A run that takes longer is cancelled, and has failed."""
    skip_if_late_seconds: Annotated[float, Field(gt=0)] | None = 3600.0
    """A scheduled run that starts later than this is skipped."""
    watch: WatchSection | None = None
    alerts: AlertsSection = AlertsSection()


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A checked deployment file, and what its recipe says."""

    file: str
    config: DeploymentConfig
    dataset: str
    """The recipe's name: of the dataset, of the events about it, and of its concurrency limit."""
    source: str
    """Where the recipe's raw data is."""

    @property
    def watched(self) -> str | None:
        """Return what is watched, or None."""
        watch = self.config.watch
        return None if watch is None else (watch.path or self.source)


def load_deployment_config(file: str) -> DeploymentConfig:
    """Read and check a deployment file alone; ConfigError with every problem and its place."""
    loaded = load_config(file, DeploymentConfig)
    problems = [*loaded.problems, *_misfits(loaded.value)]
    if problems:
        raise loaded.error(problems)
    return loaded.value


def _misfits(config: DeploymentConfig) -> Iterator[Problem]:
    """Yield what is wrong between sections that are each right."""
    names: set[tuple[FlowName, str]] = set()
    for i, schedule in enumerate(config.schedules):
        where = ("schedules", i)
        if (schedule.flow, schedule.slug) in names:
            yield Problem((*where, "slug"), f"another schedule of {schedule.flow} is called so")
        names.add((schedule.flow, schedule.slug))
        if schedule.flow not in config.flows:
            yield Problem((*where, "flow"), f"{schedule.flow} is not among the flows")
    if config.watch is not None and "retrain" not in config.flows:
        yield Problem(("watch",), "new data starts the flow retrain, which is not among the flows")


def load_deployment(file: str) -> Deployment:
    """Read and check a deployment file and its recipe; ConfigError with what is wrong."""
    config = load_deployment_config(file)
    overrides = fill_in(config.overrides, logical_date="1970-01-01")
    recipe = load_recipe(config.recipe, overrides=overrides).recipe
    return Deployment(file=file, config=config, dataset=recipe.name, source=recipe.source.path)


def load_deployments(files: Sequence[str] = ()) -> list[Deployment]:
    """Read deployment files, or all below `configs/deployments/`; ConfigError for equal names."""
    found = list(files) or sorted(str(path) for path in Path(CONFIG_DIRECTORY).glob("*.yaml"))
    if not found:
        raise ConfigError(
            f"no *.yaml below {CONFIG_DIRECTORY} in {os.getcwd()}. Name a deployment file, or go "
            "to the directory of the project."
        )
    loaded = [load_deployment(file) for file in found]
    by_name: dict[str, str] = {}
    for deployment in loaded:
        other = by_name.setdefault(deployment.config.name, deployment.file)
        if other != deployment.file:
            raise ConfigError(
                f"{deployment.file} and {other} are both called {deployment.config.name!r}. "
                "Give one of them another name."
            )
    return loaded


def fill_in(overrides: Sequence[str], *, logical_date: str) -> list[str]:
    """Return overrides with the day that a run is for in place of {logical_date}."""
    return [override.replace("{logical_date}", logical_date) for override in overrides]
