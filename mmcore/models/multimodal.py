"""The model: an encoder per modality, one embedding space, a class head each and one for all."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmcore.models.config import DataShape, ModelConfig
from mmcore.models.encoders import AudioEncoder, ImageEncoder
from mmcore.models.heads import ModalityHead, ProductOfExperts
from mmcore.models.text_encoder import TextEncoder

INPUTS: Mapping[str, tuple[str, ...]] = {
    "image": ("image",),
    "text": ("text_ids", "text_mask"),
    "audio": ("audio_mel", "audio_mask"),
}
"""The arrays of a batch that an encoder reads; `has_<modality>` says which rows hold something."""

PACKED = ("packed_ids", "packed_segment", "packed_position")
"""The arrays that take the place of the text's where several lie in a row: less to compute."""


class ModelOutput(NamedTuple):
    """What a model says of a batch of B samples."""

    embeddings: dict[str, Tensor]
    """By modality, [B, D], L2-normalised; zeros where the sample lacks the modality."""
    logits: dict[str, Tensor]
    """By modality and under `fused`, [B, C]; zeros where the sample lacks the modality."""


class MultimodalModel(nn.Module):
    """Pictures, texts and sounds to embeddings in one space and to class logits.

    >>> output = model(batch)          # the arrays of mmcore.core.loader.Batch, as tensors
    >>> output.embeddings["image"] @ output.embeddings["text"].T
    """

    def __init__(self, config: ModelConfig, shape: DataShape) -> None:
        super().__init__()
        self.config = config
        self.shape = shape
        self.modalities = config.modalities
        encoders: dict[str, nn.Module] = {}
        if config.image is not None:
            encoders["image"] = ImageEncoder(config.image)
        if config.text is not None:
            encoders["text"] = TextEncoder(config.text, vocab_size=shape.vocab_size)
        if config.audio is not None:
            encoders["audio"] = AudioEncoder(config.audio, num_mels=shape.num_mels)
        self.encoders = nn.ModuleDict(encoders)
        self.heads = nn.ModuleDict(
            {
                name: ModalityHead(
                    int(encoder.num_features),  # type: ignore[arg-type]
                    embedding_dim=config.embedding_dim,
                    num_labels=len(shape.labels),
                    dropout=config.dropout,
                )
                for name, encoder in encoders.items()
            }
        )
        self.fusion = ProductOfExperts(self.modalities)

    def forward(self, batch: Mapping[str, Tensor]) -> ModelOutput:
        embeddings: dict[str, Tensor] = {}
        logits: dict[str, Tensor] = {}
        present: dict[str, Tensor] = {}
        for name in self.modalities:
            arrays = [batch[array] for array in INPUTS[name]]
            has = batch[f"has_{name}"]
            encoder = self.encoders[name]
            if isinstance(encoder, TextEncoder) and PACKED[0] in batch:
                ids, segment, position = (batch[array] for array in PACKED)
                features = encoder.packed(ids, segment, position, len(has))
            else:
                features = _encode_present(encoder, has, arrays)
            head = self.heads[name]
            features = features.to(next(head.parameters()).dtype)
            # float32 from here on: a softmax in bfloat16 loses the tail
            embedding, logit = (one.float() for one in head(features))
            present[name] = has.to(logit.dtype)
            embeddings[name] = embedding * present[name][:, None]
            logits[name] = logit * present[name][:, None]
        fused = self.fusion(logits, present)
        return ModelOutput(embeddings, {**logits, "fused": fused})


def _encode_present(encoder: nn.Module, has: Tensor, arrays: list[Tensor]) -> Tensor:
    """Encode the rows that hold something; the others get zeros.

    Zeros must not reach the encoder: they would move the statistics of its batch normalisation.
    Where no row holds anything the first one goes through, since under ZeRO-3 every rank has to
    run the same modules.
    """
    if bool(has.all()):
        encoded: Tensor = encoder(*arrays)
        return encoded
    rows = has.nonzero()[:, 0]
    if len(rows) == 0:
        rows = torch.zeros(1, dtype=torch.int64, device=has.device)
        encoded = _encode_nothing(encoder, [array[rows] for array in arrays])
    else:
        encoded = encoder(*(array[rows] for array in arrays))
    features = encoded.new_zeros((len(has), encoded.shape[1])).index_copy(0, rows, encoded)
    return features * has[:, None]


def _encode_nothing(encoder: nn.Module, arrays: list[Tensor]) -> Tensor:
    """Run an encoder for the sake of the other ranks: it learns nothing from it.

    Masks are all true, since a softmax over no token at all is not a number.
    """
    arrays = [torch.ones_like(one) if one.dtype == torch.bool else one for one in arrays]
    # of these layers alone: a layer that computes activations twice does so on every rank or none
    norms = [one for one in encoder.modules() if isinstance(one, _BatchNorm) and one.training]
    for norm in norms:
        norm.eval()
    encoded: Tensor = encoder(*arrays)
    for norm in norms:
        norm.train()
    return encoded
