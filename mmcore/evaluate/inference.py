"""The one place of evaluation that runs the model."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mmcore.core.loader import Batch, OpenLoader
from mmcore.errors import StepError
from mmcore.evaluate.predictions import MODALITIES, Array, Predictions
from mmcore.sample import Json

# the second axis of these is as long as the longest sample of the batch
_VARIABLE_LENGTH = frozenset({"text_ids", "text_mask", "audio_mel", "audio_mask"})
_NOT_AN_INPUT = frozenset({"label"})


@torch.inference_mode()
def predict(
    model: Any, labels: Sequence[str], loader: OpenLoader, split: str, *, batch_size: int
) -> tuple[Predictions, dict[str, Json]]:
    """Return what the model says about every sample of a split, and the model's signature.

    `model(batch)` takes tensors by name and returns `embeddings` and `logits` by name. StepError
    when the dataset has classes that the model does not know, or the split is empty.
    """
    unknown = sorted(set(loader.labels) - set(labels))
    if unknown:
        raise StepError(
            f"the dataset has the classes {unknown}, and the model was trained on {list(labels)}. "
            "Train on this dataset, or evaluate on the model's own."
        )
    infos = {info.key: info for info in loader.samples(split)}
    if not infos:
        raise StepError(
            f"the split {split!r} has no samples, so there is nothing to evaluate on. "
            "Give it a share in the split step, or name another split in the evaluate step."
        )
    model.eval()
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    keys: list[str] = []
    arrays: dict[str, list[Array]] = {}
    signature: dict[str, Json] = {}
    for batch in loader.in_order(split, batch_size=batch_size):
        inputs = {name: torch.from_numpy(array) for name, array in _inputs(batch)}
        output = model({name: tensor.to(device) for name, tensor in inputs.items()})
        outputs = dict(_named(output))
        signature = signature or {
            "inputs": [_spec(name, array) for name, array in _inputs(batch)],
            "outputs": [_spec(name, array) for name, array in sorted(outputs.items())],
        }
        keys.extend(batch.keys)
        for name, array in outputs.items():
            arrays.setdefault(name, []).append(array)
        for name in ("label", *(f"has_{modality}" for modality in MODALITIES)):
            arrays.setdefault(name, []).append(batch.arrays[name])
    whole = {name: np.concatenate(pieces) for name, pieces in arrays.items()}
    logits = {name: array for name, array in whole.items() if name.startswith("logits.")}
    predictions = Predictions(
        keys=keys,
        labels=list(labels),
        meta=[infos[key].meta for key in keys],
        label=_renumbered(whole["label"], loader.labels, labels),
        probabilities={name.split(".")[1]: _softmax(array) for name, array in logits.items()},
        embeddings={
            modality: whole[f"embeddings.{modality}"]
            for modality in MODALITIES
            if f"embeddings.{modality}" in whole
        },
        has={
            modality: whole[f"has_{modality}"].astype(bool) & (f"embeddings.{modality}" in whole)
            for modality in MODALITIES
        },
    )
    return predictions, signature


def _renumbered(label: Array, of_dataset: Sequence[str], of_model: Sequence[str]) -> Array:
    """Return labels as the model numbers them, which may know more classes; -1 stays unknown."""
    number = np.array([*(of_model.index(name) for name in of_dataset), -1], dtype=np.int64)
    renumbered: Array = number[label.astype(np.int64)]
    return renumbered


def _inputs(batch: Batch) -> Iterable[tuple[str, Array]]:
    return (
        (name, batch.arrays[name]) for name in sorted(batch.arrays) if name not in _NOT_AN_INPUT
    )


def _named(output: Any) -> Iterable[tuple[str, Array]]:
    for kind in ("embeddings", "logits"):
        tensors: Mapping[str, torch.Tensor] = getattr(output, kind)
        for name, tensor in tensors.items():
            yield f"{kind}.{name}", tensor.float().cpu().numpy()


def _spec(name: str, array: Array) -> Json:
    shape: list[Json] = [-1, *array.shape[1:]]
    if name in _VARIABLE_LENGTH:
        shape[1] = -1
    return {"name": name, "dtype": str(array.dtype), "shape": shape}


def _softmax(logits: Array) -> Array:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    powers = np.exp(shifted)
    probabilities: Array = powers / powers.sum(axis=1, keepdims=True)
    return probabilities
