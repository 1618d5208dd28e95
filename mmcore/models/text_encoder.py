"""Texts to one vector each, one text to a row or several."""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmcore.errors import ConfigError
from mmcore.models.config import TextEncoderConfig
from mmcore.models.encoders import build_backbone, dtype_of, masked_mean, num_features_of

UNKNOWN_ID = 1
"""The id of [UNK] in our tokenizers; see `mmcore.encode.tokenizer`."""
PACKABLE = ("bert",)
"""Model types that take a mask of their own for each token, and places that begin anew."""
_HASH_FACTOR, _HASH_PRIME = 1_000_003, 2**31 - 1  # products stay below 2**63


class TextEncoder(nn.Module):
    """Token ids int64 [B, L] and their mask bool [B, L] to [B, num_features]."""

    def __init__(self, config: TextEncoderConfig, *, vocab_size: int) -> None:
        super().__init__()
        if not config.path:
            config = replace(config, options={**config.options, "vocab_size": vocab_size})
        self.backbone = build_backbone(config)
        if getattr(self.backbone, "pooler", None) is not None:
            # it would look at the first token alone; weights that nothing trains have no use
            self.backbone.pooler = None
        self.token_dropout = config.token_dropout
        known = int(self.backbone.config.vocab_size)
        if known < vocab_size:
            raise ConfigError(
                f"the text encoder {config.path or config.architecture} knows {known} tokens and "
                f"the tokenizer has {vocab_size}. Lower tokenizer.vocab_size to {known} or take "
                "an encoder with a larger vocabulary."
            )
        self.num_features = num_features_of(self.backbone.config, "hidden_size")
        self.ngrams = (
            NgramEmbedding(
                config.ngram_sizes, num_buckets=config.num_ngram_buckets, dim=self.num_features
            )
            if config.ngram_sizes
            else None
        )
        self.max_tokens = int(getattr(self.backbone.config, "max_position_embeddings", 2**31))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        if ids.shape[1] > self.max_tokens:
            raise ConfigError(
                f"captions have {ids.shape[1]} tokens and the text encoder takes "
                f"{self.max_tokens}. Lower loader.max_tokens or raise "
                "model.text.options.max_position_embeddings."
            )
        inputs = self._inputs(self._dropped(ids, mask), None)
        states = self.backbone(**inputs, attention_mask=mask.long()).last_hidden_state
        return masked_mean(states, mask)

    def packed(self, ids: Tensor, segment: Tensor, position: Tensor, num_texts: int) -> Tensor:
        """Return what `forward` gives for texts that lie several to a row, [num_texts, F].

        A token sees those of its own text, in the places that it would have alone. Texts that are
        in no row get zeros.
        """
        check_packable(self.backbone.config.model_type)
        dtype = dtype_of(self.backbone)
        together = segment[:, :, None] == segment[:, None, :]
        unseen = torch.zeros(together.shape, dtype=dtype, device=ids.device)
        unseen.masked_fill_(~together, torch.finfo(dtype).min)
        states = self.backbone(
            **self._inputs(self._dropped(ids, segment > 0), position),
            attention_mask=unseen[:, None],
            position_ids=position,
            token_type_ids=torch.zeros_like(ids),
        ).last_hidden_state
        own = segment.flatten()
        summed = states.new_zeros((num_texts + 1, states.shape[2]))
        summed = summed.index_add(0, own, states.flatten(0, 1))
        lengths = torch.bincount(own, minlength=num_texts + 1).clamp(min=1)
        # of segment 0, the padding, with no weight: under ZeRO-3 every rank has to compute it all
        found: Tensor = summed / lengths[:, None].to(summed.dtype)
        return found[1:]

    def _dropped(self, ids: Tensor, mask: Tensor) -> Tensor:
        if not (self.training and self.token_dropout):
            return ids
        hidden = torch.rand(ids.shape, device=ids.device) < self.token_dropout
        return torch.where(hidden & mask, UNKNOWN_ID, ids)

    def _inputs(self, ids: Tensor, position: Tensor | None) -> dict[str, Tensor]:
        if self.ngrams is None:
            return {"input_ids": ids}
        embedded = self.backbone.get_input_embeddings()(ids)
        return {"inputs_embeds": embedded + self.ngrams(ids, position)}


class NgramEmbedding(nn.Module):
    """The sum of the embeddings of the runs of tokens that end at each place, [B, L] to [B, L, D].

    Runs are hashed into one table (Pagnoni et al., Byte Latent Transformer, 2024, after fastText,
    Bojanowski et al., TACL 2017).
    """

    def __init__(self, sizes: tuple[int, ...], *, num_buckets: int, dim: int) -> None:
        super().__init__()
        self.sizes = sizes
        self.num_buckets = num_buckets
        self.table = nn.Embedding(num_buckets, dim)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, ids: Tensor, position: Tensor | None = None) -> Tensor:
        """`position` is the place of each token in its text, where a row has several of them."""
        found = [self.table(self._buckets(ids, size, position)) for size in self.sizes]
        return torch.stack(found).sum(dim=0)

    def _buckets(self, ids: Tensor, size: int, position: Tensor | None) -> Tensor:
        """Return a polynomial rolling hash of the run of `size` tokens that ends at each place."""
        hashed = torch.full_like(ids, size)
        for back in range(size):
            shifted = functional.pad(ids, (back, 0))[:, : ids.shape[1]]
            if position is not None:  # no run begins in the text before
                shifted = torch.where(position >= back, shifted, 0)
            hashed = (hashed * _HASH_FACTOR + shifted) % _HASH_PRIME
        return hashed % self.num_buckets


def check_packable(architecture: str) -> None:
    """Raise ConfigError for a text encoder that cannot read several texts in one row."""
    if architecture not in PACKABLE:
        raise ConfigError(
            f"loader.pack_tokens: the text encoder {architecture} is not known to keep texts in "
            f"one row apart. Use {' or '.join(PACKABLE)}, or pack_tokens: 0."
        )
