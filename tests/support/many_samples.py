"""A dataset with very many samples in the real format on disk, made in seconds.

Tables, manifests and fingerprints are real. The bytes are shared: all samples refer to the same few
pictures, captions and sounds in one shard, which is a real tar.
"""

import io
import json
import wave
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg

from mmcore import storage
from mmcore.core.manifest import Counts, FileRecord, Manifest, commit_manifest
from mmcore.core.rows import SCHEMA as ROWS_SCHEMA
from mmcore.core.rows import file_record
from mmcore.core.step import Artifact, fingerprint_of
from mmcore.sample import Json, sha256_hex
from mmcore.shard.table import SCHEMA as TABLE_SCHEMA
from mmcore.shard.tar import TarWriter

NOUNS = ("owl", "frog", "rocket", "apple", "tulip", "castle", "train", "whale", "drum", "comet")
COLOURS = ("red", "green", "blue", "golden", "grey", "white", "violet", "black")
LABELS = ("animals", "plants", "vehicles", "food", "town", "symbols")
LANGUAGES = ("en", "fr", "es", "ca", "ro")
SPLITS = ("train", "train", "train", "train", "train", "train", "train", "val", "test", "test")
REASONS = (
    ("clean", "image_too_small", "min_side"),
    ("dedup", "exact_duplicate", "exact_duplicates"),
)
NUM_VARIANTS = len(NOUNS) * len(COLOURS)
_CHUNK = 65536


def write_many_samples(root: Path, *, num_samples: int, name: str = "many", seed: int = 0) -> str:
    """Write a committed dataset of so many samples, a tenth of them dropped; return its version."""
    num_lost = num_samples // 10
    num_kept = num_samples - num_lost
    url = str(root / "ds" / name / "making")
    members, tar = _shard()
    path = "train/train-000000.tar"
    files = [file_record(url, path, tar, num_samples=num_kept)]
    files.append(_write_table(url, members, path, num_kept, seed))
    steps = _write_steps(root, name, num_samples, num_lost)
    identity: dict[str, Json] = {
        "step": "shard",
        "work": {"work": "shard", "code_version": 1, "name": name, "seed": seed},
        "inputs": {"dedup": steps["dedup"].manifest.fingerprint},
    }
    fingerprint = fingerprint_of(identity)
    per_split = Counter(map(split_of, range(num_kept)))
    facts: dict[str, Json] = {
        "num_samples": dict(sorted(per_split.items())),
        "num_shards": 1,
        "num_bytes": len(tar),
        "extensions": ["jpg", "json", "txt", "wav"],
        "labels": dict(sorted(Counter(map(label_of, range(num_kept))).items())),
        "increments": [
            {
                "dataset": fingerprint[:16],
                "num_samples": dict(per_split),
                "num_shards": {"train": 1},
            }
        ],
    }
    final = root / "ds" / name / fingerprint[:16]
    Path(url).rename(final)
    commit_manifest(
        str(final),
        Manifest(
            "shard",
            fingerprint,
            identity,
            Counts(num_kept, num_kept),
            tuple(sorted(files, key=lambda file: file.path)),
            facts,
        ),
    )
    return fingerprint[:16]


def key_of(number: int) -> str:
    """Return the key of a sample."""
    return f"{NOUNS[number % len(NOUNS)]}__{number:09d}"


def split_of(number: int) -> str:
    """Return the split of a sample that is kept."""
    return SPLITS[number * 7919 % 101 % len(SPLITS)]


def label_of(number: int) -> str:
    """Return the class of a sample."""
    return LABELS[number * 31 % 97 % len(LABELS)]


def caption_of(variant: int) -> str:
    """Return one of the captions."""
    noun = NOUNS[variant % len(NOUNS)]
    return f"A {COLOURS[variant // len(NOUNS) % len(COLOURS)]} {noun} number {variant}."


def _shard() -> tuple[list[dict[str, tuple[int, int, str]]], bytes]:
    """Return where the parts of each variant lie, and the tar."""
    tar = TarWriter()
    variants = []
    for variant in range(NUM_VARIANTS):
        generator = np.random.default_rng(variant)
        picture = np.empty((64, 64, 3), np.uint8)
        picture[:] = generator.integers(40, 255, 3)
        picture[16:48, 16:48] = generator.integers(0, 200, 3)
        parts = {
            "jpg": simplejpeg.encode_jpeg(picture, quality=85),
            "txt": caption_of(variant).encode(),
            "wav": _tone(220.0 + 10 * variant),
        }
        places = {}
        for extension, data in sorted(parts.items()):
            member = tar.add(f"variant-{variant:03d}.{extension}", data)
            places[extension] = (member.offset, len(data), sha256_hex(data))
        variants.append(places)
    return variants, b"".join(tar.finish())


def _tone(pitch: float) -> bytes:
    times = np.arange(2000) / 8000
    samples = (np.sin(2 * np.pi * pitch * times) * 12000).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


def _write_table(
    url: str, variants: list[dict[str, tuple[int, int, str]]], path: str, num: int, seed: int
) -> FileRecord:
    place = Path(url) / "manifest.parquet"
    place.parent.mkdir(parents=True, exist_ok=True)
    parts = [
        [
            {"extension": ext, "offset": at, "num_bytes": size, "sha256": digest}
            for ext, (at, size, digest) in sorted(variant.items())
        ]
        for variant in variants
    ]
    parts_type = TABLE_SCHEMA.field("parts").type
    scores_type = TABLE_SCHEMA.field("scores").type
    with pq.ParquetWriter(str(place), TABLE_SCHEMA, compression="zstd") as writer:
        for first in range(0, num, _CHUNK):
            numbers = range(first, min(num, first + _CHUNK))
            shown = [(n + seed) % NUM_VARIANTS for n in numbers]
            variant = pa.array(shown, pa.int32())
            columns = {
                "key": pa.array([key_of(n) for n in numbers]),
                "split": pa.array([split_of(n) for n in numbers]),
                "shard": pa.array([path] * len(numbers)),
                "index": pa.array(list(numbers), pa.int64()),
                "parts": pa.array(parts, parts_type).take(variant),
                "meta": pa.array([json.dumps(meta_of(n)) for n in numbers]),
                "scores": pa.array([[("image_width", 64.0)]], scores_type).take(
                    pa.array([0] * len(numbers))
                ),
            }
            writer.write_batch(
                pa.record_batch([columns[name] for name in TABLE_SCHEMA.names], TABLE_SCHEMA)
            )
    return FileRecord("manifest.parquet", place.stat().st_size, sha256_hex(place.read_bytes()))


def meta_of(number: int) -> dict[str, Any]:
    """Return the metadata of a sample."""
    return {
        "label": label_of(number),
        "language": LANGUAGES[number * 17 % 89 % len(LANGUAGES)],
        "licence": "CC0-1.0",
        "original_key": f"{NOUNS[number % len(NOUNS)]}/{number:09d}",
        "source": f"many/{number:09d}.jpg",
    }


def _write_steps(root: Path, name: str, num_samples: int, num_lost: int) -> Mapping[str, Artifact]:
    """Write ingest, clean and dedup; only samples that were not kept have rows."""
    num_small = num_lost // 2
    lost = range(num_samples - num_lost, num_samples)
    plan = (
        ("ingest", range(0), num_samples, REASONS[0]),
        ("clean", lost[:num_small], num_samples, REASONS[0]),
        ("dedup", lost[num_small:], num_samples - num_small, REASONS[1]),
    )
    made: dict[str, Artifact] = {}
    before = ""
    for step, numbers, found, (_, reason, rule) in plan:
        inputs: dict[str, Json] = {before: made[before].manifest.fingerprint} if before else {}
        identity: dict[str, Json] = {"step": step, "work": {"many": name}, "inputs": inputs}
        fingerprint = fingerprint_of(identity)
        url = storage.join(str(root), "steps", name, step, fingerprint[:16])
        rows = [_lost_row(number, reason, rule, has_twin=step == "dedup") for number in numbers]
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, ROWS_SCHEMA), buffer, compression="zstd")
        record = file_record(url, "part-000000.parquet", buffer.getvalue(), num_samples=len(rows))
        dropped = {reason: len(rows)} if rows else {}
        counts = Counts(found, found - len(rows), dropped)
        manifest = Manifest(step, fingerprint, identity, counts, (record,))
        made[step] = Artifact(url, commit_manifest(url, manifest))
        before = step
    return made


def _lost_row(number: int, reason: str, rule: str, *, has_twin: bool) -> dict[str, Any]:
    return {
        "key": key_of(number),
        "status": "dropped",
        "reason": reason,
        "detail": "24 px < 32 px" if not has_twin else f"same image as {key_of(number % 1000)}",
        "rule": rule,
        "twin": key_of(number % 1000) if has_twin else "",
        "parts": [],
        "meta": json.dumps(meta_of(number)),
        "scores": [("image_width", 24.0)],
    }
