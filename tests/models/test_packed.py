"""Texts packed into rows are the same to the model as texts alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import TINY_TEXT, VOCAB_SIZE, tiny_model
from torch import Tensor

from mmcore.errors import ConfigError
from mmcore.load.packing import packed
from mmcore.models.text_encoder import TextEncoder

LENGTHS = (5, 1, 7, 3, 0, 6)
TEXTS = [np.random.default_rng(n).integers(2, VOCAB_SIZE, n) for n in LENGTHS]


def encoder(**changes: object) -> TextEncoder:
    torch.manual_seed(0)
    config = replace(TINY_TEXT, **changes)  # type: ignore[arg-type]
    return TextEncoder(config, vocab_size=VOCAB_SIZE).eval()


def alone() -> tuple[Tensor, Tensor]:
    ids = np.zeros((len(TEXTS), max(LENGTHS)), np.int64)
    mask = np.zeros(ids.shape, bool)
    for row, text in enumerate(TEXTS):
        ids[row, : len(text)] = text
        mask[row, : len(text)] = True
    return torch.from_numpy(ids), torch.from_numpy(mask)


def in_rows(row_tokens: int = 8) -> dict[str, Tensor]:
    return {n: torch.from_numpy(a) for n, a in packed(TEXTS, row_tokens=row_tokens).items()}


@pytest.mark.parametrize("ngram_sizes", [(), (2, 3)])
@pytest.mark.parametrize("row_tokens", [8, 22])
def test_packed_texts_have_the_features_and_gradients_of_texts_alone(
    ngram_sizes: tuple[int, ...], row_tokens: int
) -> None:
    model = encoder(ngram_sizes=ngram_sizes)
    has = torch.tensor([n > 0 for n in LENGTHS])
    rows = in_rows(row_tokens)
    assert rows["packed_ids"].shape[0] < len(TEXTS)
    found, gradients = [], []
    for features in (
        model(*(array[has] for array in alone())),
        model.packed(*rows.values(), len(TEXTS))[has],
    ):
        model.zero_grad()
        features.square().sum().backward()
        found.append(features.detach())
        gradients.append([one.grad for one in model.parameters() if one.grad is not None])
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)
    assert len(gradients[0]) == len(gradients[1]) > 5
    for own, other in zip(*gradients, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-4)


def test_a_text_that_is_in_no_row_has_no_features() -> None:
    features = encoder().packed(*in_rows().values(), len(TEXTS))
    assert not features[LENGTHS.index(0)].any()
    assert torch.isfinite(features).all()


def test_a_model_reads_the_packed_texts_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    from tiny_models import random_batch

    batch = {name: torch.as_tensor(array) for name, array in random_batch().items()}
    model = tiny_model().eval()
    before = model(batch)
    texts = [
        ids[mask].numpy() if has else np.zeros(0, np.int64)
        for ids, mask, has in zip(
            batch["text_ids"], batch["text_mask"], batch["has_text"], strict=True
        )
    ]
    rows = packed(texts, row_tokens=batch["text_ids"].shape[1])
    monkeypatch.setattr(TextEncoder, "forward", lambda *_: pytest.fail("read them unpacked"))
    after = model({**batch, **{name: torch.from_numpy(array) for name, array in rows.items()}})
    for name, embedding in before.embeddings.items():
        torch.testing.assert_close(after.embeddings[name], embedding, rtol=1e-4, atol=1e-5)


def test_an_encoder_that_may_mix_the_texts_of_a_row_is_refused() -> None:
    model = encoder(architecture="electra")
    with pytest.raises(ConfigError, match=r"electra is not known to keep texts in one row apart"):
        model.packed(*in_rows().values(), len(TEXTS))
