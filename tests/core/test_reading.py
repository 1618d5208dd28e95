"""Reading in the decoder process: whatever a record does to it, that costs this record alone."""

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hostile_reading import Words, said

from mmcore.core import decoder_hand
from mmcore.core.decoder import close_idle
from mmcore.core.decoder_limits import DecoderLimits
from mmcore.core.in_hand import Refusal
from mmcore.core.reading import answers
from mmcore.errors import IntegrityError, StepError

LIMITS = DecoderLimits(seconds=0.5, seconds_per_mb=0.0, memory_mb=256)
DIED = "decoder_died: its decoder was ended by SIGABRT"


@pytest.fixture(scope="module", autouse=True)
def _end_what_was_started() -> Iterator[None]:
    yield
    close_idle()


def asked(*questions: Sequence[str], reading: Words | None = None) -> list[tuple[int, str]]:
    listed: list[Any] = [{"place": f"p{i}", "words": list(one)} for i, one in enumerate(questions)]
    return said(answers(reading or Words(), listed, LIMITS))


def test_answers_come_in_order_with_their_bytes() -> None:
    questions: list[Any] = [{"place": "p", "words": ["a", "b"]}, {"place": "q", "words": []}]
    questions.append({"place": "r", "words": ["c"] * 200})
    found = [(n, bytes(a[0]), bytes(a[1])) for n, a in answers(Words(), questions, LIMITS)]  # type: ignore[index]
    assert found == [(0, b"a", b"aa"), (0, b"b", b"bb"), *[(2, b"c", b"cc")] * 200]


@pytest.mark.parametrize(
    ("word", "refused"),
    [
        ("segfault", "decoder_died: its decoder was ended by SIGSEGV"),
        ("exit", "decoder_died: its decoder ended with exit code 3"),
        ("loop", "decoder_timeout: took more than 0.5 s"),
        ("bomb", "decoder_memory: needs more than 256 MB"),
    ],
)
def test_a_record_that_kills_its_process_is_refused_alone(word: str, refused: str) -> None:
    found = asked(["a"], ["b", "c", word, "d", word], ["e"])
    assert found == [
        (0, "a"),
        *[(1, one) for one in ("b", "c", refused, "d", refused)],
        (2, "e"),
    ]


def test_a_record_that_waits_for_ever_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_hand, "_WALL_SECONDS", 0.0)
    assert asked(["a", "sleep", "b"]) == [
        (0, "a"), (0, "decoder_timeout: took more than 0.5 s"), (0, "b")
    ]  # fmt: skip


def test_what_was_handed_over_is_not_handed_over_again() -> None:
    words = [str(i) for i in range(150)]
    found = asked([*words, "abort", *words])
    assert found == [*((0, word) for word in words), (0, DIED), *((0, word) for word in words)]


def test_where_nobody_says_what_is_in_hand_the_rest_of_a_question_is_refused_once() -> None:
    found = asked(["a", "b"], ["c", "abort", "d"], ["e"], reading=Words(names_records=False))
    assert found == [(0, "a"), (0, "b"), (1, "c"), (1, '"decoder_died"'), (2, "e")]


def test_a_record_that_cannot_even_be_stepped_over_ends_its_question() -> None:
    (_, before), (number, last), (_, after) = answers(
        Words(),
        [{"place": "p", "words": ["a", "stuck", "b"]}, {"place": "q", "words": ["c"]}],
        LIMITS,
    )
    assert isinstance(before, tuple)
    assert isinstance(after, tuple)
    assert number == 0
    assert isinstance(last, Refusal)
    assert last.detail.endswith("nothing behind it is read")
    assert bytes(after[0]) == b"c"


def test_a_place_of_which_too_much_kills_is_read_no_further() -> None:
    found = asked(["abort"] * 40, ["a"])
    assert found == [*[(0, DIED)] * 15, (0, f"{DIED}; nothing behind it is read"), (1, "a")]


def test_a_record_is_refused_only_by_a_process_that_has_read_nothing_else(tmp_path: Path) -> None:
    asked(["a"], ["abort", "b"], reading=Words(marks=str(tmp_path)))
    looks = [line.split() for line in (tmp_path / "looks").read_text().splitlines()]
    pids = [pid for word, pid in looks if word == "abort"]
    assert len(set(pids)) == len(pids) == 2
    assert pids[1] not in {pid for word, pid in looks if word == "a"}


def test_a_process_that_somebody_kills_is_replaced_and_the_record_is_read(tmp_path: Path) -> None:
    reading = Words(marks=str(tmp_path))
    questions: list[Any] = [{"place": "p", "words": ["a"] * 500}]
    found = answers(reading, questions, LIMITS)
    first = next(found)
    os.kill(int((tmp_path / "looks").read_text().split()[1]), signal.SIGKILL)
    assert [word for _, word in said([first, *found])] == ["a"] * 500


def test_one_that_is_killed_again_and_again_is_a_broken_machine_and_no_bad_data() -> None:
    with pytest.raises(StepError, match=r"killed 3 times.*fewer --workers"):
        asked(["a", "killed", "b"])


def test_an_error_of_ours_keeps_its_type() -> None:
    with pytest.raises(IntegrityError, match="part-3 holds other bytes"):
        asked(["a", "broken"])
    assert asked(["a"]) == [(0, "a")]


def test_nothing_is_started_where_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmcore.core.reading.borrowed", lambda _: pytest.fail("it is started"))
    assert list(answers(Words(), [], LIMITS)) == []


def test_who_takes_its_time_holds_one_frame_and_kills_nothing() -> None:
    import time

    questions: list[Any] = [{"place": "p", "words": ["x" * 100_000] * 100}]
    num = 0
    for _, answer in answers(Words(), questions, LIMITS):
        assert isinstance(answer, tuple)
        num += 1
        if num == 1:
            time.sleep(0.8)  # longer than a record may take
    assert num == 100
