"""What a registered model has learned from: dataset versions, and the samples of any step.

The order of samples is a pure function of what the training's identity says, so it is worked out
again and was never stored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mmcore import storage
from mmcore.core.forgotten import load_forgotten
from mmcore.core.lineage import (
    SHARD_STEP,
    STEPS,
    DatasetVersion,
    committed_artifacts,
    dataset_versions,
    find_artifact,
)
from mmcore.core.manifest import MANIFEST_NAME
from mmcore.core.step import Artifact
from mmcore.errors import ConfigError
from mmcore.load.ahead import Spot
from mmcore.load.batches import TRAIN_SPLIT, MultimodalLoader
from mmcore.load.sources import Source, SourcePlan
from mmcore.recipe.components import make


@dataclass(frozen=True)
class Learned:
    """A training, opened again as it was read."""

    recipe: str
    train: Artifact
    loader: MultimodalLoader
    own: Source
    mixed: Mapping[str, Source]

    @property
    def datasets(self) -> list[dict[str, Any]]:
        """Return every dataset version that it learned from, as JSON."""
        plan = SourcePlan(self.loader, self.own, self.mixed)
        found = []
        for source in plan.sources(TRAIN_SPLIT):
            part = self.loader.mix.get(source.name or self._own_name)
            name, version = source.artifact.url.rstrip("/").rsplit("/", 2)[-2:]
            found.append(
                {
                    "in_mix": source.name or None,
                    "dataset": f"{name}/{version}",
                    "fingerprint": source.artifact.manifest.fingerprint,
                    "num_samples": len(source.entries(TRAIN_SPLIT)),
                    "weight": None if part is None else part.weight,
                    "repeats": None if part is None else part.repeats,
                }
            )
        return found

    def samples(self, step: int) -> list[dict[str, Any]]:
        """Return the samples of an optimizer step, counted from 0, in their order over all ranks.

        ConfigError for a step that the training does not have.
        """
        work: Any = self.train.manifest.identity["work"]
        seed, size = int(work["train"]["seed"]), int(work["train"]["global_batch_size"])
        plan = SourcePlan(self.loader, self.own, self.mixed)
        per_epoch = plan.order(TRAIN_SPLIT, seed, size).num_steps
        facts: Any = self.train.manifest.facts
        num_steps = int(facts["num_steps"])
        if not 0 <= step < num_steps:
            raise ConfigError(f"--step {step}: the training had {num_steps}, from 0 on.")
        epoch, in_epoch = divmod(step, per_epoch)
        members = plan.at(Spot(TRAIN_SPLIT, seed, size, 0, 1, epoch, in_epoch))
        return [
            {
                "key": one.entry.info.key,
                "dataset": "/".join(one.source.artifact.url.rstrip("/").rsplit("/", 2)[-2:]),
                "visit": one.visit,
            }
            for one in members
        ]

    @property
    def _own_name(self) -> str:
        return next((name for name, one in self.loader.mix.items() if not one.url), "")


def find_learned(root: str, model: str) -> Learned:
    """Open the training of a model, by `name/version` or its run key; ConfigError without any."""
    recipe, train = _find(root, model)
    identity: Any = train.manifest.identity
    fields = dict(identity["work"]["loader"])
    name, version = fields.pop("loader"), fields.pop("code_version")
    known = f"{MultimodalLoader.__module__}.{MultimodalLoader.__qualname__}"
    if (name, version) != (known, MultimodalLoader.code_version):
        raise ConfigError(
            f"{model} was trained with version {version} of {name}, and here is version "
            f"{MultimodalLoader.code_version} of {known}: its order cannot be worked out again."
        )
    versions = dataset_versions(root)
    there = {one.version: one for one in versions}
    mix = fields["mix"]
    order = fields.pop("mix_order", list(mix))
    if len(mix) > 1 and "mix_order" not in identity["work"]["loader"]:
        raise ConfigError(
            f"{model} was trained when the order of a mix was not written down: what it read in "
            "which step cannot be worked out again."
        )
    fields["mix"] = {part: _with_url(model, part, mix[part], there) for part in order}
    loader = make(MultimodalLoader, fields, ("loader",))
    own = find_artifact(root, recipe, SHARD_STEP, identity["inputs"][SHARD_STEP])
    if own is None:
        raise ConfigError(f"the dataset that {model} was trained on is gone from {root}.")
    began = storage.modified_at(storage.join(train.url, MANIFEST_NAME))
    source = Source.open(
        own, loader.requires, hidden=_hidden(root, recipe, began), fold=loader.fold
    )
    mixed = {}
    for part, one in loader.mix.items():
        other = there.get(one.fingerprint)
        mixed[part] = source
        if one.url and other is not None:
            hidden = _hidden(root, other.name, began)
            mixed[part] = Source.open(other.artifact, loader.requires, name=part, hidden=hidden)
    return Learned(recipe, train, loader, source, mixed)


def _find(root: str, model: str) -> tuple[str, Artifact]:
    name, _, version = model.partition("/")
    known = []
    for recipe in storage.list_directories(storage.join(root, STEPS)):
        for one in committed_artifacts(storage.join(root, STEPS, recipe, "register")):
            facts = one.manifest.facts
            known.append(f"{facts['model_name']}/{facts['version']}")
            if (facts["model_name"], str(facts["version"])) == (name, version):
                inputs: Any = one.manifest.identity["inputs"]
                train = find_artifact(root, recipe, "train", inputs["train"])
                if train is not None:
                    return recipe, train
        for one in committed_artifacts(storage.join(root, STEPS, recipe, "train")):
            if len(model) >= 8 and one.manifest.fingerprint.startswith(model):
                return recipe, one
    raise ConfigError(
        f"no model {model!r} below {root}. There are: {', '.join(sorted(known)) or 'none'}. "
        "Of a training that registered none, give the first digits of its fingerprint."
    )


def _with_url(
    model: str, part: str, values: Mapping[str, Any], there: Mapping[str, DatasetVersion]
) -> dict[str, Any]:
    version = values["version"]
    if version and version not in there:
        raise ConfigError(
            f"{model} has learned from the dataset version {version} as {part!r}, and that is not "
            "below this root. Ask with --root where it is."
        )
    return {**values, "url": there[version].artifact.url if version else ""}


def _hidden(root: str, name: str, at: float) -> frozenset[str]:
    """Return what was to be forgotten already when a training ended."""
    wishes = load_forgotten(root, name).wishes
    before = [one for one in wishes if datetime.fromisoformat(one.at).timestamp() <= at]
    return frozenset(key for wish in before for key in wish.samples)
