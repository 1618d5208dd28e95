"""Stages that want batches among stages that decode: order, accounts, what comes together."""

from collections.abc import Iterator, Sequence
from functools import partial

import pytest
from batch_stages import Joined, Loses, Together
from hostile_stages import Hostile

from mmcore.clean.audio import DecodeAudio
from mmcore.clean.parts import RequireParts
from mmcore.core.batches import through_batches
from mmcore.core.decoder import close_idle
from mmcore.core.decoder_limits import DecoderLimits
from mmcore.core.map_work import StageChain
from mmcore.core.stage import Stage
from mmcore.errors import AccountingError
from mmcore.sample import Dropped, Outcome, Part, Sample

WORDS = ("one", "two", "abort", "three", "unwanted", "bad", "four", "short", "five")


@pytest.fixture(scope="module", autouse=True)
def _end_what_was_started() -> Iterator[None]:
    yield
    close_idle()


def through(stages: Sequence[Stage], words: Sequence[str] = WORDS) -> list[tuple[str, Outcome]]:
    samples = [Sample(f"s{i}", {"txt": Part(data=word.encode())}) for i, word in enumerate(words)]
    chain_of = partial(StageChain, bases={})
    return list(through_batches(stages, samples, chain_of, DecoderLimits(seconds=5)))


def test_every_sample_comes_out_once_in_order_with_who_decided() -> None:
    found = through([Hostile(), Together(), Joined()])
    said = [
        (rule, getattr(one, "reason", ""), (one if isinstance(one, Sample) else one.sample).key)
        for rule, one in found
    ]
    assert said == [
        ("", "", "s0"),
        ("", "", "s1"),
        ("hostile", "decoder_died", "s2"),
        ("", "", "s3"),
        ("together", "unwanted", "s4"),
        ("hostile", "text_bad", "s5"),
        ("", "", "s6"),
        ("hostile", "text_short", "s7"),
        ("", "", "s8"),
    ]


def test_stages_behind_see_what_a_batch_said_and_nothing_that_was_prepared() -> None:
    _, first = through([Hostile(), Together(), Joined()])[0]
    assert isinstance(first, Sample)
    assert {name: part.data for name, part in first.parts.items()} == {
        "txt": b"one", "up.txt": b"ONE", "joined.txt": b"eno ONE",
    }  # fmt: skip


def test_which_samples_come_together_follows_from_the_input() -> None:
    found = [one for _, one in through([Hostile(), Together(batch_size=4)])]
    together = [one.meta["came_with"] for one in found if isinstance(one, Sample)]
    # groups of four as they came in, without those that went before
    assert together == ["s0 s1 s3", "s0 s1 s3", "s0 s1 s3", "s4 s6", "s8"]
    dropped = found[4]
    assert isinstance(dropped, Dropped)
    assert dropped.sample.meta["came_with"] == "s4 s6"


def test_two_stages_with_batches_of_their_own_sizes_follow_each_other() -> None:
    found = through([Together(batch_size=2), Together(batch_size=3)], ["a", "b", "c"])
    assert [one.meta["came_with"] for _, one in found if isinstance(one, Sample)] == [
        "s0 s1 s2"
    ] * 3


def test_what_may_be_left_out_may_be_left_out_behind_a_batch_too() -> None:
    parts = {"txt": Part(data=b"one"), "flac": Part(data=b"no sound")}
    stages = (RequireParts(required=("text",), optional=("audio",)), Together(), DecodeAudio())
    chain_of = partial(StageChain, bases={})
    ((_, kept),) = through_batches(stages, [Sample("s0", parts)], chain_of, DecoderLimits())
    assert isinstance(kept, Sample)
    named = kept.meta["dropped_parts"]
    assert isinstance(named, dict)
    assert str(named["flac"]).startswith("audio_format_refused: starts with b'no sound'")


def test_a_stage_that_loses_a_sample_is_a_fault() -> None:
    with pytest.raises(AccountingError, match=r"the stage loses answered for \['s0'\]"):
        through([Loses()], ["a", "b"])
