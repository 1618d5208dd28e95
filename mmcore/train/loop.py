"""What each rank does: read, forward, backward, step; then validate, and write it down."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from mmcore.core.lease import Fence
from mmcore.core.loader import Batch, Loader, OpenLoader
from mmcore.core.rows import file_record
from mmcore.core.step import Inputs
from mmcore.errors import StepError
from mmcore.models.config import DataShape, ModelConfig
from mmcore.models.heads import ProductOfExperts
from mmcore.models.multimodal import MultimodalModel
from mmcore.models.saved import load_saved_model, model_files
from mmcore.models.warm import start_from
from mmcore.sample import Json
from mmcore.train.beside import config_file, frozen_file, may_freeze, standing_beside, weights_by_id
from mmcore.train.checkpoints.reading import Checkpoint
from mmcore.train.checkpoints.session import Checkpoints
from mmcore.train.checkpoints.store import CheckpointStore
from mmcore.train.checkpoints.writer import SharedState
from mmcore.train.config import TrainConfig
from mmcore.train.engines import Engine, World, build_engine
from mmcore.train.log import LOG_NAMES, TrainingLog
from mmcore.train.meter import Meter, peak_flops
from mmcore.train.readiness import TRAIN_SPLIT, labels_of, steps_per_epoch
from mmcore.train.schedule import learning_rate, momentum
from mmcore.train.stopping import Patience
from mmcore.train.telling import Report, Teller
from mmcore.train.turns import accumulate
from mmcore.train.validation import Validation, to_tensors, validate, weighted


def train(
    *,
    model_config: ModelConfig,
    config: TrainConfig,
    loader: Loader,
    inputs: Inputs,
    output_url: str,
    report: Report,
    start_url: str | None = None,
    fence: Fence | None = None,
    fingerprint: str = "",
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train on this rank together with the others; rank 0 writes and reports the files.

    It goes on from the newest checkpoint below `output_url` that verifies. `start_url` is where the
    model lies whose weights training starts from. `fence` is asked before every write: the run
    whose ranks these are may have lost its place. When `should_stop` says so, a checkpoint is
    written and training ends without a model.
    """
    world = World.from_environment()
    _make_repeatable(config)
    dataset = loader.open(inputs)
    model = build_model(model_config, dataset)
    if start_url is not None:
        start_from(model, load_saved_model(start_url))
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    before = weights_by_id(model) if may_freeze(config) and world.rank == 0 else {}
    # after the model: ranks start from the same weights and then drop out independently
    torch.manual_seed((config.seed << 20) + world.rank + 1)
    engine = build_engine(model, config, world)
    beside = standing_beside(model, loader, inputs, dataset) if world.rank == 0 else {}
    in_checkpoints = {**beside, **config_file(config), **frozen_file(model, before)}
    before.clear()
    store = CheckpointStore(output_url, fingerprint=fingerprint, fence=fence)
    log = TrainingLog(output_url if world.rank == 0 else None, fence)
    meter = Meter(
        world, global_batch_size=config.global_batch_size, peak_flops=peak_flops(world.device)
    )
    per_epoch = steps_per_epoch(dataset, config)
    training = _Training(
        engine=engine,
        world=world,
        model_config=model_config,
        config=config,
        dataset=dataset,
        log=log,
        meter=meter,
        teller=Teller(config, log, meter, report, num_steps=per_epoch * config.epochs),
        beside=in_checkpoints,
        num_steps_per_epoch=per_epoch,
        patience=None if config.early_stopping is None else Patience(config.early_stopping),
    )
    checkpoints = None
    try:
        checkpoints = Checkpoints(
            engine, world, store, config.checkpoint, report=report, should_stop=should_stop
        )
        training.go_on_from(checkpoints.resume(seed=config.seed))
        validation = training.run(checkpoints)
        if validation is None:
            checkpoints.wait()
            report({"kind": "stopped", "step": training.step})
            return
        weights = engine.weights()
        fusion = ProductOfExperts(model.modalities)
        held_out = weighted(fusion, validation).figures()
        checkpoints.wait()
    finally:
        if checkpoints is not None:
            checkpoints.close()
        log.close()
        engine.close()
        dataset.close()
    if world.rank == 0:
        training.log.check_place()
        weights["fusion.weights"] = fusion.weights
        files = model_files(model, preprocessing=dict(loader.identity()), weights=weights)
        files |= beside
        files |= training.log.files()
        records = [file_record(output_url, name, files[name]) for name in sorted(files)]
        facts: dict[str, Json] = {
            "num_parameters": num_parameters,
            "num_steps": training.step,
            "num_epochs": training.epoch,
            "num_train_samples": len(dataset.samples(TRAIN_SPLIT)),
            "train_loss": training.train_loss,
            "fusion_weights": dict(
                zip(fusion.modalities, _rounded(fusion.weights.tolist()), strict=True)
            ),
            **held_out,
        }
        records += checkpoints.best_files()
        report({"kind": "finished", "files": [asdict(r) for r in records], "facts": facts})


@dataclass
class _Training:
    """One attempt at a training, and how far it has come."""

    engine: Engine
    world: World
    model_config: ModelConfig
    config: TrainConfig
    dataset: OpenLoader
    log: TrainingLog
    meter: Meter
    teller: Teller
    beside: Mapping[str, bytes]
    """Files without which the tensors of a checkpoint are no model."""
    num_steps_per_epoch: int
    step: int = 0
    """Steps that are done; with the epoch, all that the place in the stream of samples is."""
    epoch: int = 0
    """Epochs that are done."""
    train_loss: float = math.nan
    figures: Mapping[str, float] = field(default_factory=dict)
    """Of the last step."""
    patience: Patience | None = None
    """Of early stopping, where that is asked for."""

    @property
    def num_steps(self) -> int:
        return self.num_steps_per_epoch * self.config.epochs

    def go_on_from(self, checkpoint: Checkpoint | None) -> None:
        """Take up what a checkpoint says besides the state of the engine."""
        if checkpoint is None:
            return
        facts: Mapping[str, Any] = checkpoint.found.facts
        self.step, self.epoch = int(facts["step"]), int(facts["epoch"])
        self.train_loss = float(facts["train_loss"])
        if self.patience is not None and facts["patience"] is not None:
            self.patience.load(facts["patience"])
        if self.world.rank == 0:
            self.log.go_on_from({n: checkpoint.file(n) for n in LOG_NAMES})

    def run(self, checkpoints: Checkpoints) -> Validation | None:
        """Train to the end; return the last validation, or None when it was told to stop."""
        validation = None
        while self.epoch < self.config.epochs:
            started = time.perf_counter()
            if not self._train_epoch(checkpoints):
                return None
            trained = time.perf_counter()
            pace = self.meter.epoch(self.engine.gather)
            validation = validate(self.engine, self.model_config, self.dataset, self.world)
            held_out = validation.figures()
            seconds = {
                "train_seconds": round(trained - started, 3),
                "validate_seconds": round(time.perf_counter() - trained, 3),
            }
            clock = {**seconds, **pace}
            self.teller.epoch(self.step - 1, self.epoch, self.figures, held_out, clock)
            self.epoch += 1
            if self.patience is not None and self._is_over(self.patience.is_over(held_out)):
                break
            if self.epoch < self.config.epochs:
                verdict = checkpoints.after_step(self.step)
                if self.config.checkpoint.at_epoch_end or verdict.save:
                    checkpoints.save(self.step, self._shared(held_out["val_loss"]))
                if verdict.stop:
                    return None
        assert validation is not None, "no checkpoint is written after the last epoch"
        return validation

    def _is_over(self, is_over: bool) -> bool:
        """Return what the first rank says."""
        said = torch.tensor([is_over], device=self.world.device)
        return bool(self.engine.gather(said)[0])

    def _train_epoch(self, checkpoints: Checkpoints) -> bool:
        """Train to the end of the epoch; return whether that was reached."""
        self.engine.evaluating(is_evaluating=False)
        end = (self.epoch + 1) * self.num_steps_per_epoch
        first_step = self.step - self.epoch * self.num_steps_per_epoch
        batches = _rank_epoch(self.dataset, self.config, self.world, self.epoch, first_step)
        self.meter.start_epoch()
        for batch in self.meter.waiting(batches):
            with self.meter.step(batch):
                figures = _train_step(
                    self.engine,
                    self.model_config,
                    self.config,
                    self.world,
                    batch,
                    self.step,
                    self.num_steps,
                )
            self.teller.step(self.step, self.epoch, figures, self.engine.gather)
            self.figures = figures
            self.train_loss = figures["loss"]
            self.step += 1
            if self.step < end:
                verdict = checkpoints.after_step(self.step)
                if verdict.save:
                    checkpoints.save(self.step, self._shared())
                if verdict.stop:
                    return False
        return True

    def _shared(self, val_loss: float | None = None) -> SharedState:
        facts: dict[str, Json] = {
            "epoch": self.epoch,
            "train_loss": self.train_loss,
            "patience": None if self.patience is None else self.patience.state(),
        }
        if val_loss is not None and math.isfinite(val_loss):
            facts["val_loss"] = val_loss
        files = {**self.beside, **self.log.files()} if self.world.rank == 0 else {}
        return SharedState(facts=facts, files=files)


def build_model(config: ModelConfig, dataset: OpenLoader) -> MultimodalModel:
    """Return a new model that fits a dataset; torch's generator decides its weights."""
    first = next(iter(dataset.in_order(TRAIN_SPLIT, batch_size=1)))
    num_mels = int(first.arrays["audio_mel"].shape[2])
    shape = DataShape(labels=labels_of(dataset), vocab_size=dataset.vocab_size, num_mels=num_mels)
    return MultimodalModel(config, shape)


def _make_repeatable(config: TrainConfig) -> None:
    torch.set_num_threads(config.num_threads)
    torch.manual_seed(config.seed)
    # a warning where a kernel has no repeatable form, which only happens on GPUs
    torch.use_deterministic_algorithms(True, warn_only=True)
    # that mode also overwrites all memory that it asks for: a tenth of the time, for nothing
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _rank_epoch(
    dataset: OpenLoader, config: TrainConfig, world: World, epoch: int, first_step: int
) -> Iterator[Batch]:
    return dataset.epoch(
        TRAIN_SPLIT,
        seed=config.seed,
        epoch=epoch,
        global_batch_size=config.global_batch_size,
        rank=world.rank,
        num_ranks=world.num_ranks,
        first_step=first_step,
    )


def _train_step(
    engine: Engine,
    model_config: ModelConfig,
    config: TrainConfig,
    world: World,
    batch: Batch,
    step: int,
    num_steps: int,
) -> dict[str, float]:
    tensors = to_tensors(batch, world.device)
    losses = accumulate(engine, model_config, config, world, tensors)
    rate = learning_rate(config, step, num_steps=num_steps)
    grad_norm = engine.step(rate, momentum=momentum(config, step, num_steps=num_steps))
    figures = {name: round(value, 6) for name, value in losses.items()}
    if not all(map(_is_finite, figures.values())):
        raise StepError(
            f"the loss is {figures['loss']} at step {step}: training has diverged. Lower "
            f"train.learning_rate={config.learning_rate}, or set train.max_grad_norm."
        )
    num_samples = (step + 1) * config.global_batch_size
    return {**figures, "lr": rate, "grad_norm": grad_norm, "samples": num_samples}


def _rounded(values: list[float]) -> list[float]:
    return [round(value, 6) for value in values]


def _is_finite(value: float) -> bool:
    return math.isfinite(value)
