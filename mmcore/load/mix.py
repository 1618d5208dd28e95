"""What an epoch is made of: several datasets by weight or repeats, the easy samples first."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from mmcore import storage
from mmcore.core.manifest import load_manifest
from mmcore.core.step import Artifact
from mmcore.core.tables import table_of
from mmcore.errors import ConfigError
from mmcore.load.dataset import TABLE_NAME, Entry
from mmcore.load.sampler import Indices
from mmcore.sample import Json

_VERSION_DIGITS = 16
_NUM_NAMED = 12


@dataclass(frozen=True, kw_only=True)
class MixedDataset:
    """One of several datasets that an epoch is made of."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    url: str = ""
    """The directory of a dataset version; empty for the recipe's own."""
    version: str = ""
    """Its fingerprint, as `mm datasets` shows it; by default the last part of the URL. Where the
    dataset lies is no part of the identity, what it is is."""
    weight: float | None = None
    """Its share of an epoch, which has as many samples as there are in all datasets."""
    repeats: float | None = None
    """How often an epoch reads it; 0.5 takes half of it in one epoch and half in the next."""

    @property
    def fingerprint(self) -> str:
        """What the fingerprint must begin with; empty for the recipe's own."""
        return self.version or self.url.rstrip("/").rsplit("/", 1)[-1]

    def identity(self) -> dict[str, Json]:
        """Return what decides the batches: not where the dataset lies."""
        version = self.fingerprint[:_VERSION_DIGITS] if self.url else ""
        return {"version": version, "weight": self.weight, "repeats": self.repeats}

    def artifact(self, name: str) -> Artifact:
        """Return the dataset version; ConfigError when it is not there, or another one is."""
        manifest = load_manifest(self.url)
        if manifest is None:
            raise ConfigError(
                f"loader.mix.{name}: there is no dataset version at {self.url}. "
                "`mm datasets` names those there are."
            )
        if not manifest.fingerprint.startswith(self.fingerprint):
            raise ConfigError(
                f"loader.mix.{name}: at {self.url} lies the version "
                f"{manifest.fingerprint[:_VERSION_DIGITS]}, not {self.fingerprint}. "
                "Name the one that is meant in `version`."
            )
        return Artifact(self.url, manifest)


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """Easy samples first: each epoch may read more of them, in the order of a stored score."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    score: str
    """That a stage has measured. Samples without it are the hardest."""
    epochs: int
    """After so many, all samples are read."""
    start: float = 0.3
    """The share that the first epoch reads. It has as many steps as any: samples come again."""
    hard_is: Literal["high", "low"] = "high"

    def __post_init__(self) -> None:
        if self.epochs < 1 or not 0 < self.start <= 1:
            raise ConfigError(
                f"loader.curriculum: epochs={self.epochs}, start={self.start}. "
                "Use 1 or more, and a share above 0."
            )

    def shares(self) -> Sequence[float]:
        """Return the share of the easiest samples that each of the first epochs reads."""
        return [self.start + (1 - self.start) * epoch / self.epochs for epoch in range(self.epochs)]

    def easiest_first(self, artifact: Artifact, entries: Sequence[Entry]) -> Indices:
        """Return the entries by score; ConfigError when nobody has it."""
        data = storage.read(storage.join(artifact.url, TABLE_NAME))
        table = table_of(data, ["key", "scores"])
        scores: dict[str, float] = {}
        names: set[str] = set()
        if "scores" in table.column_names:
            for key, measured in zip(
                table["key"].to_pylist(), table["scores"].to_pylist(), strict=True
            ):
                found = dict(measured or ())
                names |= found.keys()
                if self.score in found and math.isfinite(found[self.score]):
                    scores[key] = found[self.score]
        if not scores:
            known = ", ".join(sorted(names)[:_NUM_NAMED]) or "none at all"
            raise ConfigError(
                f"loader.curriculum.score: no sample of {artifact.url} has the score "
                f"{self.score!r}. It has {known}."
            )
        sign = 1.0 if self.hard_is == "high" else -1.0
        each = [sign * scores.get(entry.info.key, sign * math.inf) for entry in entries]
        return np.argsort(np.array(each), kind="stable").astype(np.int64)


def check_mix(mix: Mapping[str, MixedDataset]) -> None:
    """Raise ConfigError for a mix that says nothing or contradicts itself."""
    weighted = [name for name, one in mix.items() if one.weight is not None]
    repeated = [name for name, one in mix.items() if one.repeats is not None]
    if weighted and (repeated or len(weighted) < len(mix)):
        other = (repeated or [name for name in mix if name not in weighted])[0]
        raise ConfigError(
            f"loader.mix: {weighted[0]} has a weight and {other} has not. Give all of them a "
            "weight, or none: then each is read `repeats` times."
        )
    for name, one in mix.items():
        value = one.weight if one.weight is not None else one.repeats
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ConfigError(f"loader.mix.{name}: {value:g}. Use more than 0, or leave it out.")
        if "/" in name or not name:
            raise ConfigError(f"loader.mix: {name!r} is no name. Use letters and digits.")
        if one.url and len(one.fingerprint) < _VERSION_DIGITS:
            raise ConfigError(
                f"loader.mix.{name}: {one.url} does not end in a version, as ds/NAME/VERSION "
                "does. Say `version`, the 16 digits that `mm datasets` shows."
            )
    own = [name for name, one in mix.items() if not one.url]
    if len(own) > 1:
        raise ConfigError(
            f"loader.mix: {own[0]} and {own[1]} are both the recipe's own dataset. "
            "Give one of them a url, or leave it out."
        )


def num_drawn(mix: Sequence[MixedDataset], num_samples: Sequence[int]) -> list[int]:
    """Return how many samples of each dataset an epoch draws."""
    if all(one.weight is None for one in mix):
        repeats = [1.0 if one.repeats is None else one.repeats for one in mix]
        return [round(num * times) for num, times in zip(num_samples, repeats, strict=True)]
    weights = [one.weight or 0.0 for one in mix]
    return [round(sum(num_samples) * weight / sum(weights)) for weight in weights]
