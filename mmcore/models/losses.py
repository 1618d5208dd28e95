"""What a model learns from: a class loss per head, a contrastive one per pair of modalities."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional

from mmcore.models.config import LossConfig
from mmcore.models.multimodal import ModelOutput

NO_LABEL = -1
"""The label of a sample whose class is not known; it adds nothing to the class losses."""

Gather = Callable[[Tensor], Tensor]


def training_loss(
    output: ModelOutput,
    batch: Mapping[str, Tensor],
    config: LossConfig,
    *,
    gather: Gather = lambda tensor: tensor,
    num_ranks: int = 1,
    counts: Tensor | None = None,
    num_turns: int = 1,
) -> dict[str, Tensor]:
    """Return the total under `loss`, and its parts: `class_image`, `contrastive_image_text` ...

    `gather` joins the rows of all ranks in one order; gradients need to flow through the rows of
    this rank only. Every rank then holds the contrastive loss over the whole batch, but its own
    share of the gradient; the mean over ranks, which data parallelism takes, is too small by
    `num_ranks`, and that is made up for here.

    `counts` is `label_counts` over all ranks and all `num_turns` turns of a step. A class loss is
    the mean over all of their rows however these are dealt out: where one rank has three pictures
    and another one, each of the four weighs the same.
    """
    parts: dict[str, Tensor] = {}
    modalities = [name for name in output.logits if name != "fused"]
    if counts is None:
        counts = gather(label_counts(batch, modalities)[None]).sum(dim=0)
    for name, count in zip(modalities, counts, strict=True):
        loss = classification_loss(
            output.logits[name],
            _labels(batch, name),
            label_smoothing=config.label_smoothing,
            count=count,
        )
        # what is made of it is the mean over ranks and turns
        parts[f"class_{name}"] = loss * (num_ranks * num_turns)
    total = torch.stack(list(parts.values())).sum()
    if config.contrastive_weight and len(modalities) > 1:
        groups = gather(batch["group"])
        embeddings = {name: gather(output.embeddings[name]) for name in modalities}
        present = {name: gather(batch[f"has_{name}"]) for name in modalities}
        pairs = list(combinations(modalities, 2))
        for first, second in pairs:
            loss = contrastive_loss(
                embeddings[first],
                embeddings[second],
                groups,
                present[first] & present[second],
                temperature=config.temperature,
            )
            parts[f"contrastive_{first}_{second}"] = loss
            # the gradient alone is scaled up: the value is already that of the whole batch
            scaled = loss.detach() + num_ranks * (loss - loss.detach())
            total = total + config.contrastive_weight * scaled / len(pairs)
    return {"loss": total, **parts}


def classification_loss(
    logits: Tensor, labels: Tensor, *, label_smoothing: float, count: Tensor | None = None
) -> Tensor:
    """Return the mean cross-entropy over the rows that have a label; 0 when none has.

    `count` takes the place of their number, where these are not all the rows.
    """
    summed = functional.cross_entropy(
        logits, labels, ignore_index=NO_LABEL, label_smoothing=label_smoothing, reduction="sum"
    )
    count = (labels != NO_LABEL).sum() if count is None else count
    return summed / count.clamp(min=1)


def label_counts(batch: Mapping[str, Tensor], modalities: Sequence[str]) -> Tensor:
    """Return for each modality how many rows have both it and a label, int64 [M]."""
    return torch.stack([(_labels(batch, name) != NO_LABEL).sum() for name in modalities])


def _labels(batch: Mapping[str, Tensor], modality: str) -> Tensor:
    return torch.where(batch[f"has_{modality}"], batch["label"], NO_LABEL)


def contrastive_loss(
    first: Tensor, second: Tensor, groups: Tensor, is_pair: Tensor, *, temperature: float
) -> Tensor:
    """Return the symmetric InfoNCE of two modalities [N, D] over the rows that have both.

    Rows of one group mean the same, so that each is a positive for all of them (Khosla et al.,
    Supervised Contrastive Learning, NeurIPS 2020); 0 when fewer than two rows have both.
    """
    similarity = (first @ second.T) / temperature
    both = is_pair[:, None] & is_pair[None, :]
    # finite, so that rows without any pair have no NaN in their gradient
    similarity = similarity.masked_fill(~both, -1e4)
    positive = ((groups[:, None] == groups[None, :]) & both).to(similarity.dtype)
    share = positive / positive.sum(dim=1, keepdim=True).clamp(min=1)
    forward = -(share * functional.log_softmax(similarity, dim=1)).sum()
    share = positive / positive.sum(dim=0, keepdim=True).clamp(min=1)
    backward = -(share * functional.log_softmax(similarity, dim=0)).sum()
    num_pairs = is_pair.sum()
    return (forward + backward) / (2 * num_pairs.clamp(min=1)) * (num_pairs > 1)
