"""A tiny real corpus of pictures, captions and sounds with a known fate for each, and its recipe."""

import io
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

NUM_SOUND = 24
NUM_FOUND = NUM_SOUND + 3
TINY, BROKEN, TWIN = "red__tiny", "red__broken", "red__twin"
"""Dropped as too small, quarantined as not a picture, dropped as a duplicate of ORIGINAL."""
ORIGINAL = "red__000"

RECIPE = """\
name: tiny
seed: 3
source:
  path: {corpus}
  samples_per_task: 8
  layout: {{use: folder, label_from: folder, licence: cc0-1.0}}
clean:
  require_parts: {{required: [image, text, audio]}}
  decode_image:
  min_side: {{min_side: 16}}
  repair_caption:
  decode_audio:
dedup:
  same: [image, audio]
split:
  together: [image, "meta:original_key"]
  stratify: "meta:label"
encode:
  encode_image: {{side: 32}}
  encode_audio: {{rate_hz: 16000, max_seconds: 1.0}}
  encode_text:
tokenizer: {{vocab_size: 300}}
shard: {{samples_per_shard: 6}}
"""


TINY_MODEL = """
model:
  image: {options: {layer_type: basic, embedding_size: 4, hidden_sizes: [4, 8], depths: [1, 1]}}
  text:
    options: {hidden_size: 8, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 16}
  audio: null
  embedding_dim: 8
train: {engine: torch, epochs: 1, global_batch_size: 4, zero_stage: 0}
placement: {num_ranks: 1}
register: {model_name: tiny}
"""


def write_corpus(directory: Path) -> Path:
    """Write 24 sound samples of two classes, and three that will not be kept."""
    for i in range(NUM_SOUND):
        label = ("red", "blue")[i % 2]
        write_sample(directory / label / f"{i:03d}", i)
    red = directory / "red"
    write_sample(red / "tiny", 100, side=9)
    write_sample(red / "broken", 101)
    (red / "broken.png").write_bytes(b"<svg></svg>")
    write_sample(red / "twin", 0)
    return directory


def write_sample(stem: Path, number: int, *, side: int = 24) -> None:
    """Write a picture, a caption and a sound that the number decides."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number)
    picture = io.BytesIO()
    Image.fromarray(noise.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(picture, "PNG")
    stem.with_suffix(".png").write_bytes(picture.getvalue())
    stem.with_suffix(".txt").write_text(f"picture number {number} of its class")
    sound = 0.5 * np.sin(np.arange(4000) * (0.05 + number / 500))
    soundfile.write(stem.with_suffix(".flac"), sound, 8000)


def write_recipe(file: Path, corpus: Path, *, more: str = "") -> Path:
    """Write a recipe from the corpus to a dataset, without a model."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(RECIPE.format(corpus=corpus) + more)
    return file
