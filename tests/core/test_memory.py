"""Limits move and corpora grow without anything being measured twice, and nothing shows it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path

import pytest
from batch_stages import Together
from corpus import write_sample
from decode_here import decode_here
from moving_limits import (
    NUM_SAMPLES,
    Deadly,
    Invert,
    Loaded,
    NotingChain,
    PictureBytes,
    limits,
    run,
    spoil,
    write_corpus,
)

from mmcore.clean.audio import Clipped, DecodeAudio, MeasureAudio, Silent
from mmcore.clean.image import Blurred, DecodeImage, Flatness, MaxMegapixels, MeasureImage, MinSide
from mmcore.clean.text import RepairCaption
from mmcore.clean.wording import MeasureText
from mmcore.core import batches, map_work
from mmcore.core.decoder import close_idle
from mmcore.core.decoder_limits import DecoderLimits
from mmcore.core.measured import Measured
from mmcore.core.memory import GIVEN, REWRITTEN, Failure, Memory, measuring
from mmcore.core.rows import Row, read_rows, with_loaded
from mmcore.core.stage import Stage
from mmcore.core.step import Artifact
from mmcore.sample import Sample


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus")


@pytest.fixture(autouse=True)
def _decode_in_this_process(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "loaded_elsewhere" not in request.fixturenames:
        monkeypatch.setattr(map_work, "borrowed", decode_here)
        monkeypatch.setattr(batches, "borrowed", decode_here)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parts that runs in this process have loaded."""
    found: list[str] = []

    def noting(sample: Sample, extensions: Sequence[str], bases: dict[str, str]) -> Sample:
        found.extend(f"{sample.key}.{ext}" for ext in extensions if not sample.parts[ext].data)
        return with_loaded(sample, extensions, bases)

    monkeypatch.setattr(map_work, "with_loaded", noting)
    return found


@pytest.fixture
def loaded_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loaded]:
    """The parts that decoder processes have loaded; nothing is decoded in this one."""
    found = Loaded(tmp_path / "loaded")
    monkeypatch.setattr(map_work, "StageChain", partial(NotingChain, notes=str(found.file)))
    yield found
    close_idle()


CHAINS: dict[str, list[Stage]] = {
    "plain": limits(),
    "small pictures": limits(side=8),
    "large pictures": limits(side=24),
    "fewer pixels": limits(pixels=500),
    "longer sounds": limits(seconds=0.6),
    "another clipping": limits(clip=0.4),
    "longer captions": limits(words=5),
    "another language": limits(languages=("de",)),
    "sounds may be bad": limits(optional=("audio",)),
    "no sound is kept": limits(optional=("audio",), seconds=9.0),
    "measured first": [MeasureImage(), MeasureAudio(), *limits(), Flatness(), Silent()],
    "other order": [DecodeAudio(), RepairCaption(), MeasureText(), *limits(side=8), Blurred()],
    "decoded": [DecodeImage(), MinSide(min_side=8)],
    "decoded under a guard": [DecodeImage(max_pixels=500), MinSide(min_side=8)],
    "in bytes": [MinSide(min_side=8), PictureBytes()],
    "in tens of bytes": [MinSide(min_side=8), PictureBytes(unit=10)],
    "around a batch": [MinSide(min_side=8), Together(), Blurred(), Flatness()],
    "around a batch at other limits": [MinSide(min_side=14), Together(), Blurred(), Flatness()],
    "replaced before a batch": [Invert(), MinSide(min_side=8), Together(), MaxMegapixels()],
    "before and after": [MinSide(min_side=8), Invert(), MaxMegapixels(), MinSide(min_side=8)],
    "after alone": [Invert(), MaxMegapixels(), MinSide(min_side=8)],
}


def test_what_a_run_writes_does_not_depend_on_what_was_measured_before(
    corpus: Path, tmp_path: Path
) -> None:
    fresh = {
        name: run(corpus, tmp_path / name, chain, samples_per_task=NUM_SAMPLES)
        for name, chain in CHAINS.items()
    }
    for order in (list(CHAINS), list(CHAINS)[::-1]):
        root = tmp_path / f"from {order[0]}"
        for name in order:
            made = run(corpus, root, CHAINS[name], samples_per_task=NUM_SAMPLES)
            assert list(read_rows(made)) == list(read_rows(fresh[name])), name
            assert made.manifest.to_json() == fresh[name].manifest.to_json(), name


def test_a_moved_limit_loads_no_picture_and_no_sound(
    corpus: Path, tmp_path: Path, loaded: list[str]
) -> None:
    wanted = run(corpus, tmp_path / "fresh", limits(side=24, seconds=0.2, languages=("de",)))
    run(corpus, tmp_path / "root", limits(side=8))
    assert any(name.endswith(".png") for name in loaded)
    loaded.clear()
    made = run(corpus, tmp_path / "root", limits(side=24, seconds=0.2, languages=("de",)))
    assert made.manifest.files == wanted.manifest.files
    assert [name for name in loaded if not name.endswith(".txt")] == []


def test_pictures_that_did_not_get_so_far_are_measured_now(
    corpus: Path, tmp_path: Path, loaded: list[str]
) -> None:
    run(corpus, tmp_path / "root", [MinSide(min_side=20), Blurred()])
    loaded.clear()
    run(corpus, tmp_path / "root", [MinSide(min_side=14), Blurred()])
    # 000 stays too small, and the others had been dropped before they were looked at for blur
    assert loaded == ["001.png", "002.png", "003.png", "008.png"]


def test_another_way_of_measuring_measures_again(
    corpus: Path, tmp_path: Path, loaded: list[str]
) -> None:
    run(corpus, tmp_path / "root", [Clipped()])
    loaded.clear()
    run(corpus, tmp_path / "root", [Clipped(max_fraction=0.5)])
    assert loaded == []
    run(corpus, tmp_path / "root", [Clipped(clip_level=0.5)])
    assert len(loaded) == NUM_SAMPLES - 1


def test_a_broken_picture_is_known_to_be_broken(
    corpus: Path, tmp_path: Path, loaded: list[str]
) -> None:
    before = rows(run(corpus, tmp_path / "root", [DecodeImage(), MinSide(min_side=8)]))
    assert before["004"].reason == "image_undecodable"
    loaded.clear()
    after = rows(run(corpus, tmp_path / "root", [DecodeImage(), MinSide(min_side=14)]))
    assert loaded == []
    assert after["004"] == before["004"]
    run(corpus, tmp_path / "root", [DecodeImage(max_pixels=10**5), MinSide(min_side=14)])
    assert loaded == ["004.png"]


def test_a_sample_that_ends_its_decoder_does_so_again_and_the_others_are_known_to_the_next_one(
    corpus: Path, tmp_path: Path, loaded_elsewhere: Loaded
) -> None:
    other = [MinSide(min_side=9), Deadly(victim="001", max_bytes=10**8)]
    wanted = run(corpus, tmp_path / "fresh", other)
    run(corpus, tmp_path / "root", [MinSide(min_side=8), Deadly(victim="001")])
    loaded_elsewhere.clear()
    made = run(corpus, tmp_path / "root", other)
    assert set(loaded_elsewhere.names()) == {"001.png"}
    assert made.manifest.to_json() == wanted.manifest.to_json()
    row = rows(made)["001"]
    assert (row.reason, row.rule, row.sample.scores) == ("decoder_died", "deadly", {})


def test_a_decoder_process_loads_nothing_of_a_sample_whose_scores_are_known(
    corpus: Path, tmp_path: Path, loaded_elsewhere: Loaded
) -> None:
    run(corpus, tmp_path / "root", limits(side=8))
    assert any(name.endswith(".png") for name in loaded_elsewhere.names())
    loaded_elsewhere.clear()
    run(corpus, tmp_path / "root", limits(side=14))
    assert [name for name in loaded_elsewhere.names() if not name.endswith(".txt")] == []


def test_what_was_measured_at_a_higher_cost_than_is_allowed_now_is_measured_again(
    corpus: Path, tmp_path: Path, loaded: list[str]
) -> None:
    for seconds, memory_mb, num_loaded in (
        (20, 800, 9),
        (10, 800, 9),
        (15, 700, 9),
        (30, 900, 0),
    ):
        at_most = DecoderLimits(seconds=seconds, memory_mb=memory_mb)
        loaded.clear()
        run(corpus, tmp_path / "root", [MinSide(min_side=8)], at_most=at_most)
        # 004 is broken, and with more memory it might not be
        assert len(set(loaded) - {"004.png"}) == num_loaded, at_most


def test_a_batch_between_stages_loads_what_it_reads_and_no_more(
    corpus: Path, tmp_path: Path, loaded: list[str]
) -> None:
    run(corpus, tmp_path / "root", [MinSide(min_side=8), Together(), Flatness(min_std=0.0)])
    assert any(name.endswith(".png") for name in loaded)
    loaded.clear()
    run(corpus, tmp_path / "root", [MinSide(min_side=9), Together(), Flatness(min_std=0.1)])
    # the broken picture has no score
    assert loaded == [f"{i:03d}.txt" for i in range(NUM_SAMPLES) if i != 4]


def test_a_memory_is_the_same_on_the_other_side_of_a_connection() -> None:
    failure = Failure(MinSide().identity(), "image_undecodable", "cut off", frozenset({"a"}))
    memory = Memory(
        work={"work": "map", "limits": {"seconds": 1.5}},
        known={
            ("image", "ab"): {("image_width", "m1"): 0.1, ("meta:language", "m2"): "de"},
            ("text", "ab"): {("meta:language", "m2"): None},
        },
        failures={("image", "cd"): [failure, failure]},
    )
    assert Memory.from_json(json.loads(json.dumps(memory.to_json()))) == memory


def test_a_picture_that_is_there_twice_is_decoded_once_in_a_task(
    corpus: Path, tmp_path: Path, loaded: list[str]
) -> None:
    run(corpus, tmp_path / "root", [DecodeImage()], samples_per_task=NUM_SAMPLES)
    assert "003.png" in loaded
    assert "008.png" not in loaded


def test_a_grown_corpus_and_other_limits_measure_what_is_new(
    corpus: Path, tmp_path: Path, loaded: list[str]
) -> None:
    run(corpus, tmp_path / "root", limits(side=8))
    write_sample(corpus / "000b", 77, side=20)
    wanted = run(corpus, tmp_path / "fresh", limits(side=14))
    loaded.clear()
    made = run(corpus, tmp_path / "root", limits(side=14))
    assert made.manifest.files == wanted.manifest.files
    heavy = sorted(name for name in loaded if not name.endswith(".txt"))
    assert heavy == ["000b.flac", "000b.png"]


def test_a_corpus_divided_otherwise_is_remembered(
    corpus: Path, tmp_path: Path, loaded: list[str]
) -> None:
    run(corpus, tmp_path / "root", limits(side=8))
    loaded.clear()
    run(corpus, tmp_path / "root", limits(side=14), samples_per_task=3)
    assert [name for name in loaded if not name.endswith(".txt")] == []


def test_a_damaged_memory_is_not_believed(corpus: Path, tmp_path: Path, loaded: list[str]) -> None:
    wanted = run(corpus, tmp_path / "fresh", limits(side=14))
    made = run(corpus, tmp_path / "root", limits(side=8))
    for path in sorted(Path(made.url).glob("*.parquet")):
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    loaded.clear()
    again = run(corpus, tmp_path / "root", limits(side=14))
    assert again.manifest.files == wanted.manifest.files
    assert "000.png" in loaded


def test_a_manifest_that_is_none_does_not_stop_a_run(corpus: Path, tmp_path: Path) -> None:
    wanted = run(corpus, tmp_path / "fresh", limits(side=14))
    made = run(corpus, tmp_path / "root", limits(side=8))
    Path(made.url, "manifest.json").write_text("{}")
    assert run(corpus, tmp_path / "root", limits(side=14)).manifest.files == wanted.manifest.files


def test_a_run_that_was_killed_goes_on_from_what_it_remembers(corpus: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    wanted = run(corpus, tmp_path / "fresh", limits(side=14))
    run(corpus, root, limits(side=8))
    made = run(corpus, root, limits(side=14))
    # as if it had been killed before its second task
    Path(made.url, "manifest.json").unlink()
    Path(made.url, "part-000001.parquet").unlink()
    spoil(corpus, ".png", ".flac")
    assert run(corpus, root, limits(side=14)).manifest.files == wanted.manifest.files


def test_only_fields_that_are_no_limit_decide_what_is_measured() -> None:
    assert MinSide(min_side=1).measuring() == MinSide(min_side=2).measuring()
    assert MinSide().measuring() != MaxMegapixels().measuring()
    assert Clipped(clip_level=0.5).measuring() != Clipped().measuring()
    assert Clipped(max_fraction=0.5).measuring() == Clipped().measuring()


def test_every_limit_is_a_field() -> None:
    pending = list(Measured.__subclasses__())
    for stage in pending:
        pending += stage.__subclasses__()
        names = {field.name for field in fields(stage)}
        assert set(stage.guards) <= set(stage.limits) <= names, stage


def test_scores_of_what_a_part_was_before_it_was_replaced_are_not_those_of_the_new_one() -> None:
    chain = [MinSide(), Invert(), MaxMegapixels(), Flatness()]
    names = measuring(chain)
    assert names.given["image"].keys() == {"image_width", "image_height", "image_std"}
    assert names.rewritten["image"].keys() == {"image_std"}
    assert measuring([Invert(), MinSide()]).rewritten["image"].keys() == {
        "image_width",
        "image_height",
    }


def test_the_manifest_says_what_measured_each_score(corpus: Path, tmp_path: Path) -> None:
    facts = run(corpus, tmp_path / "root", [RepairCaption(), MinSide()]).manifest.facts
    by = MinSide().measuring()
    given = {"image": {"image_width": by, "image_height": by}}
    assert facts == {"measured": {GIVEN: given, REWRITTEN: given}}
    assert run(corpus, tmp_path / "other", [RepairCaption()]).manifest.facts == {}


def rows(artifact: Artifact) -> dict[str, Row]:
    return {row.sample.key: row for row in read_rows(artifact)}


def test_spoiling_is_noticed_where_bytes_are_loaded(corpus: Path, tmp_path: Path) -> None:
    run(corpus, tmp_path / "root", [MinSide()])
    spoil(corpus, ".png")
    with pytest.raises(Exception, match="holds other bytes than were recorded"):
        run(corpus, tmp_path / "root", [Flatness()])
