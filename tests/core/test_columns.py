import random
from pathlib import Path

import numpy as np
import pytest

from mmcore.core.columns import Corpus, Gatherer, Identity, Score, Values, Want, Word
from mmcore.core.near_limits import PrintOf, VectorOf
from mmcore.errors import AccountingError, StepError
from mmcore.media.near.prints import PRINT_BYTES, with_print
from mmcore.sample import Part, Sample

IMAGE, SCORE, LABEL, PRINT = Values("image"), Score("sharp"), Word("meta:label"), PrintOf("image")


def gathered(directory: Path, samples: list[Sample], *wants: Want) -> Corpus:
    gatherer = Gatherer(wants, directory)
    for sample in samples:
        gatherer.add(sample)
    return gatherer.corpus()


def sample(number: int) -> Sample:
    made = Sample(
        f"k{number:03d}",
        {"png": Part(data=bytes([number % 7]))} if number % 3 else {},
        {"label": "ab"[number % 2]},
        {"sharp": float(number)} if number % 5 else {},
    )
    data = bytes([number % 256]) * PRINT_BYTES["image"] if number % 4 else None
    return with_print(made, "image", data)


def test_rows_are_in_the_order_of_keys_whatever_the_order_of_samples(tmp_path: Path) -> None:
    samples = [sample(number) for number in range(100)]
    shuffled = random.Random(1).sample(samples, 100)
    corpus = gathered(tmp_path, shuffled, IMAGE, SCORE, LABEL, PRINT)
    assert list(corpus.keys(range(100))) == [one.key for one in samples]
    assert [shuffled[came].key for came in corpus.arrival.tolist()] == [one.key for one in samples]
    images = corpus[IMAGE]
    assert images.rows.tolist() == [n for n in range(100) if n % 3]
    assert [value.tobytes() for value in images.take()] == [
        digest for one in samples for digest in IMAGE.of(one)
    ]
    numbers = corpus[SCORE].numbers(100)
    assert np.isnan(numbers[::5]).all()
    assert numbers[7] == 7.0
    prints = corpus[PRINT]
    assert not prints.store.flags.owndata
    assert not prints.store.flags.writeable
    assert [int(value[0]) for value in prints.take()] == prints.rows.tolist()
    assert sorted(corpus[LABEL].words.values()) == ["a", "b"]


def test_a_part_of_a_corpus_has_the_rows_that_are_left(tmp_path: Path) -> None:
    samples = [sample(number) for number in range(40)]
    kept = np.arange(40) % 2 == 1
    corpus = gathered(tmp_path, samples[::-1], IMAGE, PRINT).only(kept)
    assert corpus.num_rows == 20
    assert corpus.key(0) == "k001"
    assert [corpus.key(int(row)) for row in corpus[PRINT].rows] == [
        one.key for one in samples[1::2] if one.meta["print_image"]
    ]


def test_keys_sort_by_their_bytes(tmp_path: Path) -> None:
    keys = ["b", "a-1", "a", "a__1", "B", "a1", "aa" * 60]
    corpus = gathered(tmp_path, [Sample(key) for key in keys])
    assert list(corpus.keys(range(len(keys)))) == sorted(keys)


def test_a_key_that_is_there_twice_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AccountingError, match="'b'"):
        gathered(tmp_path, [Sample("b"), Sample("a"), Sample("b")])


def test_an_identity_needs_every_name_unless_it_may_lack() -> None:
    one, two = Sample("a", {}, {"x": "1"}), Sample("b", {}, {"x": "1", "y": "2"})
    assert Identity(("meta:x", "meta:y")).of(one) == []
    assert len(Identity(("meta:x", "meta:y")).of(two)) == 1
    loose = Identity(("meta:x", "meta:y"), may_lack=True)
    assert loose.of(one) != loose.of(two)


def test_equal_values_of_two_names_are_two_values() -> None:
    one = Sample("a", {}, {"x": "1", "y": "1"})
    assert Values("meta:x").of(one) != Values("meta:y").of(one)


def test_embeddings_of_several_lengths_are_an_error(tmp_path: Path) -> None:
    samples = [Sample("a", {}, {"clip": [1.0]}), Sample("b", {}, {"clip": [1.0, 2.0]})]
    with pytest.raises(StepError, match="one length"):
        gathered(tmp_path, samples, VectorOf("clip"))


def test_an_empty_corpus_has_no_rows(tmp_path: Path) -> None:
    corpus = gathered(tmp_path, [], IMAGE, SCORE, PRINT, VectorOf("clip"))
    assert corpus.num_rows == 0
    assert len(corpus[PRINT]) == 0
    assert corpus[SCORE].numbers(0).tolist() == []
