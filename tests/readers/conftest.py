"""One small dataset with all kinds of parts, which every reader has to open unchanged."""

import io
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from mmcore.core.manifest import Manifest
from mmcore.core.rows import write_part
from mmcore.core.step import Artifact, Inputs, TaskContext
from mmcore.sample import Json, Part, Sample, sha256_hex
from mmcore.shard.reader import read_samples
from mmcore.shard.work import ShardWork

Hashes = dict[str, dict[str, str]]
"""SHA-256 by key and extension."""


@dataclass(frozen=True)
class Dataset:
    """A published dataset and what it must be read back as."""

    path: Path
    hashes: dict[str, Hashes]
    """By split."""
    inputs: Hashes
    """The parts that went in, without the `json` part."""

    def snippet(self, library: str) -> str:
        """Return the code that the card gives for a library."""
        blocks = (self.path / "README.md").read_text("ascii").split("```python\n")[1:]
        return next(block for block in blocks if library in block).split("```")[0]

    def tars(self, split: str) -> list[str]:
        return sorted(str(path) for path in (self.path / split).glob("*.tar"))


def _sample(number: int) -> Sample:
    side = 16 + number
    ramp = np.arange(side * side * 3, dtype=np.uint32) * (number + 1)
    image = (ramp % 251).astype(np.uint8).reshape(side, side, 3)
    parts = {
        "jpg": simplejpeg.encode_jpeg(image, quality=90),
        "txt": f"a caption, \u00e9t\u00e9 {number}".encode(),
        "speech.wav": _wav(number),
        "effect.ogg": bytes([number]) * (number * 300),
    }
    meta: dict[str, Json] = {
        "split": ["train", "train", "train", "val", "test"][number % 5],
        "split_group": f"g{number}",
        "label": f"class-{number % 2}",
        # what a reader that infers columns from the first samples trips over
        "note": None if number % 2 else "odd",
        "tags": ["x"] * (number % 3),
        "year": number if number % 4 else None,
    }
    scores = {"sharpness": float(number)} if number % 3 else {}
    return Sample(
        f"class-{number % 2}/k{number:03d}",
        {name: Part(data=data) for name, data in parts.items()},
        meta,
        scores,
    )


def _wav(number: int) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes((np.arange(800 + number) % 97 * 100).astype("<i2").tobytes())
    return buffer.getvalue()


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Pictures, text and sound: 24 samples to train in three shards, 8 each to val and test."""
    return _publish(tmp_path_factory.mktemp("readers"), [_sample(number) for number in range(40)])


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The same samples without sound."""
    samples = [_sample(number) for number in range(40)]
    mute = [one.without_part("speech.wav").without_part("effect.ogg") for one in samples]
    return _publish(tmp_path_factory.mktemp("pictures"), mute)


@pytest.fixture(scope="session")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Samples of which two in three lack their caption, as was declared."""
    samples = [_sample(number) for number in range(40)]
    mute = [one.without_part("speech.wav").without_part("effect.ogg") for one in samples]
    some = [one.without_part("txt") if i % 3 else one for i, one in enumerate(mute)]
    return _publish(tmp_path_factory.mktemp("sparse"), some, optional=("text",))


def _publish(root: Path, samples: list[Sample], optional: tuple[str, ...] = ()) -> Dataset:
    source, target = str(root / "encode"), root / "dataset"
    nothing = TaskContext(inputs=Inputs({}, {}), output_url=source, root=str(root))
    outcomes = (("", sample) for sample in samples)
    report = write_part("part-000000", outcomes, step="encode", context=nothing)
    manifest = Manifest("encode", "0" * 64, {}, report.counts, tuple(report.files))
    inputs = Inputs({"encode": Artifact(source, manifest)}, {"encode": source})
    context = TaskContext(inputs=inputs, output_url=str(target), root=str(root))
    work = ShardWork(name="readers", samples_per_shard=8, optional=optional)
    work.finish([work.run(task, context) for task in work.tasks(inputs)], context)
    hashes: dict[str, Hashes] = {"train": {}, "val": {}, "test": {}}
    for stored in read_samples(str(target)):
        of_sample = {part.extension: part.sha256 for part in stored.parts}
        hashes[stored.split][stored.key] = of_sample
    went_in = {
        sample.key: {name: sha256_hex(sample.data(name)) for name in sample.parts}
        for sample in samples
    }
    return Dataset(target, hashes, went_in)
