"""What a model says of the validation split while it is trained."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mmcore.core.loader import Batch, OpenLoader
from mmcore.models.config import ModelConfig
from mmcore.models.heads import ProductOfExperts, fitted_weights
from mmcore.models.losses import NO_LABEL, training_loss
from mmcore.train.engines import Engine, World

VALIDATION_SPLIT = "val"
_EVALUATION_BATCH_SIZE = 64


def to_tensors(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    """Return the arrays of a batch as tensors on a device."""
    tensors = {name: torch.from_numpy(array) for name, array in batch.arrays.items()}
    if device.type != "cuda":
        return tensors
    # from pinned memory the copy goes on beside the computing
    return {
        name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in tensors.items()
    }


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
