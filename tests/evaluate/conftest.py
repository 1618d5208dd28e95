"""A dataset of coloured squares, words and tones that lies in memory, and models that know it."""

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import simplejpeg
import soundfile
import torch

from mmcore.core.loader import Batch, OpenLoader, SampleInfo
from mmcore.core.manifest import Counts, FileRecord, Manifest, commit_manifest
from mmcore.core.step import Artifact, Inputs, TaskContext
from mmcore.sample import Json

LABELS = ("animals", "food", "vehicles")
LANGUAGES = ("en", "fr")
NUM_GROUPS = 12
SIDE = 8
NUM_MELS = 4


@dataclass(frozen=True)
class SquaresInMemory:
    """Every caption group g has class g % 3, one picture, and a caption and a tone per language.

    The number of the group can be read off each modality: a model that does so is always right.
    """

    caption_of: Callable[[int, str], str]
    without_audio: frozenset[int] = frozenset()
    """Groups that have no sound."""

    @property
    def labels(self) -> Sequence[str]:
        return LABELS

    @property
    def vocab_size(self) -> int:
        return NUM_GROUPS + 1

    def samples(self, split: str) -> Sequence[SampleInfo]:
        if split not in ("train", "test"):
            return []
        return [self._info(split, index) for index in range(NUM_GROUPS * len(LANGUAGES))]

    def parts(self, key: str) -> Mapping[str, bytes]:
        group, language = self._parse(key)
        pixels = np.full((SIDE, SIDE, 3), 20 * group, dtype=np.uint8)
        parts = {
            "jpg": simplejpeg.encode_jpeg(pixels, colorspace="RGB"),
            "txt": self.caption_of(group, language).encode(),
        }
        if group not in self.without_audio:
            tone = np.sin(np.arange(1600) * 0.05 * (group + 1)).astype(np.float32)
            sound = io.BytesIO()
            soundfile.write(sound, 0.3 * tone, 16_000, format="FLAC")
            parts["flac"] = sound.getvalue()
        return parts

    def num_steps(self, split: str, *, global_batch_size: int) -> int:
        return len(self.samples(split)) // global_batch_size

    def epoch(self, split: str, **_: int) -> Iterator[Batch]:
        return self.in_order(split, batch_size=4)

    def in_order(self, split: str, *, batch_size: int) -> Iterator[Batch]:
        infos = self.samples(split)
        for first in range(0, len(infos), batch_size):
            some = infos[first : first + batch_size]
            groups = np.array([self._parse(info.key)[0] for info in some])
            has_audio = np.array([group not in self.without_audio for group in groups])
            ones = np.ones(len(some), dtype=bool)
            image = np.broadcast_to(
                groups[:, None, None, None].astype(np.uint8), (len(some), SIDE, SIDE, 3)
            )
            mel = np.broadcast_to(
                groups[:, None, None].astype(np.float32), (len(some), 5, NUM_MELS)
            )
            arrays = {
                "image": image.copy(),
                "has_image": ones,
                "text_ids": groups[:, None].astype(np.int64),
                "text_mask": ones[:, None],
                "has_text": ones,
                "audio_mel": mel * has_audio[:, None, None],
                "audio_mask": np.repeat(has_audio[:, None], 5, axis=1),
                "has_audio": has_audio,
                "label": groups % len(LABELS),
            }
            yield Batch([info.key for info in some], arrays)

    def close(self) -> None:
        """Nothing is open."""

    def _info(self, split: str, index: int) -> SampleInfo:
        group, language = divmod(index, len(LANGUAGES))
        meta: dict[str, Json] = {
            "label": LABELS[group % len(LABELS)],
            "language": LANGUAGES[language],
            "caption_group": f"group {group:02d}",
            "caption_en": f"Number {group}.",
            "original_key": f"square-{group:02d}",
        }
        key = f"{split}-{group:02d}-{LANGUAGES[language]}"
        return SampleInfo(key, split, f"{split}/{split}-000000.tar", index, ("jpg", "txt"), meta)

    @staticmethod
    def _parse(key: str) -> tuple[int, str]:
        _, group, language = key.split("-")
        return int(group), language


class ReadsTheNumber(torch.nn.Module):
    """Reads the group off each modality; `wrong` groups are taken for the next class."""

    def __init__(
        self, *, wrong: Sequence[int] = (), blind: Sequence[str] = (), lacks: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.codes = torch.nn.Parameter(torch.eye(NUM_GROUPS))
        self.wrong = list(wrong)
        self.blind = list(blind)
        self.lacks = list(lacks)

    def forward(self, batch: Mapping[str, torch.Tensor]) -> Any:
        groups = {
            "image": batch["image"][:, 0, 0, 0].long(),
            "text": batch["text_ids"][:, 0],
            "audio": batch["audio_mel"][:, 0, 0].round().long(),
        }
        for modality in self.blind:
            groups[modality] = torch.zeros_like(groups[modality])
        for modality in self.lacks:
            del groups[modality]
        embeddings = {modality: self.codes[number] for modality, number in groups.items()}
        logits = {modality: self._logits(number) for modality, number in groups.items()}
        return SimpleNamespace(
            embeddings=embeddings, logits={**logits, "fused": self._logits(groups["image"])}
        )

    def _logits(self, number: torch.Tensor) -> torch.Tensor:
        shift = torch.isin(number, torch.tensor(self.wrong, dtype=torch.long)).long()
        return (
            3.0 * torch.nn.functional.one_hot((number + shift) % len(LABELS), len(LABELS)).float()
        )


@dataclass(frozen=True, kw_only=True)
class SquaresLoader:
    dataset: OpenLoader

    def identity(self) -> Mapping[str, Json]:
        return {"loader": "squares"}

    def open(self, inputs: Inputs) -> OpenLoader:
        return self.dataset


@pytest.fixture
def make_squares() -> Callable[..., SquaresInMemory]:
    def make(**changes: Any) -> SquaresInMemory:
        plain: dict[str, Any] = {
            "caption_of": lambda group, language: f"{language}: number {group}."
        }
        return SquaresInMemory(**{**plain, **changes})

    return make


@pytest.fixture
def squares(make_squares: Callable[..., SquaresInMemory]) -> SquaresInMemory:
    return make_squares()


@pytest.fixture
def make_model() -> Callable[..., ReadsTheNumber]:
    return ReadsTheNumber


@pytest.fixture
def make_loader() -> Callable[[OpenLoader], SquaresLoader]:
    return lambda dataset: SquaresLoader(dataset=dataset)


@dataclass
class Project:
    """Committed artifacts of a small pipeline, below a root."""

    root: Path
    artifacts: dict[str, Artifact] = field(default_factory=dict)

    def commit(
        self,
        step: str,
        inputs: Sequence[str],
        counts: Counts,
        *,
        work: Json = None,
        facts: Mapping[str, Json] | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        url = str(self.root / step)
        for name, data in (files or {}).items():
            Path(url, name).parent.mkdir(parents=True, exist_ok=True)
            Path(url, name).write_bytes(data)
        identity: dict[str, Json] = {
            "step": step,
            "work": work,
            "inputs": {name: self.artifacts[name].manifest.fingerprint for name in inputs},
        }
        records = tuple(FileRecord(name, len(data), "") for name, data in (files or {}).items())
        fingerprint = (step.encode().hex() * 16)[:64]
        manifest = Manifest(step, fingerprint, identity, counts, records, facts or {})
        self.artifacts[step] = Artifact(url, commit_manifest(url, manifest))

    def context(self, *steps: str) -> TaskContext:
        bases = {name: artifact.url for name, artifact in self.artifacts.items()}
        inputs = Inputs(
            {step: self.artifacts[step] for step in steps}, {**bases, "source": "/nowhere"}
        )
        return TaskContext(
            inputs=inputs,
            output_url=str(self.root / "evaluate"),
            root=str(self.root),
            fingerprint="e" * 64,
        )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """ingest -> clean -> shard -> train, with a tokenizer beside; numbers chosen by hand."""
    made = Project(tmp_path)
    made.commit("ingest", (), Counts(found=60, kept=58, quarantined={"image_undecodable": 2}))
    made.commit(
        "clean", ("ingest",), Counts(found=58, kept=48, dropped={"silent": 3, "image_too_small": 7})
    )
    made.commit(
        "shard",
        ("clean",),
        Counts(found=48, kept=48),
        work={"work": "shard", "name": "squares", "licence": "cc0-1.0"},
        facts={"num_samples": {"test": 24, "train": 24}, "num_shards": 2},
    )
    made.commit("tokenizer", ("shard",), Counts(found=24, kept=24))
    log = [
        {"step": 1, "epoch": 0, "loss": 2.0, "lr": 0.1},
        {"step": 2, "epoch": 0, "loss": 1.0, "lr": 0.1},
        {"epoch": 0, "val_accuracy": 0.5, "val_accuracy_image": 0.4},
        {"step": 3, "epoch": 1, "loss": 0.5, "lr": 0.1},
        {"epoch": 1, "val_accuracy": 0.75, "val_accuracy_image": 0.7},
    ]
    made.commit(
        "train",
        ("shard", "tokenizer"),
        Counts(),
        work={"work": "train", "train": {"seed": 7}},
        facts={"num_params": 144, "epochs": 2, "steps": 3},
        files={"metrics.jsonl": "".join(json.dumps(line) + "\n" for line in log).encode()},
    )
    return made
