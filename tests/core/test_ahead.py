"""What is made ahead of a step changes nothing but who does it, and when."""

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from batch_stages import Together
from corpus import RECIPE, write_corpus
from moving_limits import spoil
from PIL import Image

from mmcore.clean.image import Flatness, MaxMegapixels, MinSide
from mmcore.clean.text import RepairCaption
from mmcore.core.ahead import mark_of, taken, working_ahead
from mmcore.core.executor import Executor
from mmcore.core.graph import Graph
from mmcore.core.map_work import MapWork
from mmcore.core.measured import Measured
from mmcore.core.rows import read_kept, read_rows
from mmcore.core.runner import Run
from mmcore.core.source import Source
from mmcore.core.stage import Stage, Worker
from mmcore.core.step import Artifact, Step
from mmcore.dedup.sign import SignImage
from mmcore.encode.image import EncodeImage
from mmcore.encode.text import EncodeText
from mmcore.errors import ConfigError
from mmcore.executors import make_executor
from mmcore.executors.local import LocalExecutor
from mmcore.ingest.folder import FolderLayout
from mmcore.ingest.work import IngestWork
from mmcore.recipe.build import load_recipe
from mmcore.recipe.whatif import ask
from mmcore.sample import Made, Outcome, Part, PartRef, Sample, sha256_hex


def jpeg(width: int, height: int, seed: int, **options: object) -> bytes:
    soft = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    image = Image.fromarray(soft).resize((width, height), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


def write_photos(directory: Path) -> Path:
    """Photographs: large, turned, small enough to pass through, too small, broken late, a PNG."""
    directory.mkdir(parents=True)
    turned = Image.Exif()
    turned[0x0112] = 6
    made = {
        "large": jpeg(1300, 900, 1),
        "turned": jpeg(1100, 700, 2, exif=turned),
        "fits": jpeg(60, 50, 3),
        "fits_with_exif": jpeg(60, 50, 4, exif=turned),
        "small": jpeg(20, 90, 5),
        "cut": jpeg(300, 200, 6)[:-200],
        "progressive": jpeg(640, 480, 7, progressive=True),
    }
    for name, data in made.items():
        (directory / f"{name}.jpeg").write_bytes(data)
    Image.open(io.BytesIO(jpeg(90, 80, 8))).save(directory / "drawn.png")
    return directory


CLEAN: tuple[Stage, ...] = (MinSide(min_side=30), Flatness(), SignImage())
ENCODE = EncodeImage(fit="inside", side=64, pass_through=True)


def graph(
    corpus: Path,
    *,
    clean: Sequence[Stage] = CLEAN,
    encode: Sequence[Stage] = (ENCODE,),
    is_ahead: bool = True,
) -> Graph:
    ahead = working_ahead(clean, encode) if is_ahead else ()
    cleaning = MapWork(step="clean", samples_from="ingest", stages=tuple(clean), ahead=ahead)
    encoding = MapWork(step="encode", samples_from="clean", stages=tuple(encode))
    ingest = IngestWork(layout=FolderLayout(), samples_per_task=3)
    steps = (
        Step("ingest", ingest, ("scan",)),
        Step("clean", cleaning, ("ingest",)),
        Step("encode", encoding, ("clean",)),
    )
    return Graph("toy", Source(str(corpus)), steps)


def run(todo: Graph, root: Path, executor: Executor | None = None) -> dict[str, Artifact]:
    done = Run(todo, root=str(root), executor=executor or LocalExecutor()).run()
    return {name: result.artifact for name, result in done.items()}


def told(artifact: Artifact) -> list[tuple[object, ...]]:
    """Return all that a step says of samples, but for where bytes lie."""
    return [
        (
            row.sample.key,
            (row.status, row.reason, row.detail, row.rule),
            {name: part.ref and part.ref.sha256 for name, part in row.sample.parts.items()},
            row.sample.meta,
            row.sample.scores,
        )
        for row in read_rows(artifact)
    ]


def files(artifact: Artifact) -> Mapping[str, str]:
    return {file.path: file.sha256 for file in artifact.manifest.files}


def test_pictures_made_ahead_are_those_that_the_step_itself_makes(tmp_path: Path) -> None:
    corpus = write_photos(tmp_path / "corpus")
    ahead = run(graph(corpus), tmp_path / "ahead")
    plain = run(graph(corpus, is_ahead=False), tmp_path / "plain")
    for step in ("clean", "encode"):
        assert told(ahead[step]) == told(plain[step])
        assert ahead[step].manifest.counts == plain[step].manifest.counts
    assert ahead["clean"].manifest.fingerprint != plain["clean"].manifest.fingerprint
    assert {reason for *_, (_, reason, _, _), _, _, _ in told(plain["clean"])} == {
        "",
        "image_too_small",
        "image_undecodable",
    }
    # all of it is ahead: nothing is left for the step to write but rows
    assert not any(path.endswith(".bin") for path in files(ahead["encode"]))
    fits = next(sample for sample in read_kept(ahead["encode"]) if sample.key == "fits")
    assert fits.parts["jpg"].ref is not None
    assert fits.parts["jpg"].ref.sha256 == sha256_hex((corpus / "fits.jpeg").read_bytes())


def test_pictures_are_not_looked_at_again_once_they_are_made(tmp_path: Path) -> None:
    corpus = write_photos(tmp_path / "corpus")
    todo = graph(corpus)
    Run(todo, root=str(tmp_path / "root"), executor=LocalExecutor()).run(["clean"])
    spoil(corpus, ".jpeg", ".png")
    assert run(todo, tmp_path / "root")["encode"].manifest.counts.kept == 6


@pytest.mark.parametrize(("name", "num_workers"), [("local", 2), ("ray", 2)])
def test_who_works_shows_in_no_byte(tmp_path: Path, name: str, num_workers: int) -> None:
    corpus = write_photos(tmp_path / "corpus")
    executor = make_executor(name, num_workers=num_workers)
    try:
        found = run(graph(corpus), tmp_path / "found", executor)
    finally:
        executor.close()
    alone = run(graph(corpus), tmp_path / "alone")
    for step in ("clean", "encode"):
        assert files(found[step]) == files(alone[step])


@dataclass(frozen=True, kw_only=True)
class Noted(Measured):
    """Measure nothing, and leave a line in a file for each picture that is measured."""

    reads = ("image",)
    stores = ("image_noted",)
    limits = ("min_side",)
    notes: str
    min_side: int = 0

    def measure(self, sample: Sample) -> Sample:
        with open(self.notes, "a") as notes:
            notes.write(f"{sample.key}\n")
        return sample.with_scores(image_noted=1.0)


def test_another_size_of_pictures_measures_no_score_anew(tmp_path: Path) -> None:
    corpus = write_photos(tmp_path / "corpus")
    clean = (MinSide(min_side=30), Noted(notes=str(tmp_path / "notes")))
    first = run(graph(corpus, clean=clean), tmp_path / "root")
    measured = (tmp_path / "notes").read_text().split()
    larger = EncodeImage(fit="inside", side=80)
    second = run(graph(corpus, clean=clean, encode=(larger,)), tmp_path / "root")
    assert (tmp_path / "notes").read_text().split() == measured != []
    assert first["clean"].url != second["clean"].url
    plain = graph(corpus, clean=clean, encode=(larger,), is_ahead=False)
    assert told(second["encode"]) == told(run(plain, tmp_path / "plain")["encode"])


def test_other_limits_take_over_what_was_made_and_look_at_no_picture(tmp_path: Path) -> None:
    corpus = write_photos(tmp_path / "corpus")
    for each in ("drawn.png", "cut.jpeg"):
        (corpus / each).unlink()
    clean = (MinSide(min_side=0), Flatness())
    run(graph(corpus, clean=clean), tmp_path / "root")
    stricter = (MinSide(min_side=55), Flatness())
    fresh = run(graph(corpus, clean=stricter), tmp_path / "fresh")
    spoil(corpus, ".jpeg")
    again = run(graph(corpus, clean=stricter), tmp_path / "root")
    for step in ("clean", "encode"):
        assert files(again[step]) == files(fresh[step])
    assert again["clean"].manifest.counts.kept == 3


def test_what_was_made_before_and_is_damaged_is_made_anew(tmp_path: Path) -> None:
    corpus = write_photos(tmp_path / "corpus")
    made = run(graph(corpus), tmp_path / "root")["clean"]
    for path in files(made):
        if path.endswith(".bin"):
            Path(made.url, path).write_bytes(b"other bytes")
    moved = (MinSide(min_side=31), *CLEAN[1:])
    again = run(graph(corpus, clean=moved), tmp_path / "root")
    fresh = run(graph(corpus, clean=moved), tmp_path / "fresh")
    for step in ("clean", "encode"):
        assert files(again[step]) == files(fresh[step])


@dataclass(frozen=True, kw_only=True)
class NotedEncode(EncodeImage):
    """Encode pictures, and leave a line in a file for each."""

    notes: str = ""

    def build(self) -> Worker:
        encode = super().build()

        def noting(sample: Sample) -> Outcome:
            with open(self.notes, "a") as notes:
                notes.write(f"{sample.key}\n")
            return encode(sample)

        return noting


def test_a_picture_that_several_samples_have_in_a_row_is_encoded_once(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name, seed in (("a-en", 1), ("a-fr", 1), ("b-en", 2)):
        (corpus / f"{name}.jpg").write_bytes(jpeg(90, 80, seed))
    noted = NotedEncode(side=32, notes=str(tmp_path / "notes"))
    made = run(graph(corpus, encode=(noted,)), tmp_path / "root")["encode"]
    assert (tmp_path / "notes").read_text().split() == ["a-en", "b-en"]
    digests = [part.sha256 for one in read_kept(made) if (part := one.parts["jpg"].ref)]
    assert digests[0] == digests[1] != digests[2]


@dataclass(frozen=True, kw_only=True)
class Deadly(EncodeImage):
    """Encode pictures, but for one of 90 pixels, which ends the process."""

    def build(self) -> Worker:
        encode = super().build()

        def deadly(sample: Sample) -> Outcome:
            if sample.key == "drawn":
                os.abort()
            return encode(sample)

        return deadly


def test_a_picture_that_kills_who_works_ahead_is_refused_by_the_step_it_is_for(
    tmp_path: Path,
) -> None:
    corpus = write_photos(tmp_path / "corpus")
    deadly = (Deadly(fit="inside", side=64),)
    ahead = run(graph(corpus, encode=deadly), tmp_path / "ahead")
    plain = run(graph(corpus, encode=deadly, is_ahead=False), tmp_path / "plain")
    for step in ("clean", "encode"):
        assert told(ahead[step]) == told(plain[step])
    assert ahead["encode"].manifest.counts.quarantined == {"decoder_died": 1}


def test_a_picture_that_cannot_be_encoded_is_refused_by_the_step_it_is_for(tmp_path: Path) -> None:
    corpus = write_photos(tmp_path / "corpus")
    by_header = (MaxMegapixels(), MinSide(min_side=30))
    ahead = run(graph(corpus, clean=by_header), tmp_path / "ahead")
    plain = run(graph(corpus, clean=by_header, is_ahead=False), tmp_path / "plain")
    for step in ("clean", "encode"):
        assert told(ahead[step]) == told(plain[step])
    assert ahead["clean"].manifest.counts.quarantined == {}
    assert ahead["encode"].manifest.counts.quarantined == {"image_undecodable": 1}


def test_a_whole_dataset_is_the_same_without_it(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(RECIPE.format(corpus=corpus))
    todo = load_recipe(str(recipe)).graph
    clean = todo.step("clean")
    assert isinstance(clean.work, MapWork)
    assert clean.work.ahead == (EncodeImage(side=32),)
    plain_step = replace(clean, work=replace(clean.work, ahead=()))
    plain_steps = tuple(plain_step if one.name == "clean" else one for one in todo.steps)
    ahead = run(todo, tmp_path / "ahead")
    plain = run(replace(todo, steps=plain_steps), tmp_path / "plain")
    tars = [
        {path: digest for path, digest in files(made["shard"]).items() if path.endswith(".tar")}
        for made in (ahead, plain)
    ]
    assert tars[0] == tars[1] != {}
    for step in ("clean", "dedup", "split", "encode"):
        assert told(ahead[step]) == told(plain[step])
    answer = "clean stays as it is"
    with pytest.raises(ConfigError, match=answer):
        ask(str(recipe), ["encode.encode_image.side=48"], root=str(tmp_path / "ahead"))


def sample_with(made: Made | None) -> Sample:
    ref = PartRef("source", "a.png", 0, 3, "0" * 64)
    return Sample("a", {"png": Part(ref, made=made), "txt": Part(data=b"A cat.")})


def test_what_another_stage_made_is_not_taken() -> None:
    new = Part(PartRef("clean", "part-000000.bin", 0, 9, "1" * 64))
    made = Made(mark_of(ENCODE), "png", "jpg", new)
    after = taken(ENCODE, mark_of(ENCODE), sample_with(made))
    assert after is not None
    assert after.parts == {"txt": Part(data=b"A cat."), "jpg": new}
    other = replace(ENCODE, side=65)
    for stage, one in (
        (other, made),
        (ENCODE, None),
        (ENCODE, replace(made, of="jpg")),
        (ENCODE, replace(made, by="")),
    ):
        assert taken(stage, mark_of(stage), sample_with(one)) is None


def test_only_what_needs_the_part_alone_is_done_and_only_where_its_bytes_are_in_hand() -> None:
    later = (EncodeText(), ENCODE, EncodeImage(side=9))
    assert working_ahead(CLEAN, later) == (ENCODE,)
    assert working_ahead((RepairCaption(),), later) == ()
    assert working_ahead((*CLEAN, Together()), later) == ()
    assert working_ahead((), later) == ()
