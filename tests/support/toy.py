"""A tiny recipe of steps over text files, for tests of the contract."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmcore.core.columns import Corpus, Flags, Ints, Values, Want
from mmcore.core.corpus_work import CorpusWork
from mmcore.core.decoder_limits import DecoderLimits
from mmcore.core.graph import Graph
from mmcore.core.map_work import MapWork
from mmcore.core.runner import Run
from mmcore.core.shelf import Shelf
from mmcore.core.source import Source
from mmcore.core.stage import CorpusRule, Stage, Verdict, Worker
from mmcore.core.step import Step
from mmcore.errors import SampleError
from mmcore.executors.local import LocalExecutor
from mmcore.ingest.folder import FolderLayout
from mmcore.ingest.work import IngestWork
from mmcore.media.near.digests import first_of_equal
from mmcore.sample import Dropped, Outcome, Sample


@dataclass(frozen=True, kw_only=True)
class Shout(Stage):
    """Upper-case the text; drop short ones, refuse what holds a zero byte."""

    reads = ("text",)
    min_chars: int = 3
    pause: float = 0.0
    """Before each sample, so that a test can kill in the middle."""

    def build(self) -> Worker:
        def shout(sample: Sample) -> Outcome:
            time.sleep(self.pause)
            data = sample.data("txt")
            if b"\0" in data:
                raise SampleError("text_broken", "holds a zero byte")
            sample = sample.with_scores(num_chars=float(len(data)))
            if len(data) < self.min_chars:
                return Dropped(sample, "text_too_short", f"{len(data)} < {self.min_chars}")
            return sample.with_part("txt", data.upper())

        return shout


@dataclass(frozen=True)
class FirstOnes:
    """What `FirstOfEach` decided."""

    corpus: Corpus
    first: Ints

    @property
    def kept(self) -> Flags:
        return self.first == np.arange(len(self.first))

    def outcome(self, row: int, sample: Sample) -> Outcome:
        if self.kept[row]:
            return sample
        return Dropped(sample, "duplicate", twin=self.corpus.key(int(self.first[row])))


@dataclass(frozen=True, kw_only=True)
class FirstOfEach(CorpusRule):
    """Keep one sample per text."""

    def wants(self) -> tuple[Want, ...]:
        return (Values("text"),)

    def decide(self, corpus: Corpus, shelf: Shelf) -> Verdict:
        return FirstOnes(corpus, first_of_equal(corpus[Values("text")].digests()))


def write_corpus(directory: Path, *, num_texts: int = 20) -> Path:
    """Texts of which one is broken, one is short and two are equal."""
    directory.mkdir(parents=True)
    for i in range(num_texts):
        (directory / f"t{i:03d}.txt").write_bytes(f"text number {i}".encode())
    (directory / "broken.txt").write_bytes(b"zero \0 byte")
    (directory / "short.txt").write_bytes(b"ab")
    (directory / "twin.txt").write_bytes(b"text number 0")
    return directory


def toy_graph(
    corpus: Path,
    *,
    stage: Stage | None = None,
    samples_per_task: int = 4,
    limits: DecoderLimits | None = None,
) -> Graph:
    """Ingest, clean and deduplicate a folder of texts."""
    clean = MapWork(
        step="clean",
        samples_from="ingest",
        stages=(stage or Shout(),),
        limits=limits or DecoderLimits(),
    )
    return Graph(
        "toy",
        Source(str(corpus)),
        (
            Step(
                "ingest",
                IngestWork(layout=FolderLayout(), samples_per_task=samples_per_task),
                ("scan",),
            ),
            Step("clean", clean, ("ingest",)),
            Step(
                "dedup",
                CorpusWork(step="dedup", samples_from="clean", rules=(FirstOfEach(),)),
                ("clean",),
            ),
        ),
    )


def run_toy(graph: Graph, root: Path, **kwargs: object) -> Run:
    """Run a graph in this process."""
    run = Run(graph, root=str(root), executor=LocalExecutor(), **kwargs)  # type: ignore[arg-type]
    run.run()
    return run


def hashes(root: Path) -> dict[str, str]:
    """SHA-256 of every file of every artifact below a root, without the state that is a cache."""
    from mmcore.sample import sha256_hex

    return {
        str(path.relative_to(root)): sha256_hex(path.read_bytes())
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.relative_to(root).parts[0] not in ("state", "runs", "leases")
    }
