"""The models of a root, as the registry and the ledger have them, read in the background."""

import glob
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

from mmcore import storage
from mmcore.core.lineage import STEPS, committed_artifacts
from mmcore.core.step import Artifact
from mmcore.dashboard.refreshed import Known, Refreshed
from mmcore.errors import IntegrityError, StorageError
from mmcore.register.ledger import Entry, history, predecessors, reconcile
from mmcore.register.work import (
    DATASET_TAG,
    DECISION_TAG,
    METRIC_TAG,
    TEST_SET_TAG,
    TRAIN_FINGERPRINT_TAG,
)

_MAX_AGE_SECONDS = 2.0
_UNCHANGED_SECONDS = 20.0  # a registration is committed after the registry knows it
_DEFAULT_METRIC = "accuracy"
_R_AT_10 = "recall_at_10"


@dataclass(frozen=True)
class Version:
    """A version of a model."""

    model: str
    version: int
    created_at: str
    aliases: tuple[str, ...]
    metrics: Mapping[str, float]
    """By dotted name, sorted."""
    decisions: Sequence[Mapping[str, Any]]
    dataset: str
    """`name/version` of the dataset that it learned from."""
    test_set: str
    train_fingerprint: str
    card: str

    @cached_property
    def mean_recall(self) -> float | None:
        """Return the mean of recall at 10 over the directions of retrieval."""
        found = [
            value
            for name, value in self.metrics.items()
            if name.startswith("retrieval.") and name.endswith(_R_AT_10)
        ]
        return fmean(found) if found else None


@dataclass(frozen=True)
class Model:
    """A model with its versions, and who was champion when."""

    name: str
    versions: Sequence[Version]
    """The newest first."""
    champion: int | None
    entries: Sequence[Entry]
    """Of the ledger, the newest first."""
    metric: str
    """What decides who is champion."""

    def version(self, number: int | None) -> Version | None:
        """Return a version by its number."""
        return next((one for one in self.versions if one.version == number), None)

    @property
    def current(self) -> Version | None:
        """Return the champion."""
        return self.version(self.champion)

    @property
    def before(self) -> Version | None:
        """Return the version that a roll back gives the place to."""
        found = (self.version(one) for one in predecessors(list(reversed(self.entries))))
        return next((one for one in found if one is not None), None)


class Catalogue:
    """All models; a read is as old as two seconds, and repairs what a crash left behind."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._read: Refreshed[Mapping[str, Model]] = Refreshed(self._load, _MAX_AGE_SECONDS)
        self._loaded: Mapping[str, Model] = {}
        self._loaded_from: tuple[tuple[int, int], ...] | None = None
        self._loaded_at = 0.0
        self._artifacts: dict[tuple[str, int], Artifact] = {}

    def get(self, wait_seconds: float = 0.0) -> Known[Mapping[str, Model]]:
        """Return what is known of the models; nothing while MLflow is being loaded."""
        return self._read.get(wait_seconds)

    def drop(self) -> None:
        """Have the next one who asks wait for a fresh read: something was changed."""
        self._read.drop()

    def registration(self, version: Version) -> Artifact | None:
        """Return the artifact of the register step that made a version, with its lineage."""
        wanted = (version.model, version.version)
        if wanted not in self._artifacts:
            directory = storage.join(self._root, STEPS, _name(version.dataset), "register")
            try:
                for artifact in committed_artifacts(directory):
                    facts = artifact.manifest.facts
                    key = (str(facts.get("model_name")), int(str(facts.get("version") or 0)))
                    self._artifacts.setdefault(key, artifact)
            except (IntegrityError, StorageError):
                return None
        return self._artifacts.get(wanted)

    def step(self, version: Version, step: str) -> str | None:
        """Return where the artifact of `train` or `evaluate` lies that a version came from."""
        registration = self.registration(version)
        if registration is None:
            return None
        inputs: Any = registration.manifest.identity.get("inputs") or {}
        fingerprint = inputs.get(step)
        if not isinstance(fingerprint, str):
            return None
        return storage.join(self._root, STEPS, _name(version.dataset), step, fingerprint[:16])

    def _load(self) -> Mapping[str, Model]:
        if not _may_have_a_registry(self._root):
            return {}
        files = _files_of_registry(self._root)
        is_recent = time.monotonic() - self._loaded_at < _UNCHANGED_SECONDS
        if files is None or files != self._loaded_from or not is_recent:
            self._loaded_at, self._loaded_from = time.monotonic(), None
            self._loaded = self._ask_registry()
            self._loaded_from = files
        return self._loaded

    def _ask_registry(self) -> Mapping[str, Model]:
        # MLflow takes seconds to import, and does so in the thread that reads
        from mmcore.telemetry.model_registry import ModelRegistry

        registry = ModelRegistry(self._root)
        models = {}
        for name in registry.names():
            champion = reconcile(registry, self._root, name)
            versions = [_version(found) for found in reversed(registry.versions(name))]
            entries = list(reversed(history(self._root, name)))
            models[name] = Model(name, versions, champion, entries, self._metric(versions))
        return models

    def _metric(self, versions: Sequence[Version]) -> str:
        registration = self.registration(versions[0]) if versions else None
        work: Any = registration.manifest.identity.get("work") if registration else None
        return str(work.get("metric")) if isinstance(work, Mapping) else _DEFAULT_METRIC


def _may_have_a_registry(root: str) -> bool:
    """Return whether to open MLflow: looking makes no database where there is none."""
    if os.environ.get("MLFLOW_TRACKING_URI") or not storage.is_local(root):
        return True
    return storage.exists(storage.join(root, "mlflow.db"))


def _files_of_registry(root: str) -> tuple[tuple[int, int], ...] | None:
    """Return what changes with the registry or the ledger; None where only asking it tells.

    To ask takes tenths of a second of many versions, in which all pages are slow.
    """
    if os.environ.get("MLFLOW_TRACKING_URI") or not storage.is_local(root):
        return None
    patterns = ("mlflow.db*", "champions/*")
    paths = sorted(path for one in patterns for path in glob.glob(one, root_dir=root))
    try:
        found = [os.stat(os.path.join(root, path)) for path in paths]
    except FileNotFoundError:
        return None  # a journal that was there a moment ago: something is being written
    return tuple((one.st_mtime_ns, one.st_size) for one in found)


def _version(found: Any) -> Version:
    tags: Mapping[str, str] = found.tags
    return Version(
        model=found.name,
        version=found.version,
        created_at=found.created_at,
        aliases=found.aliases,
        metrics={
            tag.removeprefix(METRIC_TAG): number
            for tag, value in sorted(tags.items())
            if tag.startswith(METRIC_TAG) and (number := _number(value)) is not None
        },
        decisions=[
            decision
            for tag, value in sorted(tags.items())
            if tag.startswith(DECISION_TAG) and (decision := _decision(value)) is not None
        ],
        dataset=tags.get(DATASET_TAG, ""),
        test_set=tags.get(TEST_SET_TAG, ""),
        train_fingerprint=tags.get(TRAIN_FINGERPRINT_TAG, ""),
        card=found.description,
    )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _decision(text: str) -> Mapping[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, Mapping) and {"decision", "why"} <= set(value) else None


def _name(dataset: str) -> str:
    return dataset.partition("/")[0]
