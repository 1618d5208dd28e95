"""Newcomers that encoding makes equal to what an earlier increment holds."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from mmcore.core.step import Artifact, Inputs
from mmcore.sample import Sample
from mmcore.shard.work import ShardWork

MakeSample = Callable[..., Sample]
WORK = ShardWork(name="tiny", samples_per_shard=8, together=("text",))


@pytest.fixture
def grown(published: Callable[..., Any], encoded: Callable[..., Inputs]) -> Callable[..., Inputs]:
    """Return the inputs of an increment on top of a dataset."""

    def make(old: Sequence[Sample], new: Sequence[Sample]) -> Inputs:
        dataset = published(old, work=WORK)
        artifact = Artifact(str(dataset.path), dataset.manifest)
        return replace(encoded(new), history=({"shard": artifact},))

    return make


def _left_out(inputs: Inputs) -> list[tuple[str, str, str]]:
    payloads: list[Any] = [task.payload for task in WORK.tasks(inputs)]
    rows = [row for payload in payloads for row in payload.get("left_out", ())]
    return [(row["key"], row["reason"], row["detail"]) for row in rows]


def test_a_newcomer_that_encoding_made_equal_to_an_old_sample_of_another_split_is_left_out(
    grown: Callable[..., Inputs], make_sample: MakeSample
) -> None:
    old = [
        make_sample(1, text="same", split="test").with_meta(original_sha256={"txt": "a"}),
        make_sample(2, text="other").with_meta(original_sha256={"txt": "b"}),
    ]
    new = [
        make_sample(number, text=text, split=split).with_meta(original_sha256={"txt": f"{number}"})
        for number, text, split in (
            (3, "same", "train"),
            (4, "same", "test"),
            (5, "other", "train"),
            (6, "new", "train"),
        )
    ]
    detail = "its text is that of k001 in test, which was there"
    assert _left_out(grown(old, new)) == [("k003", "equal_after_encoding", detail)]


def test_a_newcomer_may_equal_an_old_sample_that_is_gone(
    grown: Callable[..., Inputs], make_sample: MakeSample, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = [
        make_sample(number, text=text, split="test").with_meta(original_sha256={"txt": text})
        for number, text in ((1, "same"), (2, "other"))
    ]
    new = [make_sample(3, text="same").with_meta(original_sha256={"txt": "a"})]
    inputs = grown(old, new)
    assert len(_left_out(inputs)) == 1
    monkeypatch.setattr("mmcore.shard.earlier.gone_now", lambda _: {"k001": "removed"})
    assert _left_out(inputs) == []


def test_what_was_one_file_in_two_increments_is_not_excused(
    grown: Callable[..., Inputs], make_sample: MakeSample
) -> None:
    old = [make_sample(1, text="same", split="test").with_meta(original_sha256={"txt": "a"})]
    new = [make_sample(3, text="same").with_meta(original_sha256={"txt": "a"})]
    assert _left_out(grown(old, new)) == []
