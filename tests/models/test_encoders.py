from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_models import (
    NUM_MELS,
    TINY_AUDIO,
    TINY_IMAGE,
    TINY_TEXT,
    VOCAB_SIZE,
    random_batch,
)
from transformers import ViTConfig, ViTModel

from mmcore.errors import ConfigError
from mmcore.models.config import AudioEncoderConfig, ImageEncoderConfig
from mmcore.models.encoders import (
    AudioEncoder,
    ImageEncoder,
    resolved,
)
from mmcore.models.text_encoder import NgramEmbedding, TextEncoder

BATCH = random_batch()
WHISPER = AudioEncoderConfig(
    architecture="whisper",
    options={
        "d_model": 8,
        "encoder_layers": 1,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 16,
        "decoder_layers": 1,
        "decoder_attention_heads": 2,
        "vocab_size": 60,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 3,
        "suppress_tokens": [],
        "max_source_positions": 16,
    },
)
SPECTROGRAM = AudioEncoderConfig(architecture="resnet", options=TINY_IMAGE.options)


def text_encoder(**changes: object) -> TextEncoder:
    torch.manual_seed(0)
    config = replace(TINY_TEXT, **changes)  # type: ignore[arg-type]
    return TextEncoder(config, vocab_size=VOCAB_SIZE).eval()


def audio_encoder(config: AudioEncoderConfig) -> AudioEncoder:
    torch.manual_seed(0)
    return AudioEncoder(config, num_mels=NUM_MELS).eval()


def test_pictures_become_one_vector_each() -> None:
    encoder = ImageEncoder(TINY_IMAGE)
    assert encoder(BATCH["image"]).shape == (6, encoder.num_features) == (6, 8)


def test_an_encoder_without_pooling_gives_the_mean_over_patches() -> None:
    config = ImageEncoderConfig(
        architecture="vit",
        options={
            "hidden_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "image_size": 32,
            "patch_size": 16,
        },
    )
    assert ImageEncoder(config)(BATCH["image"]).shape == (6, 8)


@pytest.mark.parametrize("changes", [{}, {"ngram_sizes": (2, 3)}])
def test_padding_changes_no_text(changes: dict[str, object]) -> None:
    encoder = text_encoder(**changes)
    ids, mask = BATCH["text_ids"], BATCH["text_mask"]
    nothing = torch.zeros((6, 4), dtype=torch.int64)
    padded = torch.cat([ids, nothing], dim=1), torch.cat([mask, nothing.bool()], dim=1)
    torch.testing.assert_close(encoder(*padded), encoder(ids, mask))


def test_tokens_are_hidden_in_training_alone() -> None:
    encoder = text_encoder(token_dropout=0.5)
    arguments = BATCH["text_ids"], BATCH["text_mask"]
    assert torch.equal(encoder(*arguments), encoder(*arguments))
    encoder.train()
    assert not torch.equal(encoder(*arguments), encoder(*arguments))


def test_a_caption_longer_than_the_encoder_can_take_says_what_to_change() -> None:
    ids = torch.ones((1, 17), dtype=torch.int64)
    with pytest.raises(ConfigError, match=r"17 tokens .* takes 16\. Lower loader.max_tokens"):
        text_encoder()(ids, ids.bool())


def test_runs_of_tokens_are_told_apart_by_their_order() -> None:
    embedding = NgramEmbedding((2,), num_buckets=1000, dim=4)
    first, second = embedding(torch.tensor([[5, 6, 7]])), embedding(torch.tensor([[6, 5, 7]]))
    assert not torch.equal(first, second)
    # a run has one embedding wherever it stands
    torch.testing.assert_close(
        embedding(torch.tensor([[9, 5, 6]]))[0, 2], embedding(torch.tensor([[5, 6, 9]]))[0, 1]
    )


@pytest.mark.parametrize("config", [TINY_AUDIO, WHISPER, SPECTROGRAM], ids=lambda c: c.architecture)
def test_recordings_become_one_vector_each(config: AudioEncoderConfig) -> None:
    encoder = audio_encoder(config)
    features = encoder(BATCH["audio_mel"], BATCH["audio_mask"])
    assert features.shape == (6, encoder.num_features) == (6, 8)


@pytest.mark.parametrize("config", [TINY_AUDIO, WHISPER], ids=lambda c: c.architecture)
@pytest.mark.parametrize("num_frames", [17, 18, 19, 20])
def test_padding_changes_no_recording(config: AudioEncoderConfig, num_frames: int) -> None:
    encoder = audio_encoder(config)
    mel, mask = BATCH["audio_mel"][:, :num_frames], BATCH["audio_mask"][:, :num_frames]
    silence = torch.full((6, 9, NUM_MELS), 3.0)
    padded = torch.cat([mel, silence], dim=1), torch.cat([mask, torch.zeros(6, 9).bool()], dim=1)
    torch.testing.assert_close(encoder(*padded), encoder(mel, mask), atol=1e-5, rtol=1e-4)


def test_loudness_changes_no_recording() -> None:
    encoder = audio_encoder(TINY_AUDIO)
    louder = BATCH["audio_mel"] + 4.0
    torch.testing.assert_close(
        encoder(louder, BATCH["audio_mask"]),
        encoder(BATCH["audio_mel"], BATCH["audio_mask"]),
        atol=1e-5,
        rtol=1e-4,
    )


def test_silence_has_finite_features() -> None:
    silence = torch.full((2, 20, NUM_MELS), -23.0)
    assert audio_encoder(TINY_AUDIO)(silence, torch.ones(2, 20).bool()).isfinite().all()


def test_an_encoder_starts_from_a_local_directory(tmp_path: Path) -> None:
    torch.manual_seed(7)
    pretrained = ViTModel(
        ViTConfig(
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            image_size=32,
            patch_size=16,
        )
    )
    pretrained.save_pretrained(tmp_path)
    config = ImageEncoderConfig(path=str(tmp_path), is_frozen=True)
    encoder = ImageEncoder(config)
    found = encoder.backbone.state_dict()
    assert all(torch.equal(found[name], value) for name, value in pretrained.state_dict().items())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert resolved(config).architecture == "vit"
    assert resolved(config).path == ""


def test_an_unknown_model_type_is_refused() -> None:
    with pytest.raises(ConfigError, match="no model type 'resnett'"):
        ImageEncoder(ImageEncoderConfig(architecture="resnett"))


def test_an_unknown_option_is_refused_with_the_nearest_name() -> None:
    config = ImageEncoderConfig(options={"hidden_size": [4]})
    with pytest.raises(ConfigError, match=r"no option 'hidden_size'\. Did you mean 'hidden_sizes'"):
        ImageEncoder(config)


def test_an_audio_encoder_of_unknown_input_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"audio.architecture='vit' is not one of"):
        AudioEncoder(AudioEncoderConfig(architecture="vit", options={}), num_mels=8)


def test_a_vocabulary_larger_than_the_pretrained_one_is_refused(tmp_path: Path) -> None:
    text_encoder().backbone.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=f"knows {VOCAB_SIZE} tokens and the tokenizer has 500"):
        TextEncoder(replace(TINY_TEXT, path=str(tmp_path)), vocab_size=500)
