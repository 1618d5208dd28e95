"""A dataset without pictures, from a generated corpus to a model; one flipped byte is refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command import run_mm

from mmcore.ingest.generate import make_corpus

RECIPE = """\
name: sounds
seed: 3
max_quarantined: 0.5
source: {{path: {corpus}, layout: {{use: folder, label_from: folder}}}}
clean:
  keep_parts: {{modalities: [text, audio]}}
  require_parts: {{required: [text, audio]}}
  repair_caption:
  decode_audio:
dedup: {{exact_duplicates: {{same: [audio]}}}}
split: {{together: [audio, "meta:caption_group"], stratify: "meta:label"}}
encode:
  encode_audio: {{rate_hz: 16000, max_seconds: 1.0}}
  encode_text:
tokenizer: {{vocab_size: 200}}
shard: {{samples_per_shard: 16}}
model:
  image: null
  text:
    options: {{hidden_size: 8, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 16}}
  audio:
    options: {{d_model: 8, encoder_layers: 1, encoder_attention_heads: 2, encoder_ffn_dim: 16,
      decoder_layers: 1, conv_channels: 8, conv_kernel_sizes: [3, 3]}}
  embedding_dim: 8
loader: {{num_mels: 16}}
train: {{engine: torch, epochs: 1, global_batch_size: 8, zero_stage: 0}}
placement: {{num_ranks: 1}}
register: {{model_name: sounds}}
"""


@contextmanager
def flipped(file: Path, at: int) -> Iterator[None]:
    """Yield while one bit of a file is another."""
    data = bytearray(file.read_bytes())
    data[at] ^= 16
    file.write_bytes(data)
    try:
        yield
    finally:
        data[at] ^= 16
        file.write_bytes(data)


@pytest.mark.timeout(600)
def test_captions_and_sound_become_a_model_and_a_flipped_byte_is_refused_by_name(
    tmp_path: Path,
) -> None:
    make_corpus(str(tmp_path / "corpus"), num_samples=80, seed=3, video_fraction=0.0)
    recipe = tmp_path / "sounds.yaml"
    recipe.write_text(RECIPE.format(corpus=tmp_path / "corpus"))
    root = tmp_path / "root"
    run = ("run", str(recipe), "--root", str(root), "--workers", "1")
    made = run_mm(*run, "--until", "shard")
    assert made.code == 0, made.err
    (shard,) = root.rglob("train-000001.tar")
    with flipped(shard, shard.stat().st_size // 2):
        said = run_mm(*run)
        assert said.code == 1
        assert "train-000001.tar holds other bytes" in " ".join(said.err.split())
        assert "Traceback" not in said.err
        assert not list(root.glob("steps/sounds/train/*/manifest.json"))
    done = run_mm(*run)
    assert done.code == 0, done.err
    (model,) = root.glob("steps/sounds/train/*/model.safetensors")
    assert model.stat().st_size > 1000
