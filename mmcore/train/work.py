"""The step that trains: it starts the ranks, passes on what they say, records what they wrote."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from mmcore import storage
from mmcore.core.loader import Loader
from mmcore.core.manifest import FileRecord, load_manifest, verify_artifact
from mmcore.core.step import Inputs, Progress, Task, TaskContext, TaskReport
from mmcore.errors import ConfigError, IntegrityError, MmError, RunCancelled, StepError
from mmcore.models.config import ModelConfig
from mmcore.sample import Json
from mmcore.train.checkpoints.store import CheckpointStore
from mmcore.train.config import TrainConfig
from mmcore.train.deepspeed_config import deepspeed_config, read_deepspeed_file
from mmcore.train.readiness import check_data
from mmcore.train.restarts import Restarts

STEP = "train"


@dataclass(frozen=True, kw_only=True)
class TrainWork:
    """Train a model on the split `train` of the step `shard`, with the tokenizer of `tokenizer`.

    Writes `model.safetensors` and `model.json`, `tokenizer.json` beside them so that the directory
    stands alone, `labels.json`, `metrics.jsonl` (a line per step and per epoch) and `timing.jsonl`
    (the clock, apart from what can be repeated).
    """

    code_version: ClassVar[int] = 3

    model: ModelConfig
    train: TrainConfig
    loader: Loader
    num_ranks: int = 2
    """Where it runs: processes, one per GPU or core. No part of the identity."""
    min_ranks: int = 0
    """With how few it goes on when there is no room for more; 0: with `num_ranks` or not at all."""

    def __post_init__(self) -> None:
        self.train.check_ranks(self.num_ranks)
        if self.min_ranks > self.num_ranks or self.min_ranks < 0:
            raise ConfigError(
                f"num_ranks: min is {self.min_ranks} and max is {self.num_ranks}. Use a min of 1 "
                "to max."
            )
        if self.min_ranks:
            self.train.check_ranks(self.min_ranks)
        if self.train.deepspeed_file:
            deepspeed_config(self.train, num_ranks=self.num_ranks)
        early = self.train.early_stopping
        if early is not None and early.metric not in self.reported:
            raise ConfigError(
                f"train.early_stopping.metric={early.metric} is not reported. Use one of "
                f"{', '.join(self.reported)}."
            )
        if getattr(self.loader, "pack_tokens", 0) and self.train.micro_batch_size:
            raise ConfigError(
                f"train.micro_batch_size={self.train.micro_batch_size} and loader.pack_tokens="
                f"{self.loader.pack_tokens}: a packed row has texts of several turns. "  # type: ignore[attr-defined]
                "Use micro_batch_size: 0, or pack_tokens: 0."
            )

    @property
    def reported(self) -> list[str]:
        """Return the names of what is reported after each epoch of the validation split."""
        of_modalities = (f"val_accuracy_{name}" for name in self.model.modalities)
        return ["val_loss", "val_accuracy", *of_modalities]

    @property
    def rank_counts(self) -> list[int]:
        """Return how many ranks there may be, the wanted number first."""
        fewer = range(self.num_ranks - 1, (self.min_ranks or self.num_ranks) - 1, -1)
        return [self.num_ranks, *(count for count in fewer if self._is_possible(count))]

    def _is_possible(self, num_ranks: int) -> bool:
        try:
            self.train.check_ranks(num_ranks)
        except ConfigError:
            return False
        return True

    @property
    def runs_in_driver(self) -> bool:
        """Yes: it starts a gang of ranks, and waits."""
        return True

    @property
    def samples_from(self) -> None:
        """No sample passes through it."""
        return

    def identity(self) -> Mapping[str, Json]:
        """Return what decides the weights, but for the number of ranks.

        That is placement: the ranks read the same global stream, yet round, drop out and take batch
        statistics over other rows, so weights differ a little between world sizes.
        """
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        train = dict(self.train.identity())
        if self.train.deepspeed_file:  # what it says, and not what it is called
            train["deepspeed_file"] = read_deepspeed_file(self.train.deepspeed_file)
        found: dict[str, Json] = {
            "work": name,
            "code_version": self.code_version,
            "model": asdict(self.model),
            "train": train,
            "loader": dict(self.loader.identity()),
        }
        if getattr(self.loader, "pack_tokens", 0):
            found["text"] = "packed"  # models of before have read such texts one to a row
        return found

    def tasks(self, inputs: Inputs) -> Sequence[Task]:
        """Return one task: all ranks together."""
        return [Task(STEP)]

    def run(self, task: Task, context: TaskContext) -> TaskReport:
        """Train, and return the files and the figures that rank 0 has reported."""
        assert context.executor is not None, "training runs in the driver"
        check_data(self.loader, context.inputs, self.train)
        tracker = self._tracker(context)
        reports = _Reports(context, tracker)
        store = CheckpointStore(context.output_url, fingerprint=context.fingerprint)
        restarts = Restarts(counts=self.rank_counts, say=reports.say)
        status = "failed"
        try:
            restarts.run(
                context.executor,
                train_rank,
                {
                    "model": self.model,
                    "train": self.train,
                    "loader": self.loader,
                    "inputs": context.inputs,
                    "output_url": context.output_url,
                    "start_url": self.start_url(os.path.dirname(context.output_url)),
                    "fence": context.fence,
                    "fingerprint": context.fingerprint,
                },
                on_report=reports,
                step_reached=lambda: max((one.id.step for one in store.committed()[0]), default=0),
            )
            finished = reports.finished
            if reports.was_stopped:
                raise RunCancelled(why="the ranks were told to stop, and wrote a checkpoint")
            if finished is None:
                raise StepError(
                    "the ranks ended without saying what they wrote. This is a fault of the "
                    "executor: run the same command again with --executor local."
                )
            status = "finished"
        finally:
            tracker.finish(status)
        files = [FileRecord(**record) for record in finished["files"]]
        return TaskReport(files=files, facts=finished["facts"])

    def finish(self, reports: Sequence[TaskReport], context: TaskContext) -> TaskReport:
        """Return the facts of the one task."""
        return TaskReport(files=(), facts=reports[0].facts)

    def start_url(self, directory: str) -> str | None:
        """Return where the earlier model lies among all of them; its files are checked."""
        if not self.train.start_from:
            return None
        url = storage.join(directory, self.train.start_from[:16])
        manifest = load_manifest(url)
        if manifest is None or not manifest.fingerprint.startswith(self.train.start_from):
            raise ConfigError(
                f"train.start_from={self.train.start_from}: there is no such training at {url}. "
                "`mm models --json` names the run_key of every model; leave it empty to start over."
            )
        problems = verify_artifact(url, manifest)
        if problems:
            raise IntegrityError(
                f"the model to start from at {url} is damaged: {problems[0]}. Start from another "
                "one, or set train.start_from to nothing."
            )
        return url

    def _tracker(self, context: TaskContext) -> Any:
        # MLflow takes a second to load, and a plan does not need it
        from mmcore.telemetry.training_tracker import TrainingTracker

        tracker = TrainingTracker(
            context.root,
            experiment="mmcore",
            run_name=f"train-{context.fingerprint[:8]}",
            run_key=context.fingerprint,
        )
        identity = self.identity()
        tracker.log_params({name: identity[name] for name in ("model", "train", "loader")})
        return tracker


def train_rank(config: Mapping[str, Any]) -> Json:
    """Train on the rank that the environment names; what an executor's gang runs on each.

    It stands here, apart from the loop, so that the driver can name it without loading torch.
    """
    from mmcore.train.loop import train

    train(
        model_config=config["model"],
        config=config["train"],
        loader=config["loader"],
        inputs=config["inputs"],
        output_url=config["output_url"],
        report=config["report"],
        start_url=config["start_url"],
        fence=config["fence"],
        fingerprint=config["fingerprint"],
        should_stop=config["should_stop"],
    )
    return None


def count_rank(config: Mapping[str, Any]) -> Json:
    """Count the weights of a model without making one; report `counted`, or why it is `refused`."""
    from mmcore.train.counting import count

    try:
        config["report"]({"kind": "counted", **count(config)})
    except MmError as error:  # no failure of the rank, which would show where it was raised
        config["report"]({"kind": "refused", "why": str(error)})
    return None


def rehearse_rank(config: Mapping[str, Any]) -> Json:
    """Take a few steps on the rank that the environment names; nothing of them stays."""
    from mmcore.train.rehearsal import rehearse

    rehearse(config)
    return None


class _Reports:
    """Receives what rank 0 says: progress goes to the screen, epochs to MLflow."""

    def __init__(self, context: TaskContext, tracker: Any) -> None:
        self._show: Callable[[Progress], None] = context.report_progress or (lambda _: None)
        self._tracker = tracker
        self._done: tuple[float, float] = (0, 1)
        self.was_stopped = False
        self.finished: Any = None

    def __call__(self, report: Mapping[str, Any]) -> None:
        kind = report["kind"]
        if kind == "progress":
            self._done = report["done"], report["total"]
            self.say(report["message"])
        elif kind == "epoch":
            self._tracker.log_metrics(report["metrics"], step=report["step"])
        elif kind == "note":
            self.say(report["message"])
        elif kind == "checkpoint":
            self.say(f"checkpoint {report['name']}")
        elif kind == "stopped":
            self.was_stopped = True
        else:
            assert kind == "finished", f"a report of kind {kind!r}"
            self.finished = report

    def say(self, message: str) -> None:
        """Say something where progress is shown."""
        self._show(Progress(STEP, *self._done, message))
