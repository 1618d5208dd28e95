import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_models import LABELS, TINY_AUDIO, TINY_MODEL, TINY_TEXT, random_batch, tiny_model
from transformers import ViTConfig, ViTModel

from mmcore import storage
from mmcore.errors import IntegrityError, StorageError
from mmcore.models.config import ImageEncoderConfig, ModelConfig
from mmcore.models.saved import load_saved_model, model_files, save_model

PREPROCESSING = {"image_side": 32}


def test_a_model_that_was_read_back_says_the_same(tmp_path: Path) -> None:
    model = tiny_model(replace(TINY_MODEL, text=replace(TINY_TEXT, ngram_sizes=(2, 3))))
    model(random_batch())  # moves the batch statistics
    save_model(str(tmp_path), model, preprocessing=PREPROCESSING)
    saved = load_saved_model(str(tmp_path))
    expected, found = model.eval()(random_batch(seed=1)), saved.model(random_batch(seed=1))
    for name, logits in expected.logits.items():
        assert torch.equal(found.logits[name], logits)
    for name, embedding in expected.embeddings.items():
        assert torch.equal(found.embeddings[name], embedding)
    assert saved.labels == LABELS
    assert saved.config == model.config
    assert saved.preprocessing == PREPROCESSING


def test_equal_models_give_equal_bytes() -> None:
    first, second = (model_files(tiny_model(), preprocessing=PREPROCESSING) for _ in range(2))
    assert first == second
    assert model_files(tiny_model(seed=1), preprocessing=PREPROCESSING) != first


def test_a_model_from_a_pretrained_directory_outlives_it(tmp_path: Path) -> None:
    options = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes = {"intermediate_size": 16, "image_size": 32, "patch_size": 16}
    ViTModel(ViTConfig(**options, **sizes)).save_pretrained(tmp_path / "vit")
    config = ModelConfig(
        image=ImageEncoderConfig(path=str(tmp_path / "vit")),
        text=TINY_TEXT,
        audio=TINY_AUDIO,
        embedding_dim=8,
    )
    model = tiny_model(config)
    save_model(str(tmp_path / "model"), model, preprocessing=PREPROCESSING)
    for file in (tmp_path / "vit").iterdir():
        file.unlink()
    saved = load_saved_model(str(tmp_path / "model"))
    batch = random_batch()
    assert torch.equal(saved.model(batch).logits["image"], model.eval()(batch).logits["image"])


def test_a_bucket_holds_a_model_as_a_directory_does(bucket: str) -> None:
    save_model(f"{bucket}/model", tiny_model(), preprocessing=PREPROCESSING)
    assert load_saved_model(f"{bucket}/model").labels == LABELS


def test_another_format_version_is_refused(tmp_path: Path) -> None:
    save_model(str(tmp_path), tiny_model(), preprocessing=PREPROCESSING)
    description = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**description, "format_version": 99}))
    with pytest.raises(IntegrityError, match="another format or version"):
        load_saved_model(str(tmp_path))


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    save_model(str(tmp_path), tiny_model(), preprocessing=PREPROCESSING)
    other = model_files(tiny_model(replace(TINY_MODEL, embedding_dim=4)), preprocessing={})
    storage.write(str(tmp_path / "model.safetensors"), other["model.safetensors"])
    with pytest.raises(IntegrityError, match="does not hold the weights"):
        load_saved_model(str(tmp_path))


def test_a_pickle_is_no_model(tmp_path: Path) -> None:
    save_model(str(tmp_path), tiny_model(), preprocessing=PREPROCESSING)
    torch.save({}, tmp_path / "model.safetensors")
    with pytest.raises(IntegrityError, match="does not hold the weights"):
        load_saved_model(str(tmp_path))


def test_a_directory_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"model.json does not exist"):
        load_saved_model(str(tmp_path))
