"""The step that makes a trained, evaluated model a version in the registry."""

import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from mmcore import storage
from mmcore.core.rows import file_record
from mmcore.core.step import Artifact, Inputs, Task, TaskContext, TaskReport
from mmcore.errors import ConfigError, IntegrityError
from mmcore.register.card import CardInputs, model_card
from mmcore.register.decision import Decision, Standing, decide
from mmcore.register.ledger import CHAMPION, REGISTERED, ChampionChanged, crown, reconcile
from mmcore.sample import Json, sha256_hex
from mmcore.telemetry.event_file import EVENT_FILE_NAME

CHALLENGER = "challenger"
METRIC_TAG = "mm.metric."
DATASET_TAG = "mm.dataset"
DATASET_FINGERPRINT_TAG = "mm.dataset_fingerprint"
TRAIN_FINGERPRINT_TAG = "mm.train_fingerprint"
TEST_SET_TAG = "mm.test_set"
DECISION_TAG = "mm.decision"
CARD_FILE = "model_card.md"
REGISTRATION_FILE = "registration.json"
SIGNATURE_FILE = "signature.json"
_ALSO_IN_THE_MODEL = "README.md"
# how long training took is no part of a model
_LEFT_OUT = frozenset({"timing.jsonl", EVENT_FILE_NAME})


@dataclass(frozen=True, kw_only=True)
class RegisterWork:
    """Register the model of step `train` with the figures of step `evaluate`.

    One trained model is one version, however often it is tried, and whichever evaluation asks.
    Whether it becomes the champion depends on who is champion when the step runs; the artifact
    records what was decided.
    """

    # pydantic reads this when a recipe is checked: an unknown key is an error, with a suggestion
    __pydantic_config__: ClassVar = {"extra": "forbid"}

    code_version: ClassVar[int] = 1

    model_name: str
    """In the registry."""
    metric: str = "accuracy"
    """What decides: a fact of the evaluation, dotted where it is nested, the greater the better:
    `retrieval.text_to_image.recall_at_10`."""
    min_improvement: float = 0.0
    """By how much the champion must be beaten."""
    intended_use: str = "Research, and demonstration of the pipeline that made it."
    limits: tuple[str, ...] = (
        "It knows the classes and languages of its training data, and no others.",
        "The figures hold for data drawn like the evaluation split; elsewhere they are unknown.",
        "Confidence was not calibrated.",
    )

    runs_in_driver: ClassVar[bool] = True
    samples_from: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        if not self.model_name or set(self.model_name) & set("/:.%\"'\\"):
            raise ConfigError(
                f"register.model_name={self.model_name!r} cannot be a name in the registry. "
                "Use letters, digits, dashes and underscores."
            )
        if not (math.isfinite(self.min_improvement) and self.min_improvement >= 0):
            raise ConfigError(f"register.min_improvement={self.min_improvement} must be 0 or more.")

    def identity(self) -> Mapping[str, Json]:
        fields = asdict(self)
        return {
            "work": "register",
            "code_version": self.code_version,
            **fields,
            "limits": list(self.limits),
        }

    def tasks(self, inputs: Inputs) -> Sequence[Task]:
        return [Task("register")]

    def run(self, task: Task, context: TaskContext) -> TaskReport:
        # takes a second to load, and a plan does not need it
        from mmcore.telemetry.model_registry import ModelRegistry

        train, evaluated = context.inputs["train"], context.inputs["evaluate"]
        metrics = dict(flat_numbers(evaluated.manifest.facts))
        value = self._value(metrics)
        dataset = _dataset(context.inputs["shard"])
        card = model_card(
            CardInputs(
                model_name=self.model_name,
                intended_use=self.intended_use,
                limits=self.limits,
                dataset=dataset,
                evaluation=evaluated.manifest.facts,
                training=train.manifest.facts,
                lineage={
                    name: artifact.manifest.fingerprint
                    for name, artifact in context.inputs.artifacts.items()
                },
            )
        )
        registry = ModelRegistry(context.root)
        fingerprint = str(dataset["fingerprint"])
        tags = {
            DATASET_TAG: f"{dataset['name']}/{fingerprint[:16]}",
            DATASET_FINGERPRINT_TAG: fingerprint,
            TRAIN_FINGERPRINT_TAG: train.manifest.fingerprint,
            TEST_SET_TAG: _test_set(evaluated),
            **{f"{METRIC_TAG}{name}": repr(number) for name, number in metrics.items()},
        }
        with tempfile.TemporaryDirectory(prefix="mm-model-") as directory:
            _copy_model(train, directory)
            Path(directory, _ALSO_IN_THE_MODEL).write_text(card, encoding="utf-8")
            version = registry.register(
                self.model_name,
                run_key=train.manifest.fingerprint,
                source_directory=directory,
                tags=tags,
                description=card,
                signature=json.loads(storage.read(storage.join(evaluated.url, SIGNATURE_FILE))),
                metrics=metrics,
            )
        challenger = Standing(version.version, value, _test_set(evaluated))
        newest = max(found.version for found in registry.versions(self.model_name))
        registry.set_alias(self.model_name, CHALLENGER, newest)
        decision = self._decide_and_crown(registry, challenger, context)
        facts: dict[str, Json] = {
            "model_name": self.model_name,
            "version": version.version,
            "metric": self.metric,
            "value": value,
            **asdict(decision),
        }
        registration = (json.dumps(facts, indent=1, sort_keys=True) + "\n").encode()
        files = [
            file_record(context.output_url, CARD_FILE, card.encode()),
            file_record(context.output_url, REGISTRATION_FILE, registration),
        ]
        return TaskReport(files=files, facts=facts)

    def finish(self, reports: Sequence[TaskReport], context: TaskContext) -> TaskReport:
        return TaskReport(files=(), facts=reports[0].facts)

    def _value(self, metrics: Mapping[str, float]) -> float:
        if self.metric not in metrics:
            raise ConfigError(
                f"register.metric={self.metric!r} is not among the facts of the evaluation. "
                f"Use one of: {', '.join(sorted(metrics))}."
            )
        return metrics[self.metric]

    def _decide_and_crown(
        self, registry: Any, challenger: Standing, context: TaskContext
    ) -> Decision:
        """Decide, and have the decision followed; decide again when another was crowned between."""
        while True:
            reconcile(registry, context.root, self.model_name)
            decision = self._decide(registry, challenger, context.fingerprint)
            if decision.champion_after != challenger.version:
                return decision
            try:
                crown(
                    registry,
                    context.root,
                    self.model_name,
                    challenger.version,
                    kind=REGISTERED,
                    why=decision.why,
                    by="register step",
                    instead_of=decision.champion_before,
                )
            except ChampionChanged:
                continue
            return decision

    def _decide(self, registry: Any, challenger: Standing, decided_by: str) -> Decision:
        """Decide once: what an attempt that was killed has decided stands, if it still can.

        The decision is recorded with the version before any alias moves.
        """
        versions = {found.version: found for found in registry.versions(self.model_name)}
        champion_version = registry.aliases(self.model_name).get(CHAMPION)
        tag = f"{DECISION_TAG}.{decided_by[:16]}"
        recorded = versions[challenger.version].tags.get(tag)
        if recorded is not None:
            before = Decision(**json.loads(recorded))
            if champion_version in (before.champion_before, before.champion_after):
                return before
        champion = None
        if champion_version in versions:
            tags = versions[champion_version].tags
            number = tags.get(f"{METRIC_TAG}{self.metric}")
            champion = Standing(
                champion_version,
                None if number is None else float(number),
                tags.get(TEST_SET_TAG, ""),
            )
        decision = decide(
            challenger, champion, metric=self.metric, min_improvement=self.min_improvement
        )
        recorded = json.dumps(asdict(decision), sort_keys=True)
        registry.set_tags(self.model_name, challenger.version, {tag: recorded})
        return decision


def flat_numbers(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield (dotted name, number) of every finite number among facts, in sorted order."""
    for name, value in sorted(facts.items()):
        if isinstance(value, Mapping):
            yield from flat_numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and _is_metric(value):
            yield f"{prefix}{name}", float(value)


def _is_metric(value: float) -> bool:
    return not isinstance(value, bool) and math.isfinite(value)


def _copy_model(train: Artifact, directory: str) -> None:
    """Copy the files of the training artifact, each checked against its manifest."""
    for record in train.manifest.files:
        if record.path in _LEFT_OUT:
            continue
        url = storage.join(train.url, record.path)
        data = storage.read(url)
        if sha256_hex(data) != record.sha256:
            raise IntegrityError(
                f"{url} is not the file that training committed (SHA-256 differs). Nothing was "
                f"registered. Delete the directory {train.url} and run again."
            )
        target = Path(directory, record.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def _test_set(evaluated: Artifact) -> str:
    inputs: Any = evaluated.manifest.identity["inputs"]
    return str(inputs["shard"])


def _dataset(shard: Artifact) -> dict[str, Json]:
    work = shard.manifest.identity.get("work")
    work = work if isinstance(work, dict) else {}
    return {
        "name": work.get("name") or "dataset",
        "licence": work.get("licence") or "unknown",
        "fingerprint": shard.manifest.fingerprint,
        "num_samples": shard.manifest.facts.get("num_samples") or {},
        "labels": shard.manifest.facts.get("labels") or {},
    }
