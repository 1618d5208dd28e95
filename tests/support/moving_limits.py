"""A few samples, a chain of stages with limits to move, and a way to make bytes unreadable."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from corpus import write_sample

from mmcore.clean.audio import Clipped, MinMaxSeconds
from mmcore.clean.image import DecodeImage, MaxMegapixels, MinSide
from mmcore.clean.parts import RequireParts
from mmcore.clean.text import CaptionLanguage, RepairCaption
from mmcore.clean.wording import CaptionLength
from mmcore.core import map_work
from mmcore.core.decoder import Decode
from mmcore.core.decoder_limits import DecoderLimits
from mmcore.core.executor import Executor
from mmcore.core.graph import Graph
from mmcore.core.map_work import MapWork, StageChain
from mmcore.core.measured import Measured
from mmcore.core.rows import with_loaded
from mmcore.core.runner import Run
from mmcore.core.source import Source
from mmcore.core.stage import Stage, Worker
from mmcore.core.step import Artifact, Step
from mmcore.executors.local import LocalExecutor
from mmcore.ingest.folder import FolderLayout
from mmcore.ingest.work import IngestWork
from mmcore.media.image import encode_png, picture_of
from mmcore.sample import Json, Outcome, Sample

NUM_SAMPLES = 10


@dataclass(frozen=True, kw_only=True)
class Invert(Stage):
    """Replace a picture by a smaller one, and forget nothing that was measured."""

    reads = ("image",)
    rewrites = ("image",)

    def build(self) -> Worker:
        def invert(sample: Sample) -> Outcome:
            extension = sample.extension("image")
            if extension is None:
                return sample
            smaller = np.ascontiguousarray(255 - picture_of(sample).pixels[::2, ::2])
            return sample.with_part(extension, encode_png(smaller))

        return invert


@dataclass(frozen=True, kw_only=True)
class PictureBytes(Measured):
    """Measure how long a picture is, in a unit that is no limit."""

    reads = ("image",)
    stores = ("image_bytes",)
    unit: int = 1

    def measure(self, sample: Sample) -> Sample:
        extension = sample.extension("image")
        assert extension is not None
        return sample.with_scores(image_bytes=len(sample.data(extension)) / self.unit)


@dataclass(frozen=True, kw_only=True)
class Deadly(Measured):
    """Measure pictures, and end the process at one of them."""

    reads = ("image",)
    stores = ("image_deadly_bytes",)
    limits = ("max_bytes",)
    victim: str
    max_bytes: int = 10**9

    def measure(self, sample: Sample) -> Sample:
        if sample.key == self.victim:
            os.abort()
        extension = sample.extension("image")
        assert extension is not None
        return sample.with_scores(image_deadly_bytes=float(len(sample.data(extension))))


@dataclass(frozen=True)
class NotingChain(StageChain):
    """Leave a line in a file for every part that is loaded, in the process that loads it."""

    notes: str = ""

    def build(self, entering: Callable[[str], None]) -> Callable[[Json], Decode]:
        assert any(stage.reads for stage in self.stages), "this process is not to be changed"
        map_work.with_loaded = self._noting
        return super().build(entering)

    def _noting(
        self, sample: Sample, extensions: Iterable[str], bases: Mapping[str, str]
    ) -> Sample:
        with open(self.notes, "a") as notes:
            for extension in extensions:
                if sample.parts[extension].data is None:
                    notes.write(f"{sample.key}.{extension}\n")
        return with_loaded(sample, extensions, bases)


@dataclass(frozen=True)
class Loaded:
    """What a `NotingChain` has written down."""

    file: Path

    def names(self) -> list[str]:
        return self.file.read_text().split() if self.file.exists() else []

    def clear(self) -> None:
        self.file.unlink(missing_ok=True)


def write_corpus(directory: Path) -> Path:
    """Pictures of 12 to 30 pixels; one broken, one flat caption twice, one without sound."""
    for i in range(NUM_SAMPLES):
        write_sample(directory / f"{i:03d}", i, side=12 + 2 * i)
    (directory / "004.png").write_bytes((directory / "004.png").read_bytes()[:90])
    (directory / "005.flac").write_bytes(b"fLaC" + bytes(40))
    (directory / "006.flac").unlink()
    (directory / "007.txt").write_text("A   dog &amp; a cat")
    (directory / "008.png").write_bytes((directory / "003.png").read_bytes())
    return directory


def graph(
    corpus: Path,
    stages: Sequence[Stage],
    *,
    samples_per_task: int = 4,
    at_most: DecoderLimits | None = None,
) -> Graph:
    ingest = IngestWork(layout=FolderLayout(), samples_per_task=samples_per_task)
    clean = MapWork(
        step="clean", samples_from="ingest", stages=tuple(stages), limits=at_most or DecoderLimits()
    )
    steps = (Step("ingest", ingest, ("scan",)), Step("clean", clean, ("ingest",)))
    return Graph("toy", Source(str(corpus)), steps)


def run(
    corpus: Path,
    root: Path,
    stages: Sequence[Stage],
    *,
    executor: Executor | None = None,
    samples_per_task: int = 4,
    at_most: DecoderLimits | None = None,
) -> Artifact:
    todo = graph(corpus, stages, samples_per_task=samples_per_task, at_most=at_most)
    return Run(todo, root=str(root), executor=executor or LocalExecutor()).run()["clean"].artifact


def spoil(corpus: Path, *endings: str) -> None:
    """Put other bytes where the pictures and sounds were, unseen by the scan."""
    for file in sorted(corpus.rglob("*")):
        if file.name.endswith(endings):
            status = file.stat()
            file.write_bytes(bytes(status.st_size))
            os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def limits(
    *,
    side: int = 16,
    pixels: int = 10**6,
    animated: str = "first",
    seconds: float = 0.1,
    clip: float = 0.999,
    words: int = 1,
    optional: tuple[str, ...] = (),
    languages: tuple[str, ...] = (),
) -> list[Stage]:
    return [
        RequireParts(required=("image",), optional=optional),
        MaxMegapixels(max_megapixels=pixels / 1e6),
        DecodeImage(max_pixels=pixels, animated=animated),  # type: ignore[arg-type]
        MinSide(min_side=side),
        RepairCaption(),
        CaptionLength(min_words=words),
        CaptionLanguage(languages=languages, min_confidence=0.0),
        MinMaxSeconds(min_seconds=seconds),
        Clipped(clip_level=clip, max_fraction=0.5),
    ]
