import random
from collections import Counter
from pathlib import Path

import pytest

from mmcore.errors import ConfigError
from mmcore.ingest.layout import Grouping, Made, SourceFile
from mmcore.ingest.stamps import StampsLayout, parse_captions
from mmcore.sample import Dropped, Outcome, Quarantined, Sample, sha256_hex

OWL = b"An owl.\nfr.utf8=Un hibou.\nes.utf8=Una lechuza.\nde.utf8=\n"
SPOKEN = ("en", "fr", "ru", "ca", "ro", "bg", "es", "be", "el", "da", "en_GB", "nl")
REST = ("pt_BR", "ml", "ja", "ko", "it", "de", "pt", "sv", "nb", "nn", "lt", "sl")


def group(layout: StampsLayout, contents: dict[str, bytes]) -> Grouping:
    files = [SourceFile(path, len(data), sha256_hex(data)) for path, data in contents.items()]
    grouping = layout.group(files)
    assert layout.group(random.Random(1).sample(files, k=len(files))) == grouping
    claimed = [file.path for raw in grouping.samples for file in raw.files.values()]
    assert sorted([*claimed, *(path for path, _ in grouping.unclaimed)]) == sorted(contents)
    return grouping


def make(layout: StampsLayout, contents: dict[str, bytes]) -> Made:
    grouping = group(layout, contents)
    made = [layout.make(raw, lambda file: contents[file.path]) for raw in grouping.samples]
    return Made(
        [outcome for one in made for outcome in one.outcomes],
        [file for one in made for file in one.unclaimed],
    )


def owl(*names: str, captions: bytes = OWL) -> dict[str, bytes]:
    files = {f"animals/birds/owl{name}": name.encode() for name in names}
    return {"animals/birds/owl.txt": captions, "animals/birds/owl.png": b"png", **files}


def test_a_sample_for_each_declared_language_with_caption_and_speech() -> None:
    contents = owl("_desc.ogg", "_desc_fr.ogg", "_desc_es.wav", "_desc_ru.ogg")
    made = make(StampsLayout(languages=("en", "fr", "es", "ru")), contents)
    assert [outcome.key for outcome in made.outcomes if isinstance(outcome, Sample)] == [
        "animals__birds__owl__en",
        "animals__birds__owl__fr",
        "animals__birds__owl__es",
    ]
    assert made.unclaimed == [("animals/birds/owl_desc_ru.ogg", "speech_without_caption")]


def test_a_sample_carries_picture_caption_and_speech_of_its_language() -> None:
    contents = owl("_desc_fr.ogg")
    (sample,) = make(StampsLayout(languages=("fr",)), contents).outcomes
    assert isinstance(sample, Sample)
    assert sample.parts["txt"].data == b"Un hibou."
    assert sample.parts["ogg"].ref is not None
    assert sample.parts["ogg"].ref.path == "animals/birds/owl_desc_fr.ogg"
    assert dict(sample.meta) == {
        "source": "tuxpaint-stamps-default/animals/birds/owl.png",
        "licence": "GPL-2.0-only",
        "original_key": "animals/birds/owl",
        "category": "animals",
        "label": "animals",
        "language": "fr",
        "caption_en": "An owl.",
        "caption_group": "an owl.",
        "original_sha256": {
            "ogg": sha256_hex(b"_desc_fr.ogg"),
            "png": sha256_hex(b"png"),
            "txt": sha256_hex(OWL),
        },
    }


def test_a_stamp_nobody_speaks_of_is_counted_with_its_english_caption() -> None:
    (sample,) = make(StampsLayout(languages=("fr",)), owl("_desc.ogg")).outcomes
    assert isinstance(sample, Sample)
    assert sorted(sample.parts) == ["png", "txt"]
    assert sample.parts["txt"].data == b"An owl."
    assert sample.meta["language"] == "en"


def test_a_spoken_letter_serves_where_there_is_no_description() -> None:
    contents = owl("_fr.ogg", "_es.ogg", "_desc_es.ogg")
    made = make(StampsLayout(languages=("fr", "es")), contents)
    paths = [
        outcome.parts["ogg"].ref.path
        for outcome in made.outcomes
        if isinstance(outcome, Sample) and outcome.parts["ogg"].ref
    ]
    assert paths == ["animals/birds/owl_fr.ogg", "animals/birds/owl_desc_es.ogg"]


def test_the_sound_of_another_stamp_is_not_speech() -> None:
    contents = owl("_fr.ogg", "_fr.png", "_fr.txt")
    made = make(StampsLayout(languages=("fr",)), contents)
    parts = [sorted(o.parts) for o in made.outcomes if isinstance(o, Sample)]
    assert parts == [["png", "txt"], ["png", "txt"]]
    grouping = group(StampsLayout(languages=("fr",)), contents)
    assert list(grouping.unclaimed) == [("animals/birds/owl_fr.ogg", "sound_of_the_thing")]


def test_a_vector_picture_is_taken_only_where_there_is_no_other() -> None:
    layout = StampsLayout(languages=("fr",))
    contents = {"a/x.svg": b"s", "a/x.txt": b"X", "a/y.svg": b"s", "a/y.png": b"p", "a/y.txt": b"Y"}
    parts = [sorted(o.parts) for o in make(layout, contents).outcomes if isinstance(o, Sample)]
    assert parts == [["svg", "txt"], ["png", "txt"]]
    assert list(group(layout, contents).unclaimed) == [("a/y.svg", "png_preferred")]


@pytest.mark.parametrize("variant", ["_mirror", "_flip", "_mirror_flip"])
def test_a_mirror_variant_is_dropped_for_its_twin(variant: str) -> None:
    contents = owl("_desc_fr.ogg", f"{variant}.png")
    kept, dropped = make(StampsLayout(languages=("fr",)), contents).outcomes
    assert isinstance(kept, Sample)
    assert isinstance(dropped, Dropped)
    assert (dropped.reason, dropped.twin) == ("mirror_variant", kept.key)
    assert dropped.sample.meta["original_key"] == f"animals/birds/owl{variant}"
    assert dropped.sample.key != kept.key


def test_a_mirror_without_a_base_is_a_stamp() -> None:
    contents = {"a/bathroom_mirror.png": b"p", "a/bathroom_mirror.txt": b"A mirror."}
    (sample,) = make(StampsLayout(languages=("fr",)), contents).outcomes
    assert isinstance(sample, Sample)


def test_every_file_that_is_not_used_has_a_reason() -> None:
    contents = owl(
        ".dat", ".ogg", "_desc_ru.ogg", "_desc_fr.ogg", "_fr.ogg", "_mirror.png", "_mirror.txt",
        "_desc_da.ogg.ogg", "let_desc_fr.ogg", "_notes.md",
    )  # fmt: skip
    grouping = group(StampsLayout(languages=("fr",)), contents)
    prefix = "animals/birds/owl"
    assert {path.removeprefix(prefix): reason for path, reason in grouping.unclaimed} == {
        ".dat": "drawing_hints",
        ".ogg": "sound_of_the_thing",
        "_desc_ru.ogg": "language_not_declared",
        "_fr.ogg": "other_speech_preferred",
        "_mirror.txt": "of_a_mirror_variant",
        "_desc_da.ogg.ogg": "orphan",
        "let_desc_fr.ogg": "orphan",
        "_notes.md": "unknown_extension",
    }


@pytest.mark.parametrize(
    ("captions", "reason"),
    [
        (b"", "caption_missing"),
        (b"\nfr.utf8=Un hibou.", "caption_missing"),
        (b"\xff\xfe", "metadata_unreadable"),
    ],
)
def test_a_stamp_without_a_readable_caption_is_quarantined(captions: bytes, reason: str) -> None:
    (broken,) = make(StampsLayout(languages=("fr",)), owl(captions=captions)).outcomes
    assert isinstance(broken, Quarantined)
    assert broken.reason == reason


def test_a_stamp_without_text_is_quarantined() -> None:
    (broken,) = make(StampsLayout(languages=("fr",)), {"a/x.png": b"p"}).outcomes
    assert isinstance(broken, Quarantined)
    assert (broken.reason, broken.sample.key) == ("caption_missing", "a__x__en")


def test_captions_keep_their_first_line_per_language() -> None:
    text = "A  rocket. \nca@valencia.utf8=Un coet\n\nnonsense\nfr.utf8=a=b\nfr.utf8=c\n"
    assert parse_captions(text) == {"en": "A  rocket.", "ca@valencia": "Un coet", "fr": "a=b"}


def test_the_caption_group_ignores_case_and_spaces() -> None:
    outcomes = make(StampsLayout(languages=("fr",)), owl(captions=b"An  OWL. ")).outcomes
    assert isinstance(outcomes[0], Sample)
    assert outcomes[0].meta["caption_group"] == "an owl."


@pytest.mark.parametrize("languages", [(), ("fr", "fr"), ("zh_TW", "zh_tw")])
def test_languages_are_named_once_each(languages: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="languages"):
        StampsLayout(languages=languages)


def opened(
    layout: StampsLayout, files: list[SourceFile], folder: Path
) -> tuple[Grouping, list[Outcome]]:
    grouping = layout.group(files)
    made = [
        layout.make(raw, lambda file: (folder / file.path).read_bytes()) for raw in grouping.samples
    ]
    return grouping, [outcome for one in made for outcome in one.outcomes]


def test_the_real_corpus_has_the_documented_counts(
    stamps: Path, stamp_files: list[SourceFile]
) -> None:
    assert len(stamp_files) == 10_397
    layout = StampsLayout(languages=SPOKEN)
    grouping, outcomes = opened(layout, stamp_files, stamps)
    assert len(grouping.samples) == 950
    pictures = Counter("png" if "png" in raw.files else "svg" for raw in grouping.samples)
    assert pictures == {"png": 785, "svg": 165}
    samples = [outcome for outcome in outcomes if isinstance(outcome, Sample)]
    assert len({sample.meta["original_key"] for sample in samples}) == 950
    assert len({sample.key for sample in samples}) == len(samples)
    assert Counter(type(outcome).__name__ for outcome in outcomes) == {
        "Sample": 7_461,
        "Dropped": 11,
    }
    assert len({str(sample.meta["caption_en"]) for sample in samples}) == 804
    assert len({str(sample.meta["caption_en"]).casefold() for sample in samples}) == 774


def test_the_real_corpus_speaks_as_documented(stamps: Path, stamp_files: list[SourceFile]) -> None:
    _, outcomes = opened(StampsLayout(languages=SPOKEN), stamp_files, stamps)
    spoken = [o for o in outcomes if isinstance(o, Sample) and o.extension("audio")]
    # ten digits are spoken twice in French, nine in Russian and Romanian: one sample each here
    assert Counter(sample.meta["language"] for sample in spoken) == {
        "fr": 935 - 10,
        "ru": 927 - 9,
        "ca": 925,
        "ro": 922 - 9,
        "bg": 920,
        "es": 898,
        "be": 693,
        "el": 667,
        "da": 321,
        "en_GB": 114,
        "nl": 77,
        "en": 65,
    }
    assert len({sample.meta["original_key"] for sample in spoken}) == 925


def test_every_spoken_pair_of_the_real_corpus_is_found(
    stamps: Path, stamp_files: list[SourceFile]
) -> None:
    layout = StampsLayout(languages=SPOKEN + REST)
    grouping, outcomes = opened(layout, stamp_files, stamps)
    spoken = [o for o in outcomes if isinstance(o, Sample) and o.extension("audio")]
    reasons = Counter(reason for _, reason in grouping.unclaimed)
    assert len(spoken) + reasons["other_speech_preferred"] == 7_582
    with_png = sum("png" in sample.parts for sample in spoken)
    assert with_png + reasons["other_speech_preferred"] == 6_452
    assert reasons["sound_of_the_thing"] == 134
    assert reasons["drawing_hints"] == 528


def test_the_real_classes_are_the_top_folders(stamps: Path, stamp_files: list[SourceFile]) -> None:
    _, outcomes = opened(StampsLayout(languages=("fr",)), stamp_files, stamps)
    labels = Counter(o.meta["label"] for o in outcomes if isinstance(o, Sample))
    assert len(labels) == 16
    assert (labels["symbols"], labels["animals"], labels["naturalforces"]) == (249, 154, 3)


def test_the_english_caption_comes_before_the_spoken_one_where_asked() -> None:
    contents = owl("_desc.ogg", "_desc_fr.ogg")
    made = make(StampsLayout(languages=("en", "fr"), with_english=True), contents)
    texts = [outcome.parts["txt"].data for outcome in made.outcomes if isinstance(outcome, Sample)]
    assert texts == [b"An owl.", b"An owl. / Un hibou."]
