"""The step that measures a trained model on a split that training never read."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import GetPydanticSchema
from pydantic_core import core_schema

from mmcore import storage
from mmcore.core.loader import Loader, OpenLoader
from mmcore.core.manifest import Counts
from mmcore.core.rows import file_record, table_bytes
from mmcore.core.step import Inputs, Progress, Task, TaskContext, TaskReport
from mmcore.errors import ConfigError
from mmcore.sample import Json

TRAIN_STEP = "train"
TRAIN_LOG = "metrics.jsonl"
METRICS_FILE = "metrics.json"
SIGNATURE_FILE = "signature.json"
PREDICTIONS_FILE = "predictions.parquet"
# the loader has been checked where it was made
_TAKEN_AS_IT_IS = GetPydanticSchema(lambda _source, _handler: core_schema.any_schema())


@dataclass(frozen=True, kw_only=True)
class EvaluateWork:
    """Metrics, predictions and a report of the model of step `train` on the dataset of `shard`."""

    # pydantic reads this when a recipe is checked: an unknown key is an error, with a suggestion
    __pydantic_config__: ClassVar = {"extra": "forbid"}

    code_version: ClassVar[int] = 1

    loader: Annotated[Loader, _TAKEN_AS_IT_IS]
    split: str = "test"
    batch_size: int = 64
    """A matter of memory; it is part of the identity, for it moves the last digits."""
    slices: tuple[str, ...] = ("language",)
    """Metadata fields to give the accuracy for, value by value."""
    num_resamples: int = 1000
    """Bootstrap draws behind each 95% interval."""
    seed: int = 0
    """Of the bootstrap, and of which samples the report shows."""
    num_examples: int = 4
    """Queries shown for each direction of the report."""

    runs_in_driver: ClassVar[bool] = True
    samples_from: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "num_resamples"):
            if getattr(self, name) < 1:
                raise ConfigError(f"evaluate.{name}={getattr(self, name)} must be at least 1.")

    def identity(self) -> Mapping[str, Json]:
        return {
            "work": "evaluate",
            "code_version": self.code_version,
            "loader": dict(self.loader.identity()),
            "split": self.split,
            "batch_size": self.batch_size,
            "slices": list(self.slices),
            "num_resamples": self.num_resamples,
            "seed": self.seed,
            "num_examples": self.num_examples,
        }

    def tasks(self, inputs: Inputs) -> Sequence[Task]:
        return [Task("evaluate")]

    def run(self, task: Task, context: TaskContext) -> TaskReport:
        # torch and what stands on it takes seconds to load, and a plan does not need it
        from mmcore.models.saved import load_saved_model

        saved = load_saved_model(context.inputs[TRAIN_STEP].url)
        return self.evaluate(saved.model, saved.labels, context)

    def evaluate(self, model: Any, labels: Sequence[str], context: TaskContext) -> TaskReport:
        """Measure a model that is in memory; `labels` are the classes that it was trained on."""
        from mmcore.evaluate.inference import predict
        from mmcore.evaluate.metrics import classification
        from mmcore.evaluate.report import ReportInputs, write_report
        from mmcore.evaluate.retrieval import retrieval

        say = _Progress(context)
        dataset = self.loader.open(context.inputs)
        say(0, "predicting")
        predictions, signature = predict(
            model, labels, dataset, self.split, batch_size=self.batch_size
        )
        say(1, "measuring")
        draws: dict[str, Any] = {"num_resamples": self.num_resamples, "seed": self.seed}
        metrics = {
            "split": self.split,
            **classification(predictions, majority=_majority(dataset), slices=self.slices, **draws),
            "retrieval": retrieval(predictions, **draws),
        }
        say(2, "writing the report")
        train_log = storage.join(context.inputs[TRAIN_STEP].url, TRAIN_LOG)
        pages = write_report(
            ReportInputs(
                metrics=metrics,
                predictions=predictions,
                dataset=dataset,
                inputs=context.inputs,
                train_log=storage.read_if_exists(train_log) or b"",
                settings=self.identity(),
                seed=self.seed,
                num_examples=self.num_examples,
            )
        )
        written: dict[str, bytes] = {
            METRICS_FILE: _json(metrics),
            SIGNATURE_FILE: _json(signature),
            PREDICTIONS_FILE: table_bytes(predictions.table()),
            **pages,
        }
        files = [file_record(context.output_url, path, written[path]) for path in sorted(written)]
        facts = headline(metrics)
        say(3, f"accuracy {facts['accuracy']:.3f}")
        num_samples = len(predictions.keys)
        counts = Counts(found=num_samples, kept=num_samples)
        return TaskReport(files=files, counts=counts, facts=facts)

    def finish(self, reports: Sequence[TaskReport], context: TaskContext) -> TaskReport:
        return TaskReport(files=(), facts=reports[0].facts)


def headline(metrics: Mapping[str, Any]) -> dict[str, Json]:
    """Return the figures that gates, the registry and dashboards ask for, without intervals."""
    fused = metrics["heads"]["fused"]
    directions: dict[str, Json] = {
        direction: {
            name: value["value"] if isinstance(value, dict) else value
            for name, value in figures.items()
            if name.startswith(("recall_", "chance_"))
        }
        for direction, figures in metrics["retrieval"].items()
    }
    alone = {head: values for head, values in metrics["heads"].items() if head != "fused"}
    return {
        "split": metrics["split"],
        "num_samples": metrics["num_samples"],
        "accuracy": fused["accuracy"]["value"],
        "macro_f1": fused["macro_f1"]["value"],
        "macro_recall": fused["macro_recall"]["value"],
        "majority_accuracy": metrics["majority"]["accuracy"],
        "accuracy_by_modality": {name: head["accuracy"]["value"] for name, head in alone.items()},
        "error_reduction": metrics["fused_against_best"].get("error_reduction"),
        "retrieval": directions,
    }


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _majority(dataset: OpenLoader) -> str:
    """Return the most common class of the training split; the first in order among equals."""
    counts = Counter(str(info.meta.get("label", "")) for info in dataset.samples("train"))
    return min(counts, key=lambda label: (-counts[label], label), default="")


class _Progress:
    def __init__(self, context: TaskContext) -> None:
        self._report = context.report_progress

    def __call__(self, done: int, message: str) -> None:
        if self._report is not None:
            self._report(Progress("evaluate", done, 3, message))
