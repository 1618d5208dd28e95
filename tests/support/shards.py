"""Small datasets as the step `shard` leaves them, written with the standard library's tarfile."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg
import soundfile
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from mmcore.core.manifest import Counts, FileRecord, Manifest
from mmcore.core.step import Artifact, Inputs
from mmcore.sample import sha256_hex

COLOURS = {"blue": (40, 60, 220), "green": (30, 180, 60), "red": (220, 40, 30)}
"""The classes: the picture has the colour, the caption names it, the tone has its pitch."""
PITCHES = {"blue": 300.0, "green": 900.0, "red": 2400.0}
SHAPES = ("circle", "square", "star", "line", "ring", "cross")


@dataclass(frozen=True)
class Stored:
    """A sample to be written."""

    key: str
    split: str
    parts: Mapping[str, bytes]
    meta: Mapping[str, Any]


def coloured_samples(num_per_split: Mapping[str, int], *, side: int = 16) -> list[Stored]:
    """Return samples whose class can be read off the picture, the caption and the sound."""
    samples = []
    for split, number in num_per_split.items():
        for index in range(number):
            label = sorted(COLOURS)[index % len(COLOURS)]
            shape = SHAPES[index % len(SHAPES)]
            samples.append(
                Stored(
                    key=f"{split}-{index:03d}",
                    split=split,
                    parts={
                        "flac": _tone(PITCHES[label] + index, num_samples=1600 + 160 * (index % 5)),
                        "jpg": _picture(COLOURS[label], shift=index, side=side),
                        "txt": f"a {label} {shape} {index % 7}".encode(),
                    },
                    meta={"label": label, "caption_group": f"{label} {shape}", "language": "en"},
                )
            )
    return samples


def write_dataset(
    directory: Path, samples: Sequence[Stored], *, samples_per_shard: int | Sequence[int] = 5
) -> Artifact:
    """Write shards and the table of a dataset; return it as a step's artifact.

    `samples_per_shard`: of all shards, or of each one.
    """
    rows = []
    splits = sorted({sample.split for sample in samples})
    for split in splits:
        of_split = [sample for sample in samples if sample.split == split]
        sizes = samples_per_shard
        if isinstance(sizes, int):
            sizes = [sizes] * -(-len(of_split) // sizes)
        for number, size in enumerate(sizes):
            shard = f"{split}/{split}-{number:06d}.tar"
            (directory / split).mkdir(parents=True, exist_ok=True)
            rows += _write_shard(directory, shard, of_split[:size])
            of_split = of_split[size:]
    table = directory / "manifest.parquet"
    pq.write_table(pa.Table.from_pylist(rows), table)
    data = table.read_bytes()
    record = FileRecord("manifest.parquet", len(data), sha256_hex(data), None)
    return artifact_of("shard", directory, record)


def write_tokenizer(directory: Path, captions: Sequence[str]) -> Artifact:
    """Train and write a tokenizer; return it as a step's artifact."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(
        sorted(captions),
        trainers.BpeTrainer(vocab_size=100, special_tokens=special, show_progress=False),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    return artifact_of("tokenizer", directory)


def write_inputs(
    directory: Path, samples: Sequence[Stored], *, samples_per_shard: int | Sequence[int] = 5
) -> Inputs:
    """Write a dataset and a tokenizer of its training captions; return both as inputs."""
    captions = [s.parts["txt"].decode() for s in samples if s.split == "train" and "txt" in s.parts]
    artifacts = {
        "shard": write_dataset(directory / "dataset", samples, samples_per_shard=samples_per_shard),
        "tokenizer": write_tokenizer(directory / "tokenizer", captions or ["nothing"]),
    }
    return Inputs(artifacts, {name: artifact.url for name, artifact in artifacts.items()})


def artifact_of(step: str, directory: Path, *files: FileRecord) -> Artifact:
    """Return a directory as the artifact of a step."""
    manifest = Manifest(step, "f" * 64, {}, Counts(), tuple(files))
    return Artifact(str(directory), manifest)


def _write_shard(directory: Path, shard: str, samples: Sequence[Stored]) -> list[dict[str, Any]]:
    rows = []
    with tarfile.open(directory / shard, "w", format=tarfile.USTAR_FORMAT) as tar:
        for index, sample in enumerate(samples):
            parts = []
            for extension, data in sorted(sample.parts.items()):
                member = tarfile.TarInfo(f"{sample.key}.{extension}")
                member.size = len(data)
                offset = tar.offset + tarfile.BLOCKSIZE
                tar.addfile(member, io.BytesIO(data))
                parts.append(
                    {
                        "extension": extension,
                        "offset": offset,
                        "num_bytes": len(data),
                        "sha256": sha256_hex(data),
                    }
                )
            rows.append(
                {
                    "key": sample.key,
                    "split": sample.split,
                    "shard": shard,
                    "index": index,
                    "parts": parts,
                    "meta": json.dumps(sample.meta),
                }
            )
    return rows


def _picture(colour: tuple[int, int, int], *, shift: int, side: int) -> bytes:
    pixels = np.full((side, side, 3), 255, np.uint8)
    first = shift % (side // 2)
    pixels[first : first + side // 2, first : first + side // 2] = colour
    return bytes(simplejpeg.encode_jpeg(pixels, quality=95, colorspace="RGB"))


def _tone(hz: float, *, num_samples: int) -> bytes:
    sound = io.BytesIO()
    waveform = 0.5 * np.sin(2 * np.pi * hz / 16_000 * np.arange(num_samples))
    soundfile.write(sound, waveform.astype(np.float32), 16_000, format="FLAC")
    return sound.getvalue()
