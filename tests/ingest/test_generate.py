import io
import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import ftfy
import numpy as np
import pytest
import soundfile as sf
from PIL import Image

from mmcore.errors import ConfigError, IntegrityError
from mmcore.ingest.answers import Answer, KnownAnswers, Planted, read_answers
from mmcore.ingest.generate import make_corpus
from mmcore.media.minhash import text_tokens

Made = tuple[Path, KnownAnswers]
NONE = Planted(**{item.name: 0.0 for item in fields(Planted)})


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def part(folder: Path, key: str, *extensions: str) -> bytes:
    (path,) = [folder / f"{key}.{e}" for e in extensions if (folder / f"{key}.{e}").exists()]
    return path.read_bytes()


def picture(folder: Path, key: str) -> bytes:
    return part(folder, key, "jpg", "png")


def sound(folder: Path, key: str) -> bytes:
    return part(folder, key, "wav", "flac", "ogg")


def planted(made: Made, fault: str) -> tuple[Path, tuple[Answer, ...]]:
    folder, answers = made
    assert len(answers.planted[fault]) == int(200 * getattr(Planted(), fault))
    assert answers.planted[fault]
    return folder, answers.planted[fault]


def gray(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("L").resize((16, 16)), dtype=float)


def test_the_same_seed_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    code = (
        "import sys; from mmcore.ingest.generate import make_corpus\n"
        "make_corpus(sys.argv[1], num_samples=40, seed=5, video_fraction=0.5)"
    )
    trees = []
    for hash_seed in ("0", "1"):
        folder = tmp_path / hash_seed
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        subprocess.run([sys.executable, "-c", code, str(folder)], check=True, env=environment)
        trees.append(tree(folder))
    assert trees[0] == trees[1]
    assert sum(path.endswith(".mp4") for path in trees[0]) > 5


def test_another_seed_gives_another_corpus(tmp_path: Path) -> None:
    make_corpus(str(tmp_path / "a"), num_samples=5, seed=1)
    make_corpus(str(tmp_path / "b"), num_samples=5, seed=2)
    assert tree(tmp_path / "a") != tree(tmp_path / "b")


def test_a_sample_without_fault_is_sound(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    answers = make_corpus(str(folder), num_samples=12, seed=1, video_fraction=1.0, planted=NONE)
    assert answers.num_clean == 12
    keys = sorted(
        path[:-5] for path in tree(folder) if not path.startswith(".") and path.endswith(".json")
    )
    assert len(keys) == 12
    for key in keys:
        sidecar = json.loads((folder / f"{key}.json").read_bytes())
        caption = (folder / f"{key}.txt").read_text()
        assert key.startswith(sidecar["label"] + "/")
        assert all(sidecar[word] in caption for word in ("shape", "colour", "size", "field"))
        assert min(Image.open(io.BytesIO(picture(folder, key))).size) >= 80
        wave, rate = sf.read(io.BytesIO(sound(folder, key)))
        assert rate == 16_000
        assert 0.5 <= len(wave) / rate <= 1.0
        assert np.abs(wave).max() > 0.1
        assert (folder / f"{key}.mp4").stat().st_size > 1_000


def test_answers_are_read_back(made: Made) -> None:
    folder, answers = made
    assert read_answers(str(folder)) == answers
    num_planted = sum(len(found) for found in answers.planted.values())
    assert answers.num_clean + num_planted == answers.num_samples == 200


def test_an_exact_duplicate_has_every_byte_of_its_twin(made: Made) -> None:
    folder, answers = planted(made, "exact_duplicate")
    files = tree(folder)
    for answer in answers:
        parts = [
            {path[len(key) :]: data for path, data in files.items() if path.startswith(key + ".")}
            for key in (answer.original_key, answer.twin)
        ]
        assert parts[0] == parts[1]
        assert len(parts[0]) >= 4


def test_a_duplicate_picture_has_a_caption_and_sound_of_its_own(made: Made) -> None:
    folder, answers = planted(made, "duplicate_picture")
    for key, twin in ((answer.original_key, answer.twin) for answer in answers):
        assert picture(folder, key) == picture(folder, twin)
        assert part(folder, key, "txt") != part(folder, twin, "txt")
        assert sound(folder, key) != sound(folder, twin)


def test_a_near_duplicate_looks_like_its_twin_and_like_no_other(made: Made) -> None:
    folder, answers = planted(made, "near_duplicate")
    twins = [gray(picture(folder, answer.twin)) for answer in answers]
    for i, answer in enumerate(answers):
        assert picture(folder, answer.original_key) != picture(folder, answer.twin)
        mine = gray(picture(folder, answer.original_key))
        distances = [float(np.abs(mine - twin).mean()) for twin in twins]
        assert int(np.argmin(distances)) == i
        assert distances[i] < 4


@pytest.mark.parametrize(("fault", "smaller"), [("cropped_picture", 2), ("reencoded_picture", 0)])
def test_a_copied_picture_shows_what_its_twin_shows(made: Made, fault: str, smaller: int) -> None:
    folder, answers = planted(made, fault)
    for answer in answers:
        one, twin = (
            Image.open(io.BytesIO(picture(folder, key)))
            for key in (answer.original_key, answer.twin)
        )
        assert one.size == (twin.size[0] - smaller, twin.size[1] - smaller)
        shown = [gray(picture(folder, key)) for key in (answer.original_key, answer.twin)]
        assert 0 < float(np.abs(shown[0] - shown[1]).mean()) < 8


def test_a_paraphrase_has_all_but_two_words_of_its_twin(made: Made) -> None:
    folder, answers = planted(made, "paraphrased_caption")
    for answer in answers:
        one, twin = (
            text_tokens(part(folder, key, "txt").decode())
            for key in (answer.original_key, answer.twin)
        )
        assert len(one) == len(twin) > 50
        assert sum(a != b for a, b in zip(one, twin, strict=True)) == 2
        assert picture(folder, answer.original_key) != picture(folder, answer.twin)


def test_a_broken_picture_does_not_open(made: Made) -> None:
    folder, answers = planted(made, "broken_picture")
    assert {answer.detail for answer in answers} == {"cut", "html", "empty"}
    for answer in answers:
        with pytest.raises(OSError, match=r"truncated|cannot identify"):
            Image.open(io.BytesIO(picture(folder, answer.original_key))).load()


def test_a_small_picture_is_small(made: Made) -> None:
    folder, answers = planted(made, "small_picture")
    for answer in answers:
        assert Image.open(io.BytesIO(picture(folder, answer.original_key))).size == (12, 12)


def test_an_empty_caption_is_empty(made: Made) -> None:
    folder, answers = planted(made, "empty_caption")
    captions = {part(folder, answer.original_key, "txt") for answer in answers}
    assert b"" in captions
    assert {caption.strip() for caption in captions} == {b""}


def test_a_garbled_caption_can_be_mended(made: Made) -> None:
    folder, answers = planted(made, "mojibake_caption")
    for answer in answers:
        garbled = part(folder, answer.original_key, "txt").decode()
        assert garbled != answer.detail
        assert ftfy.fix_text(garbled) == answer.detail


def test_a_truncated_sound_says_it_is_longer_than_it_is(made: Made) -> None:
    folder, answers = planted(made, "truncated_sound")
    assert {answer.detail for answer in answers} == {"flac", "wav"}
    for answer in answers:
        data = sound(folder, answer.original_key)
        if answer.detail == "wav":
            assert int.from_bytes(data[4:8], "little") + 8 > len(data)
        else:
            info = sf.info(io.BytesIO(data))
            with pytest.raises((sf.LibsndfileError, AssertionError)):
                assert len(sf.read(io.BytesIO(data))[0]) == info.frames


def test_a_silent_sound_is_silent(made: Made) -> None:
    folder, answers = planted(made, "silent_sound")
    for answer in answers:
        wave, _ = sf.read(io.BytesIO(sound(folder, answer.original_key)))
        assert len(wave) >= 8_000
        assert not wave.any()


def test_a_missing_sound_is_missing(made: Made) -> None:
    folder, answers = planted(made, "missing_sound")
    for answer in answers:
        files = list(folder.glob(f"{answer.original_key}.*"))
        assert {path.suffix for path in files} - {".mp4", ".png", ".jpg"} == {".txt", ".json"}


def test_a_taken_key_differs_in_case_alone(made: Made) -> None:
    folder, answers = made
    if (folder / ".ANSWERS.JSON").exists():
        pytest.skip("the file system takes two names that differ in case for one")
    assert answers.planted["key_taken"]
    for answer in answers.planted["key_taken"]:
        assert answer.original_key != answer.twin
        assert answer.original_key.lower() == answer.twin.lower()


def test_no_sample_is_the_twin_of_two(made: Made) -> None:
    _, answers = made
    found = [answer for many in answers.planted.values() for answer in many]
    twins = [answer.twin for answer in found if answer.twin]
    assert len(set(twins)) == len(twins)
    assert not set(twins) & {answer.original_key for answer in found}


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        make_corpus(str(tmp_path), num_samples=1, seed=0)
    assert os.listdir(tmp_path) == ["mine.txt"]


@pytest.mark.parametrize(
    ("num_samples", "seed", "video_fraction"), [(0, 0, 0.1), (1, -1, 0.1), (1, 0, 1.1)]
)
def test_senseless_sizes_are_refused(
    tmp_path: Path, num_samples: int, seed: int, video_fraction: float
) -> None:
    with pytest.raises(ConfigError, match="num_samples="):
        make_corpus(
            str(tmp_path / "c"), num_samples=num_samples, seed=seed, video_fraction=video_fraction
        )
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("fraction", [-0.1, 0.9])
def test_faults_that_leave_no_room_are_refused(fraction: float) -> None:
    with pytest.raises(ConfigError, match=r"0\.5 or less"):
        Planted(empty_caption=fraction)


def test_answers_of_another_kind_are_refused(tmp_path: Path) -> None:
    (tmp_path / ".answers.json").write_text("{}")
    with pytest.raises(IntegrityError, match="answers"):
        read_answers(str(tmp_path))
