"""What each rank does: read, forward, backward, step; then validate, and write it down."""

import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mmcore import storage
from mmcore.core.lease import Fence
from mmcore.core.loader import Batch, Loader, OpenLoader
from mmcore.core.rows import file_record
from mmcore.core.step import Inputs
from mmcore.errors import ConfigError, StepError
from mmcore.models.config import DataShape, ModelConfig
from mmcore.models.heads import ProductOfExperts, fitted_weights
from mmcore.models.losses import NO_LABEL, training_loss
from mmcore.models.multimodal import MultimodalModel
from mmcore.models.saved import load_saved_model, model_files
from mmcore.models.warm import start_from
from mmcore.sample import Json
from mmcore.train.config import TrainConfig
from mmcore.train.engines import Engine, World, build_engine
from mmcore.train.schedule import learning_rate
from mmcore.train.stopping import Patience
from mmcore.train.turns import accumulate

TRAIN_SPLIT = "train"
VALIDATION_SPLIT = "val"
TOKENIZER_STEP = "tokenizer"
TOKENIZER_NAME = "tokenizer.json"
METRICS_NAME = "metrics.jsonl"
TIMING_NAME = "timing.jsonl"
LABELS_NAME = "labels.json"
_EVALUATION_BATCH_SIZE = 64
_REPORT_EVERY = 10  # steps; a bar that moves twice a second is enough

Report = Callable[[Mapping[str, Any]], None]


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
) -> None:
    """Train on this rank together with the others; rank 0 writes and reports the files.

    `start_url` is where the model lies whose weights training starts from. `fence` is asked before
    every write: the run whose ranks these are may have lost its place.
    """
    world = World.from_environment()
    _make_repeatable(config)
    dataset = loader.open(inputs)
    num_steps = _steps_per_epoch(dataset, config) * config.epochs
    model = build_model(model_config, dataset)
    if start_url is not None:
        start_from(model, load_saved_model(start_url))
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    # after the model: ranks start from the same weights and then drop out independently
    torch.manual_seed((config.seed << 20) + world.rank + 1)
    engine = build_engine(model, config, world)
    log = _Log(output_url if world.rank == 0 else None, fence)
    patience = None if config.early_stopping is None else Patience(config.early_stopping)
    step = 0
    try:
        for epoch in range(config.epochs):
            started = time.perf_counter()
            engine.evaluating(is_evaluating=False)
            for batch in _rank_epoch(dataset, config, world, epoch):
                figures = _train_step(engine, model_config, config, world, batch, step, num_steps)
                log.metrics({"step": step, "epoch": epoch, **figures})
                step += 1
                if step % _REPORT_EVERY == 0:
                    message = f"epoch {epoch + 1}/{config.epochs}, loss {figures['loss']:.3f}"
                    report(_progress(step, num_steps, message))
            trained = time.perf_counter()
            validation = validate(engine, model_config, dataset, world)
            held_out = validation.figures()
            log.metrics({"step": step - 1, "epoch": epoch, **held_out})
            log.timing(epoch, step, trained - started, time.perf_counter() - trained)
            log.flush()
            metrics = {"train_loss": figures["loss"], "learning_rate": figures["lr"], **held_out}
            report({"kind": "epoch", "step": step - 1, "metrics": metrics})
            message = f"epoch {epoch + 1}/{config.epochs}, {_brief(held_out)}"
            report(_progress(step, num_steps, message))
            if patience is not None:
                is_over = torch.tensor([patience.is_over(held_out)], device=world.device)
                if bool(engine.gather(is_over)[0]):  # rank 0 decides for all
                    break
        weights = engine.weights()
        fusion = ProductOfExperts(model.modalities)
        held_out = weighted(fusion, validation).figures()
    finally:
        engine.close()
    if world.rank == 0:
        log.check_place()
        weights["fusion.weights"] = fusion.weights
        files = model_files(model, preprocessing=dict(loader.identity()), weights=weights)
        tokenizer = storage.join(inputs[TOKENIZER_STEP].url, TOKENIZER_NAME)
        files[TOKENIZER_NAME] = storage.read(tokenizer)
        files[LABELS_NAME] = (json.dumps(list(dataset.labels), ensure_ascii=False) + "\n").encode()
        files |= log.files()
        records = [file_record(output_url, name, files[name]) for name in sorted(files)]
        facts: dict[str, Json] = {
            "num_parameters": num_parameters,
            "num_steps": step,
            "num_epochs": epoch + 1,
            "num_train_samples": len(dataset.samples(TRAIN_SPLIT)),
            "train_loss": figures["loss"],
            "fusion_weights": dict(
                zip(fusion.modalities, _rounded(fusion.weights.tolist()), strict=True)
            ),
            **held_out,
        }
        report({"kind": "finished", "files": [asdict(r) for r in records], "facts": facts})


def build_model(config: ModelConfig, dataset: OpenLoader) -> MultimodalModel:
    """Return a new model that fits a dataset; torch's generator decides its weights."""
    labels = tuple(dataset.labels)
    if not labels:
        raise StepError(
            "no sample of the dataset has a label, and the model has class heads. Set label_from "
            "in the source's layout, or loader.label_field."
        )
    first = next(iter(dataset.in_order(TRAIN_SPLIT, batch_size=1)))
    num_mels = int(first.arrays["audio_mel"].shape[2])
    shape = DataShape(labels=labels, vocab_size=dataset.vocab_size, num_mels=num_mels)
    return MultimodalModel(config, shape)


def to_tensors(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    """Return the arrays of a batch as tensors on a device."""
    tensors = {name: torch.from_numpy(array) for name, array in batch.arrays.items()}
    if device.type != "cuda":
        return tensors
    # from pinned memory the copy goes on beside the computing
    return {
        name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in tensors.items()
    }


def _make_repeatable(config: TrainConfig) -> None:
    torch.set_num_threads(config.num_threads)
    torch.manual_seed(config.seed)
    # a warning where a kernel has no repeatable form, which only happens on GPUs
    torch.use_deterministic_algorithms(True, warn_only=True)
    # that mode also overwrites all memory that it asks for: a tenth of the time, for nothing
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _steps_per_epoch(dataset: OpenLoader, config: TrainConfig) -> int:
    num_steps = dataset.num_steps(TRAIN_SPLIT, global_batch_size=config.global_batch_size)
    if num_steps == 0:
        num_samples = len(dataset.samples(TRAIN_SPLIT))
        raise ConfigError(
            f"train.global_batch_size={config.global_batch_size} is more than the {num_samples} "
            f"samples of the split {TRAIN_SPLIT!r}. Use {num_samples} or less."
        )
    return num_steps


def _rank_epoch(
    dataset: OpenLoader, config: TrainConfig, world: World, epoch: int
) -> Iterator[Batch]:
    return dataset.epoch(
        TRAIN_SPLIT,
        seed=config.seed,
        epoch=epoch,
        global_batch_size=config.global_batch_size,
        rank=world.rank,
        num_ranks=world.num_ranks,
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
    grad_norm = engine.step(rate)
    figures = {name: round(value, 6) for name, value in losses.items()}
    if not all(map(_is_finite, figures.values())):
        raise StepError(
            f"the loss is {figures['loss']} at step {step}: training has diverged. Lower "
            f"train.learning_rate={config.learning_rate}, or set train.max_grad_norm."
        )
    num_samples = (step + 1) * config.global_batch_size
    return {**figures, "lr": rate, "grad_norm": grad_norm, "samples": num_samples}


@dataclass(frozen=True)
class Validation:
    """What a model says of the validation split."""

    loss: float
    logits: Mapping[str, Tensor]
    """By head, [N, C], on the CPU."""
    present: Mapping[str, Tensor]
    """By modality, bool [N]."""
    labels: Tensor

    def figures(self) -> dict[str, float]:
        """Return `val_loss` and the accuracy of each head over the rows that it can judge."""
        found = {"val_loss": round(self.loss, 6)}
        for name, logits in self.logits.items():
            metric = "val_accuracy" if name == "fused" else f"val_accuracy_{name}"
            counted = self.labels != NO_LABEL
            if name in self.present:
                counted = counted & self.present[name]
            right = (logits.argmax(dim=1) == self.labels) & counted
            found[metric] = round(int(right.sum()) / max(1, int(counted.sum())), 6)
        return found

    def with_fusion(self, fusion: ProductOfExperts) -> "Validation":
        """Return the same with other weights of the modalities."""
        present = {name: mask.float() for name, mask in self.present.items()}
        return replace(self, logits={**self.logits, "fused": fusion(self.logits, present)})


def validate(
    engine: Engine, model_config: ModelConfig, dataset: OpenLoader, world: World
) -> Validation:
    """Run the whole validation split through the model.

    Every rank looks at all of it: under ZeRO-3 a forward pass needs all ranks.
    """
    total_loss = 0.0
    logits: dict[str, list[Tensor]] = defaultdict(list)
    arrays: dict[str, list[Tensor]] = defaultdict(list)
    engine.evaluating(is_evaluating=True)
    with torch.no_grad():
        for batch in dataset.in_order(VALIDATION_SPLIT, batch_size=_EVALUATION_BATCH_SIZE):
            tensors = to_tensors(batch, world.device)
            output = engine.forward(tensors)
            loss = training_loss(output, tensors, model_config.loss)["loss"]
            total_loss += loss.item() * len(batch.keys)
            for name, values in output.logits.items():
                logits[name].append(values.float().cpu())
            for name in ("label", *(f"has_{modality}" for modality in output.embeddings)):
                arrays[name].append(tensors[name].cpu())
    joined = {name: torch.cat(values) for name, values in arrays.items()}
    labels = joined.pop("label")
    return Validation(
        loss=total_loss / len(labels),
        logits={name: torch.cat(values) for name, values in logits.items()},
        present={name.removeprefix("has_"): mask for name, mask in joined.items()},
        labels=labels,
    )


def weighted(fusion: ProductOfExperts, validation: Validation) -> Validation:
    """Fit the weights of the modalities to the validation split; return it under these weights."""
    known = validation.labels != NO_LABEL
    if bool(known.any()):
        fusion.weights = fitted_weights(
            fusion,
            {name: values[known] for name, values in validation.logits.items()},
            {name: mask[known] for name, mask in validation.present.items()},
            validation.labels[known],
        )
    return validation.with_fusion(fusion)


class _Log:
    """The lines of a run, written anew after each epoch so that others can watch; rank 0 only."""

    def __init__(self, output_url: str | None, fence: Fence | None) -> None:
        self._output_url = output_url
        self._fence = fence
        self._metrics: list[str] = []
        self._timing: list[str] = []

    def metrics(self, values: Mapping[str, float]) -> None:
        """Add a line; values that are not numbers are left out."""
        self._metrics.append(_line({k: v for k, v in values.items() if _is_finite(v)}))

    def timing(self, epoch: int, step: int, train_seconds: float, validate_seconds: float) -> None:
        """Add a line of the clock."""
        seconds = {"train_seconds": train_seconds, "validate_seconds": validate_seconds}
        rounded = {name: round(value, 3) for name, value in seconds.items()}
        self._timing.append(_line({"epoch": epoch, "step": step - 1, **rounded}))

    def files(self) -> dict[str, bytes]:
        """Return the files by name."""
        return {
            METRICS_NAME: "".join(self._metrics).encode(),
            TIMING_NAME: "".join(self._timing).encode(),
        }

    def check_place(self) -> None:
        """Raise LeaseLost when another run trains in this one's place by now."""
        if self._fence is not None:
            self._fence.check()

    def flush(self) -> None:
        """Write what there is."""
        if self._output_url is not None:
            self.check_place()
            for name, data in self.files().items():
                storage.write(storage.join(self._output_url, name), data)


def _line(values: Mapping[str, float]) -> str:
    return json.dumps(dict(values), allow_nan=False) + "\n"


def _rounded(values: list[float]) -> list[float]:
    return [round(value, 6) for value in values]


def _is_finite(value: float) -> bool:
    return math.isfinite(value)


def _progress(done: int, total: int, message: str) -> dict[str, Json]:
    return {"kind": "progress", "done": done, "total": total, "message": message}


def _brief(validation: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in validation.items() if "_" in name)
