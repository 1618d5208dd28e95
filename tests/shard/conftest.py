"""Datasets small enough to make in a test, through the same calls as a run makes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from mmcore.core.manifest import Counts, Manifest
from mmcore.core.rows import write_part
from mmcore.core.step import Artifact, Inputs, TaskContext
from mmcore.sample import Part, Sample, sha256_hex
from mmcore.shard.work import ShardWork


def sample(
    number: int, *, split: str = "train", text: str | None = None, **meta: str | int
) -> Sample:
    """Return a sample with a picture-like and a text part; its number decides everything."""
    caption = f"caption {number}" if text is None else text
    parts = {
        "png": Part(data=bytes([number % 256]) * (number * 37 % 1500)),
        "txt": Part(data=caption.encode()),
    }
    known = {"split": split, "label": f"class-{number % 3}", "split_group": f"k{number:03d}"}
    return Sample(f"k{number:03d}", parts, {**known, **meta}, {"sharpness": number / 4})


@dataclass(frozen=True)
class Published:
    """A dataset that was written, and what the step said of it."""

    path: Path
    manifest: Manifest
    inputs: Inputs

    def hashes(self) -> dict[str, str]:
        return {record.path: record.sha256 for record in self.manifest.files}


def encode(directory: Path, files: Iterable[Sequence[Sample]]) -> Inputs:
    """Write samples as the step before would, one table per inner list."""
    url = str(directory)
    context = TaskContext(inputs=Inputs({}, {}), output_url=url, root=url)
    reports = [
        write_part(f"part-{i:06d}", (("", one) for one in part), step="encode", context=context)
        for i, part in enumerate(files)
    ]
    records = tuple(file for report in reports for file in report.files)
    counts = Counts.total(report.counts for report in reports)
    artifact = Artifact(url, Manifest("encode", "0" * 64, {}, counts, records))
    return Inputs({"encode": artifact}, {"encode": url})


def publish(work: ShardWork, inputs: Inputs, directory: Path, *, backwards: bool) -> Published:
    """Do the tasks in either order and put the whole together, as the runner would."""
    context = TaskContext(inputs=inputs, output_url=str(directory), root=str(directory))
    tasks = work.tasks(inputs)
    reports = {task.name: work.run(task, context) for task in tasks[:: -1 if backwards else 1]}
    in_order = [reports[task.name] for task in tasks]
    closing = work.finish(in_order, context)
    everything = [*in_order, closing]
    files = [file for report in everything for file in report.files]
    kept = tuple(
        sorted((f for f in files if not f.path.startswith("_tasks/")), key=lambda f: f.path)
    )
    counts = Counts.total(report.counts for report in everything)
    manifest = Manifest("shard", "1" * 64, {}, counts, kept, closing.facts)
    for record in kept:
        assert sha256_hex((directory / record.path).read_bytes()) == record.sha256
    return Published(directory, manifest, inputs)


Publish = Callable[..., Published]


@pytest.fixture
def make_sample() -> Callable[..., Sample]:
    return sample


@pytest.fixture
def encoded(tmp_path: Path) -> Callable[..., Inputs]:
    """Write an encode artifact from lists of samples."""
    number = iter(range(100))
    return lambda *files: encode(tmp_path / f"encode-{next(number)}", files)


@pytest.fixture
def published(tmp_path: Path) -> Publish:
    """Write a dataset from lists of samples, by default eight to a shard."""
    number = iter(range(100))

    def make(
        *files: Sequence[Sample],
        work: ShardWork = ShardWork(name="tiny", samples_per_shard=8),  # noqa: B008 - frozen
        backwards: bool = False,
    ) -> Published:
        index = next(number)
        inputs = encode(tmp_path / f"input-{index}", files)
        return publish(work, inputs, tmp_path / f"dataset-{index}", backwards=backwards)

    return make
