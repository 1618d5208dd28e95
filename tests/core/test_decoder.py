"""The decoder process: whatever a sample does to it, that costs this sample and no other."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import toy
from hostile_stages import Corrupting, Hostile, Unbuildable
from processes import children, kill, wait_until, with_text
from toy import hashes, toy_graph

from mmcore.core import decoder_wire as wire
from mmcore.core.cancel import StopSwitch
from mmcore.core.decoder import borrowed, close_idle
from mmcore.core.decoder_limits import DecoderLimits
from mmcore.core.map_work import StageChain
from mmcore.core.rows import read_rows
from mmcore.core.runner import Run
from mmcore.core.stage import Stage
from mmcore.errors import (
    AccountingError,
    ConfigError,
    IntegrityError,
    RunCancelled,
    StepError,
)
from mmcore.executors.local import LocalExecutor
from mmcore.sample import Dropped, Outcome, Part, PartRef, Quarantined, Sample

LIMITS = DecoderLimits(seconds=0.5, seconds_per_mb=0.0, memory_mb=256)


@pytest.fixture(scope="module", autouse=True)
def _end_what_was_started() -> Iterator[None]:
    yield
    close_idle()


def samples_of(*words: str) -> list[Sample]:
    return [Sample(f"s{i}", {"txt": Part(data=word.encode())}) for i, word in enumerate(words)]


def decoded(
    samples: Sequence[Sample], stage: Stage | None = None, limits: DecoderLimits = LIMITS
) -> list[tuple[str, Outcome]]:
    with borrowed([StageChain((stage or Hostile(),), {})]) as decoder:
        return list(decoder.outcomes(0, samples, limits))


def said(outcomes: Sequence[tuple[str, Outcome]]) -> list[str]:
    return [getattr(outcome, "reason", "kept") for _, outcome in outcomes]


def test_what_becomes_of_a_sample_is_what_a_stage_in_this_process_says() -> None:
    ref = PartRef("source", "a.png", 1, 2, "ab")
    given = [
        replace(sample, parts={**sample.parts, "png": Part(ref)}, meta={"n": None, "m": [1.5]})
        for sample in samples_of("birds", "bad", "short")
    ]
    kept, bad, short = (outcome for _, outcome in decoded(given))
    assert isinstance(kept, Sample)
    assert kept.parts == {
        "txt": Part(data=b"birds"),
        "png": Part(ref),
        "up.txt": Part(data=b"BIRDS"),
    }
    assert kept.meta == {"n": None, "m": [1.5], "word": "birds", "found": [1, None]}
    assert kept.scores == {"num_chars": 5.0}
    assert bad == Quarantined(given[1], "text_bad", "it says so")
    assert short == Dropped(given[2], "text_short", "5 < 6", twin="t")


@pytest.mark.parametrize(
    ("word", "reason", "detail"),
    [
        ("abort", "decoder_died", "its decoder was ended by SIGABRT"),
        ("segfault", "decoder_died", "its decoder was ended by SIGSEGV"),
        ("exit", "decoder_died", "its decoder ended with exit code 3"),
        ("loop", "decoder_timeout", "took more than 0.5 s"),
        ("bomb", "decoder_memory", "needs more than 256 MB"),
    ],
)
def test_a_sample_that_kills_its_decoder_is_quarantined_alone(
    word: str, reason: str, detail: str
) -> None:
    outcomes = decoded(samples_of("a", "b", word, "c"))
    assert said(outcomes) == ["kept", "kept", reason, "kept"]
    assert outcomes[2][0] == "hostile"
    assert outcomes[2][1] == Quarantined(samples_of("a", "b", word)[2], reason, detail)


def test_a_hundred_hostile_samples_in_a_row_cost_a_hundred() -> None:
    words = ["abort"] * 100 + ["fine"] * 3
    assert said(decoded(samples_of(*words))) == ["decoder_died"] * 100 + ["kept"] * 3


def test_the_verdict_depends_on_no_neighbour() -> None:
    # what a damaged heap does to the samples after it is not their fault
    words = ["fine", "damage", "fine", "fine", "damage", "damage"]
    assert said(decoded(samples_of(*words), Corrupting())) == ["kept"] * len(words)


def test_a_decoder_that_somebody_kills_once_is_replaced(tmp_path: Path) -> None:
    samples = samples_of(*["sleepy"] * 3)
    with borrowed([StageChain((Hostile(marks=str(tmp_path)),), {})]) as decoder:
        assert said(list(decoder.outcomes(0, samples, LIMITS))) == ["kept"] * 3
        pid = int((tmp_path / "looks").read_text().split()[1])
        os.kill(pid, signal.SIGKILL)
        assert said(list(decoder.outcomes(0, samples, LIMITS))) == ["kept"] * 3


def test_a_nursery_that_somebody_kills_is_replaced_too(tmp_path: Path) -> None:
    samples = samples_of("a", "abort", "c")
    with borrowed([StageChain((Hostile(),), {})]) as decoder:
        for _ in range(4):
            found = decoder.outcomes(0, samples, LIMITS)
            first = next(found)
            os.kill(decoder._nursery.pid, signal.SIGKILL)
            decoder._nursery.wait()
            assert said([first, *found]) == ["kept", "decoder_died", "kept"]


def test_other_limits_hold_from_the_next_sample_on() -> None:
    with borrowed([StageChain((Hostile(),), {})]) as decoder:
        for seconds in (0.3, 0.6):
            limits = DecoderLimits(seconds=seconds, seconds_per_mb=0, memory_mb=256)
            ((_, found),) = decoder.outcomes(0, samples_of("loop"), limits)
            assert isinstance(found, Quarantined)
            assert found.detail == f"took more than {seconds:g} s"
        small = DecoderLimits(memory_mb=8)
        assert said(list(decoder.outcomes(0, samples_of("some_mb", "a"), LIMITS))) == ["kept"] * 2
        found_small = said(list(decoder.outcomes(0, samples_of("some_mb", "a"), small)))
        assert found_small == ["decoder_memory", "kept"]


def test_a_decoder_that_is_killed_again_and_again_is_a_broken_machine_not_a_bad_sample() -> None:
    with pytest.raises(StepError, match=r"killed 3 times.*fewer --workers"):
        decoded(samples_of("a", "killed", "b"))


def test_an_error_of_ours_keeps_its_type_and_a_bug_is_said_with_its_traceback() -> None:
    with pytest.raises(IntegrityError, match="part-3 holds other bytes") as caught:
        decoded(samples_of("a", "broken"))
    assert type(caught.value) is IntegrityError
    with pytest.raises(StepError, match=r"(?s)ZeroDivisionError: a bug of the stage.*in obey_word"):
        decoded(samples_of("bug"))
    with pytest.raises(ConfigError, match=r"no such table\. Give another"):
        decoded(samples_of("a"), Unbuildable())
    assert said(decoded(samples_of("a"))) == ["kept"]


def test_a_sample_is_decoded_in_another_process_which_is_kept_for_the_next(tmp_path: Path) -> None:
    stage = Hostile(marks=str(tmp_path))
    decoded(samples_of("a", "b"), stage)
    decoded(samples_of("c"), stage)
    pids = {line.split()[1] for line in (tmp_path / "looks").read_text().splitlines()}
    assert len(pids) == 1
    assert str(os.getpid()) not in pids


def test_what_was_done_before_a_death_is_done_at_most_twice(tmp_path: Path) -> None:
    words = [*["a"] * 40, "abort", *["b"] * 40]
    decoded(samples_of(*words), Hostile(marks=str(tmp_path)))
    looks = [line.split()[0] for line in (tmp_path / "looks").read_text().splitlines()]
    assert max(looks.count(f"s{i}") for i in range(len(words))) == 2
    assert looks.count("s0") == looks.count("s80") == 1


def test_a_larger_sample_has_more_time() -> None:
    limits = DecoderLimits(seconds=1.0, seconds_per_mb=4.0)
    ref = PartRef("source", "a.mp4", 0, 1_500_000, "")
    sample = Sample("a", {"mp4": Part(ref, data=b"x" * 100), "txt": Part(data=bytes(500_000))})
    assert limits.seconds_for(sample) == pytest.approx(9.0)


def test_limits_of_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"limits.seconds=0. Use more than 0"):
        DecoderLimits(seconds=0)
    with pytest.raises(ConfigError, match=r"limits.seconds_per_mb=-1"):
        DecoderLimits(seconds_per_mb=-1)


def test_the_same_bytes_come_out_with_any_number_of_workers(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    words = ["abort", "exit", "loop", "bomb", "segfault", "bad", "short", *"abcdefghij"]
    for i, word in enumerate(words):
        (corpus / f"t{i:02d}.txt").write_text(word)
    for workers, per_task in ((1, 6), (2, 6)):
        graph = toy_graph(corpus, stage=Hostile(), samples_per_task=per_task, limits=LIMITS)
        root = tmp_path / str(workers)
        run = Run(graph, root=str(root), executor=LocalExecutor(num_workers=workers))
        run.run(["clean"])
    rows = {row.sample.key: row for row in read_rows(run.artifacts["clean"])}
    assert [rows[f"t{i:02d}"].reason for i in range(7)] == [
        "decoder_died", "decoder_died", "decoder_timeout", "decoder_memory", "decoder_died",
        "text_bad", "text_short",
    ]  # fmt: skip
    assert {rows[f"t{i:02d}"].status for i in range(7, 17)} == {"kept"}
    assert hashes(tmp_path / "1") == hashes(tmp_path / "2")


def test_an_answer_that_nobody_asked_for_is_refused() -> None:
    sample, other = samples_of("a", "b")
    with borrowed([StageChain((Hostile(),), {})]) as decoder:
        list(decoder.outcomes(0, [sample], LIMITS))
        hand = decoder._hand
        assert hand is not None
        ours, theirs = wire.channel()
        hand._end.close()
        hand._end = ours
        data: list[bytes] = []
        wire.send(theirs, {"outcomes": [wire.pack(other, "", other, data)]}, data)
        with pytest.raises(AccountingError, match="nobody asked the decoder process for 's1'"):
            list(hand.outcomes(0, [sample], None))
        theirs.close()


def test_what_comes_back_is_never_unpickled() -> None:
    import pickle

    ours, theirs = wire.channel()
    hostile = pickle.dumps({"outcomes": []})
    theirs.sendall(wire._HEAD.pack(len(hostile), 0) + hostile)
    with pytest.raises(wire.ChannelClosed, match="no healthy process"):
        wire.receive(ours, lambda: None)
    theirs.sendall(wire._HEAD.pack(2, 2**62))
    with pytest.raises(wire.ChannelClosed, match="no healthy process"):
        wire.receive(ours, lambda: None)
    ours.close()
    theirs.close()


def test_a_run_that_is_told_to_stop_does_so_while_a_sample_hangs() -> None:
    stop = StopSwitch()
    before = children()
    ended: list[BaseException] = []

    def work() -> None:
        try:
            with stop.working():
                decoded(samples_of("sleep"), limits=DecoderLimits(seconds=600))
        except RunCancelled as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    wait_until(lambda: children() - before, seconds=30, what="it decodes")
    time.sleep(1.0)
    stop.throw(RunCancelled("a test"))
    stop.interrupt(thread)
    thread.join(10)
    assert not thread.is_alive()
    assert len(ended) == 1
    wait_until(lambda: children() <= before, seconds=10, what="its decoder is gone")


def test_signals_that_a_worker_ignores_are_not_ignored_by_its_decoder() -> None:
    close_idle()
    before = signal.signal(signal.SIGPROF, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPROF})
    try:
        assert said(decoded(samples_of("loop", "a"))) == ["decoder_timeout", "kept"]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGPROF, before)


@pytest.mark.parametrize("word", ["loop", "sleep"])
def test_a_decoder_dies_with_its_worker(tmp_path: Path, word: str) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from hostile_stages import Hostile\n"
        "from mmcore.core.decoder import borrowed\n"
        "from mmcore.core.decoder_limits import DecoderLimits\n"
        "from mmcore.core.map_work import StageChain\n"
        "from mmcore.sample import Part, Sample\n"
        "sample = Sample('a', {'txt': Part(data=sys.argv[2].encode())})\n"
        "with borrowed([StageChain((Hostile(marks=sys.argv[3]),), {})]) as decoder:\n"
        "    list(decoder.outcomes(0, [sample], DecoderLimits(seconds=600)))"
    )
    mark = f"MM_TEST_MARK_{os.getpid()}"
    here = str(Path(toy.__file__).parent)
    process = subprocess.Popen(
        [sys.executable, "-c", program, here, word, str(tmp_path)], env=os.environ | {mark: "1"}
    )
    try:
        wait_until((tmp_path / "looks").exists, seconds=30, what="it decodes")
        assert len(with_text(mark)) == 3
        process.kill()
        process.wait()
        wait_until(lambda: not with_text(mark), seconds=5, what="nobody is left")
    finally:
        kill(with_text(mark))
