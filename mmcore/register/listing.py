"""What `mm models` shows: every version of a model with its aliases, figures and data."""

from collections.abc import Sequence
from dataclasses import dataclass

from mmcore.register.work import DATASET_FINGERPRINT_TAG, DATASET_TAG, METRIC_TAG
from mmcore.telemetry.model_registry import ModelRegistry, ModelVersion


@dataclass(frozen=True)
class ListedVersion:
    """A version as a table shows it."""

    name: str
    version: int
    aliases: tuple[str, ...]
    dataset: str
    """`name/version`."""
    dataset_fingerprint: str
    metrics: dict[str, float]
    """By dotted name, sorted."""
    run_key: str


def describe(root: str, model_name: str = "") -> list[ListedVersion]:
    """Return the versions of one model, or of all when no name is given, the newest first."""
    registry = ModelRegistry(root)
    names: Sequence[str] = [model_name] if model_name else registry.names()
    return [_listed(version) for name in names for version in reversed(registry.versions(name))]


def _listed(version: ModelVersion) -> ListedVersion:
    metrics = {
        tag.removeprefix(METRIC_TAG): float(value)
        for tag, value in sorted(version.tags.items())
        if tag.startswith(METRIC_TAG)
    }
    return ListedVersion(
        name=version.name,
        version=version.version,
        aliases=version.aliases,
        dataset=version.tags.get(DATASET_TAG, ""),
        dataset_fingerprint=version.tags.get(DATASET_FINGERPRINT_TAG, ""),
        metrics=metrics,
        run_key=version.run_key,
    )
